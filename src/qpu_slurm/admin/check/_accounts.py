# SPDX-License-Identifier: Apache-2.0
"""Who owns what, and who may see it: for files that SlurmUser or the gateway's user needs."""

from __future__ import annotations

import os
import pwd
import stat
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator


class Keeper(NamedTuple):
    """The user who reads the keys and writes the journal: SlurmUser, or the gateway's own.

    Attributes:
        uid: Its number; None if Slurm does not say.
    """

    uid: int | None

    @property
    def name(self) -> str:
        """Its name; SlurmUser's usual one if it is not known."""
        return "slurm" if self.uid is None else user_name(self.uid)

    def owns(self, path: Path) -> bool:
        """Tell whether a file is the keeper's, as far as is known; root needs to own nothing."""
        return self.uid in {None, 0, path.stat().st_uid}

    @property
    def here(self) -> bool:
        """Whether this process is the keeper."""
        return os.geteuid() == self.uid


def user_name(uid: int) -> str:
    """Return an account's name, or its number if it has none here."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def me() -> str:
    """Return this process's user."""
    return user_name(os.geteuid())


def seen(path: Path) -> bool:
    """Tell whether a file is there, as far as this process can see; unlike Path.exists, it never raises."""
    return os.access(path, os.F_OK)


def why_not_run(program: Path) -> str:
    """Return why a program cannot be started, as a relative clause; empty if it can.

    A script's first line names its interpreter, which may be gone: a virtual environment's Python, say.
    """
    try:
        if not program.exists():
            return "which is not there"
        if not os.access(program, os.X_OK):
            return f"which {me()} cannot execute: all users need to, and to read the Python that it names"
        with program.open("rb") as file:
            first = file.readline(512)
    except OSError:
        return f"which {me()} cannot reach: all users need to enter its directories"
    interpreter = first[2:].split()[:1] if first.startswith(b"#!") else []
    for path in (Path(os.fsdecode(name)) for name in interpreter):
        if not path.exists():
            gone = f"{path}, a link to {path.readlink()}" if path.is_symlink() else path
            return f"whose interpreter is gone ({gone})"
        if not os.access(path, os.X_OK):
            return f"whose interpreter {path} cannot be executed by {me()}"
    return ""


def blocked(path: Path) -> Path:
    """Return the first directory on the way to a path that this process cannot enter; or the path."""
    return next((place for place in _ways(path) if place.is_dir() and not os.access(place, os.X_OK)), path)


def _ways(path: Path) -> Iterator[Path]:
    # is_dir() itself fails below a directory that cannot be entered, and none after it is looked at.
    return reversed(path.parents)


def may_write(uid: int | None, path: Path) -> bool:
    """Tell whether a user (None: it is not known) may write to a file or directory, by owner, group, mode."""
    if uid is None or uid == 0:
        return True
    status = path.stat()
    if status.st_uid == uid:
        return bool(status.st_mode & stat.S_IWUSR)
    if status.st_mode & stat.S_IWGRP and status.st_gid in _groups(uid):
        return True
    return bool(status.st_mode & stat.S_IWOTH)


def _groups(uid: int) -> list[int]:
    try:
        account = pwd.getpwuid(uid)
    except KeyError:
        return []
    return os.getgrouplist(account.pw_name, account.pw_gid)
