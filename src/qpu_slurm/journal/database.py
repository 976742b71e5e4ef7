# SPDX-License-Identifier: Apache-2.0
"""The journal's file: opening it, changing it, reading from it.

It is one SQLite file on a local disk, since WAL does not work on network file systems. Every change is one
transaction, which survives a killed process. Errors name the admin's remedy.

Waiting for the disk takes as long as two requests. So only `durable` transactions survive a power loss, too:
those whose content cannot be found out again. They record that a session may exist, whose it is, a user's
key, that a lease's number is taken (job keys are made of it), that a QPU is closed. What follows from these
may be lost, since the service and Slurm still know it, and it is redone: the reaper repeats a release, a
usage is queried again. The order is kept: a durable transaction also writes all earlier ones to disk.

The file may be deleted or replaced (`qpu-slurm journal restore`) while it is open. A process continues with
the file that has the name now. If there is none, the open file still has all of the data, and is restored
under its name.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
import stat
import threading
import time
from contextlib import closing, contextmanager, suppress
from typing import TYPE_CHECKING

import structlog

from qpu_slurm.errors import JournalDamagedError, JournalError, NoJournalError
from qpu_slurm.journal.schema import SCHEMA
from qpu_slurm.system.deadline import Deadline
from qpu_slurm.system.files import locked, make_private

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

_DAMAGED = frozenset({"SQLITE_CORRUPT", "SQLITE_NOTADB"})
_COMPANIONS = ("-wal", "-shm")
"""The suffixes of the files that SQLite keeps beside an open database."""

_log = structlog.get_logger(__name__)

_UNTOLD = "The journal {path} cannot be used: {error}."
_WAY_BACK = (
    "Write `qpu-slurm journal restore FILE` with a backup, or move it away: a new one is made, and takes "
    "over what Slurm knows."
)
_ADVICE = {
    "SQLITE_BUSY": "The journal {path} has been locked by another process for too long.",
    "SQLITE_LOCKED": "The journal {path} has been locked by another process for too long.",
    "SQLITE_FULL": "The disk of the journal {path} is full. Make room.",
    "SQLITE_IOERR": "The disk of the journal {path} fails or is full ({error}).",
    "SQLITE_CORRUPT": f"The journal {{path}} is damaged ({{error}}). {_WAY_BACK}",
    "SQLITE_NOTADB": f"{{path}} is no journal, or is damaged. {_WAY_BACK}",
    "SQLITE_READONLY": "The journal {path} cannot be written by user {user}.",
    "SQLITE_CANTOPEN": "The journal {path} cannot be opened by user {user}.",
}


class Database:
    """The journal's file. Threads may share it.

    Args:
        path: The file.
        patience: Seconds to wait for another process that is writing.
        make: Create the file if it does not exist. Only writers should.

    Attributes:
        losses: The times since it was opened that the file was found deleted or damaged, the newest last.
        damage: SQLite's last words on a damaged file; see `begin_anew`.

    Raises:
        JournalError: It cannot be opened. All methods raise it, too, if it cannot be read or written.
    """

    def __init__(self, path: Path, *, patience: float, make: bool) -> None:
        self.path = path
        self.losses: list[str] = []
        self.damage = ""
        self._patience = patience
        self._mutex = threading.RLock()
        self._identity: tuple[int, int] | None = None
        self._db = self._open(make=make)

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Run one query. It neither waits for writers nor blocks them."""
        with self._mutex, self._explained():
            self._follow()
            yield self._db

    @contextmanager
    def transaction(self, *, durable: bool = False) -> Iterator[sqlite3.Connection]:
        """Run the block as one transaction: commit at its end, roll back on an exception.

        Args:
            durable: Wait until the transaction is on disk.
        """
        with self._mutex, self._explained():
            self._follow()
            self._begin(durable=durable)
            # The file is replaced within a transaction, and this one may have waited for that.
            while self._is_elsewhere():
                self._db.execute("ROLLBACK")
                self._follow()
                self._begin(durable=durable)
            try:
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                # A COMMIT that failed on a full disk may have rolled back already.
                with suppress(sqlite3.Error):
                    self._db.execute("ROLLBACK")
                raise

    def scrub(self) -> None:
        """Empty the write-ahead log, which still has the deleted credential, unless there are readers."""
        with suppress(JournalError), self._mutex, self._explained():
            self._db.execute("PRAGMA busy_timeout = 100")
            with closing(self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")) as cursor:
                cursor.fetchall()
            self._db.execute(f"PRAGMA busy_timeout = {round(self._patience * 1000)}")

    def copy_to(self, path: Path) -> None:
        """Copy the whole file into a new one. Other processes may write meanwhile.

        Raises:
            JournalDamagedError: The copy is damaged.
            JournalError: It cannot be written.
        """
        with self._mutex, self._explained(), closing(sqlite3.connect(path)) as copy:
            self._db.backup(copy)
            copy.execute("PRAGMA journal_mode = DELETE")  # one file, without companions
            check_soundness(copy, self.path)

    def check(self) -> None:
        """Check the whole file.

        Raises:
            JournalDamagedError: It is damaged.
        """
        with self.reading() as db:
            try:
                check_soundness(db, self.path)
            except JournalDamagedError as error:
                self.damage = str(error)
                raise

    def begin_anew(self) -> None:
        """Rename a damaged file, and continue with an empty one.

        Another thread, or another process, may have done that meanwhile: what follows it stays.

        Raises:
            JournalError: That is not possible.
        """
        with self._mutex:
            if not self.damage:
                return
            try:
                with self._locked():
                    if not self._is_elsewhere():
                        aside = set_aside(self.path, "damaged")
                        os.close(make_private(self.path))
                        _log.error("the journal is damaged", why=self.damage, path=str(aside))
                        self.losses.append(
                            f"It was damaged. It was renamed to {aside.name}, and a new one was made."
                        )
            except OSError as error:
                raise JournalError(f"The journal {self.path} cannot be made anew: {error}.") from None
            self._follow()

    # The implementation.

    def _open(self, *, make: bool) -> sqlite3.Connection:
        self._prepare_file(make=make)
        with self._explained():
            identity = _identity(self.path)
            # Transactions begin and end in `transaction` (isolation_level=None). SQLite creates no file.
            db = sqlite3.connect(
                f"{self.path.absolute().as_uri()}?mode=rw",
                uri=True,
                timeout=self._patience,
                isolation_level=None,
                check_same_thread=False,
            )
            try:
                self._prepare_database(db)
            except BaseException:
                db.close()
                raise
        self._identity = identity
        return db

    def _begin(self, *, durable: bool) -> None:
        self._db.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
        self._db.execute("BEGIN IMMEDIATE")

    def _is_elsewhere(self) -> bool:
        """Return whether another file, or none, has the name now."""
        return _identity(self.path) != self._identity

    def _follow(self) -> None:
        """Continue with the file that has the name now. If there is none, restore it from the open one."""
        if self._db.in_transaction or not self._is_elsewhere():
            return
        before = self._db
        try:
            with self._locked():
                if _identity(self.path) is None:
                    self._bring_back()
        except OSError as error:  # TimeoutError among them
            raise JournalError(f"The journal {self.path} was deleted, and cannot be made: {error}.") from None
        # When SQLite closes a file that was moved, it does not touch the companions of the name.
        self._db = self._open(make=True)
        self.damage = ""
        before.close()
        _log.warning("another file is the journal now", path=str(self.path))

    def _bring_back(self) -> None:
        """Copy the open file to a new one under its name, unless it is damaged."""
        for companion in _COMPANIONS:
            self.path.with_name(self.path.name + companion).unlink(missing_ok=True)
        try:
            draft = draft_of(self.path)
            try:
                self.copy_to(draft)
                os.link(draft, self.path)
            finally:
                draft.unlink()
        except JournalError as error:
            _log.error("the journal is lost", path=str(self.path), why=str(error))
            self.losses.append("It was deleted, or moved away, and could not be brought back.")
        else:
            _log.error("the journal was deleted, and is brought back", path=str(self.path))
            self.losses.append("It was deleted. It was brought back, with all that was in it.")

    def _prepare_file(self, *, make: bool) -> None:
        """Create the file before SQLite does, so that SQLite's files beside it get its mode and owner.

        An existing file is not opened. Closing any descriptor of it would release the locks of all of this
        process's connections (POSIX), and another process might then remove the write-ahead log.
        """
        try:
            if make and _identity(self.path) is None:
                # A process that replaces the file holds this lock while there is none.
                with self._locked(), suppress(FileExistsError):
                    os.close(make_private(self.path))
            mode = self.path.lstat().st_mode
        except FileNotFoundError:
            raise NoJournalError(f"There is no journal {self.path}.") from None
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

    def _prepare_database(self, db: sqlite3.Connection) -> None:
        db.row_factory = sqlite3.Row
        db.execute("PRAGMA secure_delete = ON")
        if _version(db) != len(SCHEMA):
            # Some migrations need them off, and some builds of SQLite have them on by default.
            db.execute("PRAGMA foreign_keys = OFF")
            self._update(db)
        db.execute("PRAGMA foreign_keys = ON")

    def _update(self, db: sqlite3.Connection) -> None:
        try:
            with self._locked():
                self._migrate(db)
        except OSError as error:  # TimeoutError among them
            raise JournalError(f"The journal {self.path} cannot be prepared: {error}.") from None

    def _locked(self) -> AbstractContextManager[None]:
        return locked(lock_path(self.path), deadline=Deadline.after(self._patience))

    def _migrate(self, db: sqlite3.Connection) -> None:
        """Migrate the file to the newest schema. SQLite switches to WAL only without other connections."""
        if _version(db) > len(SCHEMA):
            raise JournalError(f"The journal {self.path} was written by a newer qpu_slurm. Update this one.")
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.execute("BEGIN IMMEDIATE")
        try:
            for version in range(_version(db), len(SCHEMA)):
                for statement in SCHEMA[version]:
                    db.execute(statement)
            db.execute(f"PRAGMA user_version = {len(SCHEMA)}")
            db.execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):
                db.execute("ROLLBACK")
            raise

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            # For example, SQLITE_IOERR_WRITE: the first two words are the kind.
            kind = "_".join(getattr(error, "sqlite_errorname", "").split("_")[:2])
            text = _ADVICE.get(kind, _UNTOLD)
            text = text.format(path=self.path, error=error, user=os.geteuid())
            if kind in _DAMAGED:
                self.damage = str(error)
                raise JournalDamagedError(text) from error
            raise JournalError(text) from error
        except JournalDamagedError as error:
            self.damage = str(error)
            raise


