# SPDX-License-Identifier: Apache-2.0
"""Copies the journal, and restores it from a copy, while other processes use it."""

from __future__ import annotations

import os
import sqlite3
from contextlib import ExitStack, closing
from pathlib import Path  # msgspec reads the types
from typing import TYPE_CHECKING

import msgspec

from qpu_slurm.errors import JournalDamagedError, JournalError
from qpu_slurm.journal.database import check_soundness, draft_of, lock_path, set_aside
from qpu_slurm.journal.schema import SCHEMA
from qpu_slurm.system.deadline import Deadline
from qpu_slurm.system.files import locked

if TYPE_CHECKING:
    from qpu_slurm.journal.journal import Journal

_PATIENCE = 10.0


class Restored(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a restore.

    Attributes:
        leases: How many leases the journal has now, ended ones included.
        aside: The new path of the previous journal; None if there was none.
    """

    leases: int
    aside: Path | None


def back_up(journal: Journal, target: Path) -> int:
    """Copy a journal into a file of mode 0600. The file appears complete or not at all.

    Users' own keys are left out: a copy is kept for longer than a job lives.

    Args:
        journal: The journal.
        target: The file. An existing one is replaced.

    Returns:
        How many leases it has.

    Raises:
        JournalDamagedError: The journal is damaged. An existing copy stays.
        JournalError: It cannot be copied.
    """
    try:
        if target.exists() and target.samefile(journal.path):
            raise JournalError(f"{target} is the journal itself. Name another file.")
        if not target.parent.is_dir():
            raise JournalError(f"{target.parent} is not a directory.")
        draft = draft_of(target)
        try:
            journal.copy_to(draft)
            with closing(sqlite3.connect(draft, isolation_level=None)) as copy:
                copy.execute("DELETE FROM credentials")
                copy.execute("VACUUM")  # or the deleted rows would still be in the file
                leases = int(copy.execute("SELECT count(*) FROM leases").fetchone()[0])
            _sync(draft)
            draft.replace(target)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise JournalError(f"{target}: cannot be written ({error.strerror}).") from None
    except sqlite3.Error as error:
        raise JournalError(f"{target}: cannot be written ({error}).") from None
    return leases


def restore(path: Path, source: Path) -> Restored:
    """Restore the journal from a copy. The current file, sound or damaged, is kept under another name.

    Processes that have the journal open continue with the restored one at their next change. None of their
    changes is lost.

    Args:
        path: The journal's file; it need not exist.
        source: The copy, which is not changed.

    Raises:
        JournalDamagedError: The copy is not a journal, or is damaged. The journal stays.
        JournalError: It cannot be read or written.
    """
    leases = _inspect(source)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft = draft_of(path)
        try:
            with closing(sqlite3.connect(draft)) as copy, closing(_read_only(source)) as db:
                db.backup(copy)
            _sync(draft)
            with (
                locked(lock_path(path), deadline=Deadline.after(_PATIENCE)),
                _no_other_writes(path),
            ):
                aside = set_aside(path, "replaced") if os.path.lexists(path) else None
                draft.rename(path)
        finally:
            draft.unlink(missing_ok=True)
    except OSError as error:
        raise JournalError(f"{path}: cannot be replaced ({error}).") from None
    except sqlite3.Error as error:
        raise JournalError(f"{path}: cannot be replaced ({error}).") from None
    return Restored(leases=leases, aside=aside)


def _inspect(source: Path) -> int:
    """Check that a file is a sound journal; return how many leases it has."""
    try:
        # SQLite gives no reason when it cannot open a file.
        source.open("rb").close()
    except OSError as error:
        raise JournalError(f"{source}: cannot be read ({error.strerror}).") from None
    try:
        with closing(_read_only(source)) as db:
            check_soundness(db, source)
            version = int(db.execute("PRAGMA user_version").fetchone()[0])
            leases = int(db.execute("SELECT count(*) FROM leases").fetchone()[0])
    except sqlite3.Error as error:
        raise JournalDamagedError(f"{source} is no copy of a journal ({error}).") from None
    if version > len(SCHEMA):
        raise JournalError(f"{source} was written by a newer qpu_slurm. Update this one.")
    return leases


def _read_only(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)


def _no_other_writes(path: Path) -> ExitStack:
    """Lock a journal against other writers, if there is a sound one. They then write to the restored one."""
    with ExitStack() as stack:
        if path.is_file():
            db = stack.enter_context(closing(sqlite3.connect(path, timeout=_PATIENCE, isolation_level=None)))
            try:
                db.execute("BEGIN IMMEDIATE")
            except sqlite3.DatabaseError as error:
                if isinstance(error, sqlite3.OperationalError):
                    raise  # other processes write without a pause
                # It is damaged: other processes cannot write to it either.
        return stack.pop_all()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
