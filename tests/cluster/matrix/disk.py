# SPDX-License-Identifier: Apache-2.0
"""A disk that is small enough to be full: a file system in memory, which only this process can see.

And those that it starts: it is mounted in a mount namespace of our own, so nothing of it is left on the
machine, whoever is killed.
"""

from __future__ import annotations

import ctypes
import errno
import os
import sqlite3
from contextlib import closing, contextmanager, suppress
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_CLONE_NEWNS = 0x0002_0000  # linux/sched.h
_MS_REC, _MS_PRIVATE = 0x4000, 0x4_0000  # sys/mount.h
_MNT_DETACH = 2
_SIZE = "96m"
"""Small enough to be filled, and room for the logs of all scenarios: the gateway looks at every account."""
_FILLER = "filler"


@contextmanager
def small_disk(directory: Path) -> Iterator[None]:
    """Put a small file system in the place of a directory; an ordinary user may not, and goes without."""
    if os.geteuid() != 0:
        yield
        return
    _leave_mounts()
    _call("mount", b"tmpfs", bytes(directory), b"tmpfs", 0, f"size={_SIZE},mode=0700".encode())
    try:
        yield
    finally:
        _call("umount2", bytes(directory), _MNT_DETACH)


def fill(directory: Path, journal: Path) -> None:
    """Leave no room on a directory's small disk, not even what the journal has set aside."""
    if not os.path.ismount(directory):
        raise PermissionError("A full disk takes a file system of its own, and so root.")
    with closing(sqlite3.connect(journal)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    with (directory / _FILLER).open("ab", buffering=0) as filler:
        for size in (1 << 16, 1):
            with suppress(_FullError):
                while True:
                    _write(filler.fileno(), bytes(size))


def empty(directory: Path) -> None:
    """Make room again."""
    (directory / _FILLER).unlink(missing_ok=True)


class _FullError(Exception):
    """There is no room."""


def _write(descriptor: int, data: bytes) -> None:
    try:
        os.write(descriptor, data)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise _FullError from None


@cache
def _leave_mounts() -> None:
    """Mount nothing for others from here on; once for this process."""
    _call("unshare", _CLONE_NEWNS)
    _call("mount", b"none", b"/", None, _MS_REC | _MS_PRIVATE, None)


def _call(name: str, *arguments: object) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc[name](*arguments):
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