def lock_path(path: Path) -> Path:
    """Return the path of the lock for creating, migrating and replacing a journal's file."""
    return path.with_name(f"{path.name}.lock")


def draft_of(path: Path) -> Path:
    """Create an empty, private file that is to replace the file beside it."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    os.close(make_private(draft))
    return draft


def set_aside(path: Path, why: str) -> Path:
    """Rename a journal's file, so that it is kept but no longer used.

    Args:
        path: The file. Its companions are renamed with it.
        why: A word for the new name, such as `damaged`.

    Returns:
        The new path.

    Raises:
        OSError: It cannot be renamed.
    """
    aside = path.with_name(f"{path.name}.{why}-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}")
    path.rename(aside)
    for companion in _COMPANIONS:
        with suppress(FileNotFoundError):
            path.with_name(path.name + companion).rename(aside.with_name(aside.name + companion))
    return aside


def check_soundness(db: sqlite3.Connection, path: Path) -> None:
    """Have SQLite check a whole journal.

    Raises:
        JournalDamagedError: It is damaged.
        sqlite3.Error: It cannot be read at all.
    """
    found = db.execute("PRAGMA quick_check(1)").fetchone()[0]
    if found != "ok":
        raise JournalDamagedError(f"The journal {path} is damaged ({found}). {_WAY_BACK}")


def _version(db: sqlite3.Connection) -> int:
    return int(db.execute("PRAGMA user_version").fetchone()[0])


def _identity(path: Path) -> tuple[int, int] | None:
    """Return the identity of the file that has a name; None if there is none."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino
