# SPDX-License-Identifier: Apache-2.0
"""The process that a cluster's daemons are children of, and that ends all of them.

A slurmd leaves its slurmstepd and the jobs alive when it stops, and whoever uses a cluster may be killed
at any moment. So the daemons belong to a small process of their own. It is a "child subreaper"
(prctl(2)): whatever the daemons start and abandon becomes its child instead of PID 1's, which makes "a
process of this cluster" an exact notion. When its standard input ends, because the cluster was stopped or
because its user died in whatever way, it kills all of them and removes the cluster's directory.

It reads one order a line, a JSON object `{"argv": [...], "environ": {...}, "log": PATH}`, starts that
program, and answers with its process id.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import shutil
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from collections.abc import Iterator

MARK = "QPU_SLURM_CLUSTER"
"""The variable that every client is started with; its value is the cluster's directory."""

_PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h


def main() -> None:
    """Keep a cluster until standard input ends."""
    parser = argparse.ArgumentParser(description="Keep the processes of a throw-away Slurm cluster.")
    parser.add_argument("directory", type=Path)
    parser.add_argument("--keep-directory", action="store_true")
    arguments = parser.parse_args()

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")
    signal.signal(signal.SIGCHLD, lambda *_: _reap())
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    try:
        for line in sys.stdin:
            print(_start(**json.loads(line)), flush=True)  # noqa: T201 - the answer to the order
    finally:
        _kill_all(arguments.directory)
        if not arguments.keep_directory:
            shutil.rmtree(arguments.directory)


def _start(argv: list[str], environ: dict[str, str], log: str) -> int:
    append = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    return os.posix_spawn(
        argv[0],
        argv,
        environ,
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, log, append, 0o644),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
        # Python ignores SIGPIPE, and a process that is started inherits that.
        setsigdef=[signal.SIGPIPE],
    )


def _reap() -> None:
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _kill_all(directory: Path) -> None:
    # Again until none is left: a process can fork between our list and our signal.
    while True:
        _reap()
        alive = list(_processes(directory))
        if not alive:
            return
        for process in alive:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        time.sleep(0.01)


def _processes(directory: Path) -> Iterator[psutil.Process]:
    """Find the cluster's processes: our descendants, and the clients, which its user started."""
    yield from psutil.Process().children(recursive=True)
    for process in psutil.process_iter():
        # Other users' processes do not show their environment, and are not ours.
        with suppress(psutil.Error):
            if process.environ().get(MARK) == str(directory) and process.status() != psutil.STATUS_ZOMBIE:
                yield process


if __name__ == "__main__":
    main()
