# SPDX-License-Identifier: Apache-2.0
"""The journal's files: nobody else reads them. And locks that the kernel takes from a process that dies."""

from __future__ import annotations

import fcntl
import os
import random
import struct
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from qpu_slurm.system.deadline import Deadline

_POLL = 0.02
_LONGEST_POLL = 0.1
_FLAGS = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW

_FLOCK = struct.Struct("hhqqi4x")
"""The C struct flock of 64-bit Linux: type, whence, start, length, and a process, which is 0 here."""


def make_private(path: Path) -> int:
    """Make a file that only its owner can read and write, and its directory, if need be.

    What root makes belongs to the directory's owner, so that an admin who looks at the journal first does
    not lock the hooks out, which run as SlurmUser.

    Returns:
        A descriptor, for reading and writing.

    Raises:
        FileExistsError: It is there already.
        OSError: Not possible, or not allowed.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(path, _FLAGS | os.O_CREAT | os.O_EXCL, 0o600)
    if os.geteuid() == 0:
        owner = path.parent.stat()
        os.fchown(descriptor, owner.st_uid, owner.st_gid)
    return descriptor


def open_private(path: Path) -> int:
    """Open a file that only its owner can read and write; make it if need be: see `make_private`."""
    try:
        return make_private(path)
    except FileExistsError:
        return os.open(path, _FLAGS)


@contextmanager
def locked(path: Path, *, deadline: Deadline) -> Iterator[None]:
    """Hold a lock that no other process or thread holds; the kernel takes it from a holder that dies.

    Args:
        path: The lock's file. It stays, since removing it would let two in.
        deadline: Until when to wait.

    Raises:
        TimeoutError: Somebody else held it all the time.
        OSError: The file cannot be opened.
    """
    descriptor = open_private(path)
    try:
        # flock knows no time-out, and a signal would need the main thread: so it is asked again and again.
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if deadline.passed:
                    raise TimeoutError(f"{path} is locked by another process.") from None
                time.sleep(_POLL)
        yield
    finally:
        os.close(descriptor)


class LockFile:
    """A file each place of which is a lock of its own, that one may hold alone or several may share.

    These are Linux's open file description locks. Threads hold them apart as processes do, and they are free
    as soon as their holder has closed the file or died. The file stays, since removing it would let two in.

    Args:
        path: The file; it is made if it is not there.

    Raises:
        OSError: It cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.descriptor = open_private(path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.descriptor)

    def take(self, place: int, *, shared: bool = False) -> bool:
        """Take a lock if it is free now; return whether it was.

        Args:
            place: Which lock.
            shared: Others may hold it at the same time, as long as they share it, too.
        """
        try:
            self._set(fcntl.F_RDLCK if shared else fcntl.F_WRLCK, place)
        except (BlockingIOError, PermissionError):  # POSIX leaves the choice
            return False
        return True

    def wait(self, place: int, *, deadline: Deadline, shared: bool = False) -> None:
        """Take a lock as soon as it is free; see `take`.

        Raises:
            TimeoutError: It was not, until the deadline.
        """
        for pause in pauses():
            if self.take(place, shared=shared):
                return
            if deadline.passed:
                raise TimeoutError(f"{self.path} is locked by another process.")
            time.sleep(min(pause, deadline.left))

    def give_back(self, place: int) -> None:
        """Let others have a lock."""
        self._set(fcntl.F_UNLCK, place)

    def _set(self, kind: int, place: int) -> None:
        fcntl.fcntl(self.descriptor, fcntl.F_OFD_SETLK, _FLOCK.pack(kind, os.SEEK_SET, place, 1, 0))


def pauses() -> Iterator[float]:
    """Return the seconds between two looks at something that others will change, the first ones short."""
    longest = _POLL
    while True:
        # Different ones, so that those who began together do not look together.
        yield longest * random.uniform(0.5, 1)  # noqa: S311 - no secret
        longest = min(longest * 1.5, _LONGEST_POLL)
