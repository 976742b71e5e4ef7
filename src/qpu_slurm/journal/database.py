# SPDX-License-Identifier: Apache-2.0
"""The journal's file: how it is opened, changed and read.

One SQLite file on a local disk of the controller (WAL does not work on a network's). Every change is one
transaction, which survives a killed process; errors say what an admin can do about them.

What survives a power loss, too, is said by each transaction, since to wait for the disk takes as long as two
requests. One is `durable` if nobody could find out again what it says: that there may be a session, whose key
it is, that a lease's number is taken (a job key is made of it), that an admin has closed a QPU. What follows
from that may be lost. The service and Slurm tell it again, and it is done again: a session is found from its
intent, an end is repeated by the reaper, a usage is asked for. Nothing is lost out of order: a durable
transaction brings all those before it to disk.
"""

from __future__ import annotations

import os
import sqlite3
import stat
import threading
import time
from contextlib import closing, contextmanager, suppress
from typing import TYPE_CHECKING

from qpu_slurm.errors import JournalError
from qpu_slurm.journal.schema import SCHEMA
from qpu_slurm.system.files import locked, make_private

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_UNTOLD = "The journal {path} cannot be used: {error}."
_ADVICE = {
    "SQLITE_BUSY": "The journal {path} is locked by another process, for too long.",
    "SQLITE_LOCKED": "The journal {path} is locked by another process, for too long.",
    "SQLITE_FULL": "The disk of the journal {path} is full. Make room.",
    "SQLITE_IOERR": "The disk of the journal {path} fails or is full ({error}).",
    "SQLITE_CORRUPT": "The journal {path} is damaged ({error}). Move it away: a new one is made.",
    "SQLITE_NOTADB": "{path} is no journal, or is damaged. Move it away: a new one is made.",
    "SQLITE_READONLY": "The journal {path} cannot be written by user {user}.",
    "SQLITE_CANTOPEN": "The journal {path} cannot be opened by user {user}.",
}


class Database:
    """The journal's file; made if it is not there. Threads may share it.

    Args:
        path: The file.
        patience: Seconds to wait for another process that is writing.

    Raises:
        JournalError: It cannot be opened; so does whatever reads or writes it.
    """

    def __init__(self, path: Path, *, patience: float) -> None:
        self.path = path
        self._patience = patience
        self._mutex = threading.RLock()
        self._prepare_file()
        with self._explained():
            # Transactions are ours to begin and end (isolation_level=None).
            self._db = sqlite3.connect(path, timeout=patience, isolation_level=None, check_same_thread=False)
            try:
                self._prepare_database()
            except BaseException:
                self._db.close()
                raise

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Run one statement that changes nothing: it neither waits for those who write nor stops them."""
        with self._mutex, self._explained():
            yield self._db

    @contextmanager
    def transaction(self, *, durable: bool = False) -> Iterator[sqlite3.Connection]:
        """Change something: all of it when the block is left; nothing, if by an exception.

        Args:
            durable: It has to be on the disk by then.
        """
        with self._mutex, self._explained():
            self._db.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                # A COMMIT that failed for want of room may have rolled back already.
                with suppress(sqlite3.Error):
                    self._db.execute("ROLLBACK")
                raise

    def scrub(self) -> None:
        """Empty the write-ahead log, where the forgotten credential still stands, if nobody reads now."""
        with suppress(JournalError), self._mutex, self._explained():
            self._db.execute("PRAGMA busy_timeout = 100")
            with closing(self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")) as cursor:
                cursor.fetchall()
            self._db.execute(f"PRAGMA busy_timeout = {round(self._patience * 1000)}")

    # How it is done.

    def _prepare_file(self) -> None:
        """Make the file before SQLite would, which gives its own files the same mode and owner.

        One that is there is only looked at: the first descriptor of it that a process closes would give up
        the locks of all connections that the process has to it (POSIX), and others would take its log away.
        """
        try:
            with suppress(FileExistsError):
                os.close(make_private(self.path))
            mode = self.path.lstat().st_mode
        except OSError as error:
            advice = " Run this as root or SlurmUser." if isinstance(error, PermissionError) else ""
            raise JournalError(
                f"The journal {self.path} cannot be opened: {error.strerror}.{advice}"
            ) from None
        if not stat.S_ISREG(mode):
            raise JournalError(f"The journal {self.path} cannot be opened: it is no regular file.")
        if mode & 0o077:
            raise JournalError(
                f"Others can read the journal {self.path}, which holds users' keys. "
                f"Write `chmod 600 {self.path}`."
            )

    def _prepare_database(self) -> None:
        self._db.row_factory = sqlite3.Row
        self._db.execute("PRAGMA secure_delete = ON")
        if self._version() != len(SCHEMA):
            # As some steps need it; some SQLites have them on from the start.
            self._db.execute("PRAGMA foreign_keys = OFF")
            self._update()
        self._db.execute("PRAGMA foreign_keys = ON")

    def _update(self) -> None:
        lock = self.path.with_name(f"{self.path.name}.lock")
        try:
            with locked(lock, deadline=time.monotonic() + self._patience):
                self._migrate()
        except OSError as error:  # TimeoutError among them
            raise JournalError(f"The journal {self.path} cannot be prepared: {error}.") from None

    def _version(self) -> int:
        return int(self._db.execute("PRAGMA user_version").fetchone()[0])

    def _migrate(self) -> None:
        """Bring the file to the newest schema; SQLite changes to WAL only if nobody else is there."""
        if self._version() > len(SCHEMA):
            raise JournalError(f"The journal {self.path} was written by a newer qpu_slurm. Update this one.")
        self._db.execute("PRAGMA journal_mode = WAL")
        with self.transaction(durable=True) as db:
            for version in range(self._version(), len(SCHEMA)):
                for statement in SCHEMA[version]:
                    db.execute(statement)
            db.execute(f"PRAGMA user_version = {len(SCHEMA)}")

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            # Such as SQLITE_IOERR_WRITE: the first two words are the kind.
            kind = "_".join(getattr(error, "sqlite_errorname", "").split("_")[:2])
            text = _ADVICE.get(kind, _UNTOLD)
            raise JournalError(text.format(path=self.path, error=error, user=os.geteuid())) from error
