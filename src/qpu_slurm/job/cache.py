# SPDX-License-Identifier: Apache-2.0
"""What a job's steps tell each other, on the node's disk: what the quantum service has said already.

A QPU's configuration and calibration are half a megabyte that every step of a job would fetch anew, and a
session that one step has opened is there for the others. They lie
in `$TMPDIR/qpu_slurm-cache-UID`, under names made of the job and the QPU. Others write to /tmp, too: the
directory is used only if it is the user's own, closed to everybody else and no symbolic link, and so are the
files. What cannot be kept is fetched again; nothing here is an error.
"""

from __future__ import annotations

import hashlib
import logging
import os
import stat
import time
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from qpu_slurm.system.deadline import Deadline
from qpu_slurm.system.files import locked

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

MAX_AGE: Final = 24 * 3600.0
"""Seconds after which nothing is used, nor kept: QPUs are calibrated about daily."""

MAX_FILE: Final = 16 << 20
MAX_TOTAL: Final = 64 << 20
"""Bytes of one document, and of all that a user's jobs keep on a node: the oldest go first."""

_JOB: Final = ("SLURM_CLUSTER_NAME", "SLURM_JOB_ID", "SLURM_RESTART_COUNT", "SLURM_JOB_START_TIME")
"""What tells a job from all others, also from one that gets its number later."""

_log = logging.getLogger(__name__)


class JobCache:
    """Documents that one job keeps about one QPU.

    Args:
        environ: The step's environment; outside of a job, nothing is kept.
        about: What tells the QPU from others.
    """

    def __init__(self, environ: Mapping[str, str], *about: str) -> None:
        job = [environ.get(name, "") for name in _JOB]
        digest = hashlib.sha256("\0".join([*job, *about]).encode(errors="replace")).hexdigest()
        self._prefix = digest[:32] if environ.get("SLURM_JOB_ID") else ""
        self._path = f"{environ.get('TMPDIR') or '/tmp'}/qpu_slurm-cache-{os.geteuid()}"  # noqa: S108 - checked

    def read(self, name: str) -> bytes | None:
        """Return a document; None if it is not there."""
        if not self._prefix:
            return None
        try:
            with _opened(self._path) as directory:
                file = os.open(
                    f"{self._prefix}-{name}",
                    os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC,
                    dir_fd=directory,
                )
                with open(file, "rb") as opened:  # noqa: PTH123 - what was opened, whatever its name is now
                    status = os.fstat(file)
                    if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
                        return None
                    if status.st_size > MAX_FILE or time.time() - status.st_mtime > MAX_AGE:
                        return None
                    return opened.read(MAX_FILE)
        except OSError as error:
            _log.debug("Not found in the job's cache: %s: %s", name, error)
            return None

    def write(self, name: str, document: bytes) -> None:
        """Keep a document; readers see it whole or not at all."""
        if not self._prefix or len(document) > MAX_FILE:
            return
        draft = f".{self._prefix}-{os.urandom(8).hex()}"
        try:
            with _opened(self._path, make=True) as directory:
                try:
                    file = os.open(
                        draft,
                        os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC,
                        0o600,
                        dir_fd=directory,
                    )
                    with open(file, "wb") as opened:  # noqa: PTH123 - likewise
                        opened.write(document)
                    os.rename(draft, f"{self._prefix}-{name}", src_dir_fd=directory, dst_dir_fd=directory)
                except OSError:
                    with suppress(OSError):
                        os.unlink(draft, dir_fd=directory)
                    raise
                _tidy(directory)
        except OSError as error:
            _log.debug("Not kept in the job's cache: %s: %s", name, error)

    @contextmanager
    def turn(self, seconds: float) -> Iterator[None]:
        """Take a turn: no other step of the job on this node is in such a block meanwhile.

        Args:
            seconds: How long to wait for others at most. After that, and where there is no lock to be had,
                the block is entered all the same.
        """
        with ExitStack() as turn:
            if self._prefix:
                with suppress(OSError):  # a `TimeoutError` is one, too
                    with _opened(self._path, make=True):
                        lock = Path(self._path) / f"{self._prefix}-lock"
                    turn.enter_context(locked(lock, deadline=Deadline.after(seconds)))
            yield


@contextmanager
def _opened(path: str, *, make: bool = False) -> Iterator[int]:
    """Open the user's directory.

    Raises:
        OSError: It cannot be opened, or is not the user's alone.
    """
    if make:
        with suppress(FileExistsError):
            os.mkdir(path, 0o700)  # noqa: PTH102 - the rest is done with descriptors
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        status = os.fstat(directory)
        if status.st_uid != os.geteuid() or status.st_mode & 0o077:
            raise PermissionError(f"{path} is not this user's alone")
        yield directory
    finally:
        os.close(directory)


def _tidy(directory: int) -> None:
    """Remove what is old, and of the rest the oldest until it is not too much."""
    found = []
    for name in os.listdir(directory):
        with suppress(FileNotFoundError):
            status = os.stat(name, dir_fd=directory, follow_symlinks=False)
            found.append((status.st_mtime, status.st_size, name))
    total, oldest = 0, time.time() - MAX_AGE
    for modified, size, name in sorted(found, reverse=True):
        total += size
        if modified < oldest or total > MAX_TOTAL:
            with suppress(OSError):
                os.unlink(name, dir_fd=directory)
