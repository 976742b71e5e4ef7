# SPDX-License-Identifier: Apache-2.0
"""The journal: the crash-safe record of all leases and of what happened to them.

One SQLite file on a local disk of the controller (WAL does not work on a network's). Every change is one
transaction that has reached the disk when its method returns; a change that another process was faster
with is not made twice. Times are UTC.
"""

from __future__ import annotations

import os
import sqlite3
import stat
import threading
import time
from contextlib import closing, contextmanager, suppress
from typing import TYPE_CHECKING, Self

import msgspec

from qpu_slurm.errors import JournalError
from qpu_slurm.leases import rows
from qpu_slurm.leases.files import locked, make_private
from qpu_slurm.leases.model import Event, Lease, LeaseState
from qpu_slurm.leases.schema import SCHEMA
from qpu_slurm.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime
    from pathlib import Path

_PATIENCE = 10.0

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


class Journal:
    """The journal in one file; made if it is not there. Threads may share it.

    Args:
        path: The file.
        patience: Seconds to wait for another process that is writing.

    Raises:
        JournalError: It cannot be opened; so does every method when it cannot be read or written.
    """

    def __init__(self, path: Path, *, patience: float = _PATIENCE) -> None:
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

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # What a broker writes.

    def intend(
        self, *, job_id: int, user_id: int, qpu: str, expires_at: datetime, api_key: Secret | None = None
    ) -> Lease:
        """Write down that a session is about to be opened for a job that has no lease on the QPU.

        Args:
            job_id: The job; of a heterogeneous job, the leader.
            user_id: Whose it is.
            qpu: The QPU's name.
            expires_at: When the session will have ended by itself, at the latest.
            api_key: The user's own credential: kept until the lease is over, since nobody else could end
                the session if the job is gone.
        """
        with self._transaction() as db:
            bound = "SELECT id FROM leases WHERE job_id = ? AND qpu = ? AND state = 'bound'"
            for row in db.execute(bound, (job_id, qpu)).fetchall():
                rows.begin_end(db, row["id"], "The job gets a session.")
            cursor = db.execute(
                "INSERT INTO leases (job_id, user_id, qpu, state, created_at, expires_at)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                (job_id, user_id, qpu, LeaseState.ACQUIRING, rows.now(), rows.text(expires_at)),
            )
            lease_id = cursor.lastrowid or 0
            if api_key is not None:
                db.execute("INSERT INTO credentials VALUES (?, ?)", (lease_id, api_key.reveal()))
            rows.log(db, lease_id, "intent", qpu)
            return rows.one(db, lease_id)

    def bind(self, *, job_id: int, user_id: int, qpu: str) -> Lease:
        """Write down that a job may know what a QPU is like.

        Returns:
            The lease: BOUND, or the one with a session that the job has or is about to get.
        """
        with self._transaction() as db:
            query = "SELECT id FROM open_leases WHERE job_id = ? AND qpu = ? AND state <> 'releasing'"
            row = db.execute(query, (job_id, qpu)).fetchone()
            if row is None:
                cursor = db.execute(
                    "INSERT INTO leases (job_id, user_id, qpu, state, created_at) VALUES (?, ?, ?, ?, ?)",
                    (job_id, user_id, qpu, LeaseState.BOUND, rows.now()),
                )
                lease_id = cursor.lastrowid or 0
                rows.log(db, lease_id, "bound", qpu)
            else:
                lease_id = row["id"]
                rows.log(db, lease_id, "renewed", "")
            return rows.one(db, lease_id)

    def renew(self, lease_id: int) -> Lease:
        """Write down that a lease that was held already is given to the job again, if it is HELD still."""
        with self._transaction() as db:
            lease = rows.one(db, lease_id)
            if lease.state is LeaseState.HELD:
                rows.log(db, lease_id, "renewed", "")
            return lease

    def hold(self, lease_id: int, session_id: str, expires_at: datetime, *, adopted: bool = False) -> Lease:
        """Write down the session of an intent.

        Args:
            lease_id: Whose session it is.
            session_id: The session.
            expires_at: When it ends by itself, at the latest.
            adopted: It was found, left by a process that died, rather than opened.

        Returns:
            The lease: HELD; or RELEASING, now with its session, if it is to end already.
        """
        with self._transaction() as db:
            changed = db.execute(
                "UPDATE leases SET session_id = ?, acquired_at = ?, expires_at = ?,"
                " state = CASE state WHEN 'acquiring' THEN 'held' ELSE state END"
                " WHERE id = ? AND session_id IS NULL AND state IN ('acquiring', 'releasing')",
                (session_id, rows.now(), rows.text(expires_at), lease_id),
            )
            if changed.rowcount:
                rows.log(db, lease_id, "adopted" if adopted else "held", session_id)
            return rows.one(db, lease_id)

    def end(self, job_id: int, reason: str) -> list[Lease]:
        """Write down the intent to end everything that a job holds.

        Returns:
            The job's leases that are RELEASING now; those that were BOUND are RELEASED.
        """
        with self._transaction() as db:
            query = "SELECT id FROM open_leases WHERE job_id = ? ORDER BY id"
            return [rows.begin_end(db, row["id"], reason) for row in db.execute(query, (job_id,)).fetchall()]

    def end_one(self, lease_id: int, reason: str, *, unless_after: int | None = None) -> Lease:
        """Write down the intent to end one lease.

        Args:
            lease_id: The lease.
            reason: What ended it.
            unless_after: Leave the lease as it is if something has happened to it since; see `last_event`.
        """
        with self._transaction() as db:
            query = "SELECT EXISTS (SELECT 1 FROM events WHERE lease_id = ? AND id > ?)"
            if unless_after is not None and db.execute(query, (lease_id, unless_after)).fetchone()[0]:
                return rows.one(db, lease_id)
            return rows.begin_end(db, lease_id, reason)

    def postpone(self, lease_id: int, why: str) -> Lease:
        """Write down why a lease could not be ended yet; it stays RELEASING."""
        with self._transaction() as db:
            # The same as last time is not written again and again, while a service is away for days.
            again = db.execute(
                "UPDATE events SET time = ? WHERE what = 'postponed' AND detail = ?"
                " AND id = (SELECT max(id) FROM events WHERE lease_id = ?)",
                (rows.now(), why, lease_id),
            )
            if not again.rowcount:
                rows.log(db, lease_id, "postponed", why)
            return rows.one(db, lease_id)

    def finish(self, lease_id: int, state: LeaseState, reason: str = "") -> Lease:
        """Write down that nothing is held any more, and forget the credential with it.

        Args:
            lease_id: The lease.
            state: RELEASED or FAILED.
            reason: Why; empty leaves what is known already.
        """
        with self._transaction() as db:
            changed = db.execute(
                "UPDATE leases SET state = ?, ended_at = ?, reason = CASE ? WHEN '' THEN reason ELSE ? END"
                " WHERE id = ? AND ended_at IS NULL",
                (state, rows.now(), reason, reason, lease_id),
            )
            forgotten = db.execute("DELETE FROM credentials WHERE lease_id = ?", (lease_id,)).rowcount
            if changed.rowcount:
                rows.log(db, lease_id, state, reason)
            lease = rows.one(db, lease_id)
        if forgotten:
            self._scrub()
        return lease

    # What a broker and an admin read.

    def lease(self, lease_id: int) -> Lease:
        """Read a lease."""
        with self._reading() as db:
            return rows.one(db, lease_id)

    def find(self, lease_id: int) -> Lease | None:
        """Read a lease by a number that somebody claims; None if there is none of it."""
        with self._reading() as db:
            row = db.execute("SELECT * FROM leases WHERE id = ?", (lease_id,)).fetchone()
        return rows.lease_of(row) if row else None

    def open_lease(self, job_id: int, qpu: str) -> Lease | None:
        """Read a job's lease that has, or may have, a session on a QPU, if there is one."""
        query = "SELECT * FROM open_leases WHERE job_id = ? AND qpu = ? AND state <> 'bound'"
        with self._reading() as db:
            row = db.execute(query, (job_id, qpu)).fetchone()
        return rows.lease_of(row) if row else None

    def leases(self, *, job_id: int | None = None, over: bool = False) -> list[Lease]:
        """Read leases, the oldest first.

        Args:
            job_id: Only this job's; None reads everybody's.
            over: Those that are over, too.
        """
        query = "SELECT * FROM leases" if over else "SELECT * FROM open_leases"
        if job_id is not None:
            query += " WHERE job_id = ?"
        with self._reading() as db:
            found = db.execute(query + " ORDER BY id", () if job_id is None else (job_id,))
            return [rows.lease_of(row) for row in found]

    def known_sessions(self, since: datetime) -> frozenset[str]:
        """Read the sessions that leases hold, or held until after `since`."""
        query = """
            SELECT session_id FROM open_leases WHERE session_id IS NOT NULL
            UNION SELECT session_id FROM leases WHERE session_id IS NOT NULL AND ended_at >= ?
        """
        with self._reading() as db:
            return frozenset(row["session_id"] for row in db.execute(query, (rows.text(since),)))

    def api_key(self, lease_id: int) -> Secret | None:
        """Read the user's own credential, if the lease is not over and needs one."""
        query = "SELECT api_key FROM credentials WHERE lease_id = ?"
        with self._reading() as db:
            row = db.execute(query, (lease_id,)).fetchone()
        return Secret(row["api_key"]) if row else None

    def events(self, lease_id: int) -> list[Event]:
        """Read what happened to a lease, in order."""
        query = "SELECT time, lease_id, what, detail FROM events WHERE lease_id = ? ORDER BY id"
        with self._reading() as db:
            return [msgspec.convert(dict(row), Event) for row in db.execute(query, (lease_id,))]

    def last_event(self) -> int:
        """Return the number of what happened last; see `end_one`."""
        with self._reading() as db:
            return int(db.execute("SELECT ifnull(max(id), 0) FROM events").fetchone()[0])

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
            raise JournalError(f"The journal {self.path} cannot be opened: {error.strerror}.") from None
        if not stat.S_ISREG(mode):
            raise JournalError(f"The journal {self.path} cannot be opened: it is no regular file.")
        if mode & 0o077:
            raise JournalError(
                f"Others can read the journal {self.path}, which holds users' keys. "
                f"Write `chmod 600 {self.path}`."
            )

    def _prepare_database(self) -> None:
        self._db.row_factory = sqlite3.Row
        self._db.execute("PRAGMA synchronous = FULL")
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
        with self._transaction() as db:
            for version in range(self._version(), len(SCHEMA)):
                for statement in SCHEMA[version]:
                    db.execute(statement)
            db.execute(f"PRAGMA user_version = {len(SCHEMA)}")

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        """Run one statement that changes nothing: it neither waits for those who write nor stops them."""
        with self._mutex, self._explained():
            yield self._db

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._mutex, self._explained():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                # A COMMIT that failed for want of room may have rolled back already.
                with suppress(sqlite3.Error):
                    self._db.execute("ROLLBACK")
                raise

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            # Such as SQLITE_IOERR_WRITE: the first two words are the kind.
            kind = "_".join(getattr(error, "sqlite_errorname", "").split("_")[:2])
            text = _ADVICE.get(kind, _UNTOLD)
            raise JournalError(text.format(path=self.path, error=error, user=os.geteuid())) from error

    def _scrub(self) -> None:
        """Empty the write-ahead log, where the forgotten credential still stands, if nobody reads now."""
        with suppress(JournalError), self._mutex, self._explained():
            self._db.execute("PRAGMA busy_timeout = 100")
            with closing(self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")) as cursor:
                cursor.fetchall()
            self._db.execute(f"PRAGMA busy_timeout = {round(self._patience * 1000)}")
