# SPDX-License-Identifier: Apache-2.0
"""The journal's files: nobody else reads them, and one process at a time holds a lock."""

from __future__ import annotations

import fcntl
import os
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from qpu_slurm.system.deadline import Deadline

_POLL = 0.02
_FLAGS = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW


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
