# SPDX-License-Identifier: Apache-2.0
"""What happened in leases: sessions, their usage, their tasks, and the job's steps.

`qpu-slurm report` and `qpu-slurm timeline` read it. `Journal` records when sessions open and end. This module
records their usage once the service has reported it.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import msgspec

from qpu_slurm.journal import budgets, rows
from qpu_slurm.journal.model import Lease

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable

    from qpu_slurm.journal.database import Database
    from qpu_slurm.providers.base import TaskUsage


class SessionUse(msgspec.Struct, frozen=True, kw_only=True):
    """A session that a lease has or had.

    Attributes:
        session_id: The service's id of it.
        lease_id: The lease.
        opened_at: When it was recorded.
        ended_at: When it stopped taking tasks; None while it takes them.
        locked_seconds: How long it was active, which is billed; None until the service has reported it.
        executed_seconds: How long its tasks ran on the QPU; None until then, too.
        unknown: Why the service will never report its usage; empty while it may, and after it has.
    """

    session_id: str
    lease_id: int
    opened_at: datetime
    ended_at: datetime | None
    locked_seconds: float | None
    executed_seconds: float | None
    unknown: str = ""


class Lock(msgspec.Struct, frozen=True, kw_only=True):
    """A period in which a session had the QPU to itself, by the service's clock.

    Attributes:
        session_id: The session.
        began_at: The start of its first task, or of the first one after a pause.
        ended_at: The end.
    """

    session_id: str
    began_at: datetime
    ended_at: datetime


class TaskUse(msgspec.Struct, frozen=True, kw_only=True):
    """A task of a session, as the service reports it once the session has ended.

    Attributes:
        task_id: The service's id of it.
        session_id: The session.
        status: Its final `TaskStatus`.
        created_at: When the service accepted it.
        started_at: When it began to run; None if it never did, or the service does not report it.
        ended_at: When it ended; None likewise.
        seconds: How long it ran on the QPU.
    """

    task_id: str
    session_id: str
    status: str
    created_at: datetime | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    seconds: float = 0.0

    @classmethod
    def of(cls, usage: TaskUsage, session_id: str) -> TaskUse:
        """Return what a provider has read of a task of a session."""
        return cls(
            task_id=usage.id,
            session_id=session_id,
            status=usage.status or "unknown",
            created_at=usage.created_at,
            started_at=usage.started_at,
            ended_at=usage.ended_at,
            seconds=usage.seconds,
        )


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """A step of a job, as the SPANK plugin reports it.

    Attributes:
        job_id: The job; of a heterogeneous job, the leader.
        run: Which run of the job.
        step: Slurm's id of it: `batch`, `interactive` or a number.
        name: The program.
        started_at: When it began.
        ended_at: When it ended; None while it runs, or if its end was not reported.
    """

    job_id: int
    run: str
    step: str
    name: str
    started_at: datetime
    ended_at: datetime | None


class SessionHistory(msgspec.Struct, frozen=True, kw_only=True):
    """A session, the periods in which it had the QPU to itself, and its tasks."""

    session: SessionUse
    locks: tuple[Lock, ...]
    tasks: tuple[TaskUse, ...]


class LeaseHistory(msgspec.Struct, frozen=True, kw_only=True):
    """A lease and all of its sessions."""

    lease: Lease
    sessions: tuple[SessionHistory, ...]


class Use(msgspec.Struct, frozen=True, kw_only=True):
    """The usage of one session, with its job and user.

    Attributes:
        job_id: The job; of a heterogeneous job, the leader.
        run: Which run of the job.
        user_id: The job's user.
        account: Slurm's account of the job; empty where Slurm has none.
        qpu: The QPU, as users name it.
        opened_at: When the session was recorded.
        locked_seconds: As in `SessionUse`.
        executed_seconds: As in `SessionUse`.
        given_up: Whether its usage will stay unknown.
        tasks: How many tasks ran in it, as far as the service has reported.
    """

    job_id: int
    run: str
    user_id: int
    account: str
    qpu: str
    opened_at: datetime
    locked_seconds: float | None
    executed_seconds: float | None
    given_up: bool
    tasks: int


class History:
    """The history in the journal. Every method may raise `JournalError`.

    Args:
        database: The journal's file.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def sessions(self, lease_id: int) -> list[SessionUse]:
        """Return the sessions of a lease, the oldest first."""
        query = "SELECT * FROM sessions WHERE lease_id = ? ORDER BY opened_at"
        with self._database.reading() as db:
            return [msgspec.convert(dict(row), SessionUse) for row in db.execute(query, (lease_id,))]

    def session(self, session_id: str) -> SessionUse | None:
        """Read a session by its id; None if no lease has or had it."""
        with self._database.reading() as db:
            row = db.execute("SELECT * FROM sessions WHERE session_id = ?", (session_id,)).fetchone()
        return None if row is None else msgspec.convert(dict(row), SessionUse)

    def task(self, task_id: str) -> TaskUse | None:
        """Read a task by its id; None if it was not noted (yet)."""
        with self._database.reading() as db:
            row = db.execute("SELECT * FROM tasks WHERE task_id = ?", (task_id,)).fetchone()
        return None if row is None else msgspec.convert(dict(row), TaskUse)

    def leases(self, job_id: int) -> list[LeaseHistory]:
        """Return the leases of a job's newest run, the oldest first."""
        query = (
            "SELECT * FROM leases WHERE job_id = ? AND run ="
            " (SELECT run FROM leases WHERE job_id = ? ORDER BY id DESC LIMIT 1) ORDER BY id"
        )
        with self._database.reading() as db:
            found = [rows.lease_of(row) for row in db.execute(query, (job_id, job_id))]
        return [
            LeaseHistory(
                lease=lease,
                sessions=tuple(
                    SessionHistory(
                        session=session,
                        locks=tuple(self.locks(session.session_id)),
                        tasks=tuple(self.tasks(session.session_id)),
                    )
                    for session in self.sessions(lease.id)
                ),
            )
            for lease in found
        ]

    def unaccounted(self, lease_id: int | None = None) -> list[SessionUse]:
        """Return the ended sessions whose usage the service may still report.

        Args:
            lease_id: Only those of this lease; None: of all leases.
        """
        query = (
            "SELECT * FROM sessions WHERE ended_at IS NOT NULL AND locked_seconds IS NULL AND unknown = ''"
            " AND ifnull(?, lease_id) = lease_id ORDER BY ended_at"
        )
        with self._database.reading() as db:
            return [msgspec.convert(dict(row), SessionUse) for row in db.execute(query, (lease_id,))]

    def account(
        self,
        session_id: str,
        *,
        locked: float,
        executed: float,
        tasks: Iterable[TaskUse],
        locks: Iterable[Lock] = (),
        cost: float = 0.0,
    ) -> None:
        """Record the usage of a session.

        Args:
            session_id: The session.
            locked: Seconds that it was active.
            executed: Seconds that its tasks ran.
            tasks: Its tasks.
            locks: When it was active, as far as the service reports it.
            cost: What that costs, where QPUs have prices.
        """
        with self._database.transaction() as db:
            db.execute(
                "UPDATE sessions SET locked_seconds = ?, executed_seconds = ?, unknown = ''"
                " WHERE session_id = ?",
                (locked, executed, session_id),
            )
            budgets.settle(db, session_id, locked, executed, cost)
            _write_tasks(db, session_id, tasks)
            db.executemany(
                "INSERT OR REPLACE INTO locks (session_id, began_at, ended_at) VALUES (?, ?, ?)",
                [(session_id, rows.text(lock.began_at), rows.text(lock.ended_at)) for lock in locks],
            )

    def note_tasks(self, session_id: str, tasks: Iterable[TaskUse]) -> None:
        """Write down tasks of a session that the service is about to forget.

        Args:
            session_id: The session.
            tasks: Some of its tasks; one that was noted before is replaced.
        """
        with self._database.transaction() as db:
            _write_tasks(db, session_id, tasks)

    def give_up(self, session_id: str, why: str) -> None:
        """Record that the usage of a session stays unknown, unless it is known already."""
        with self._database.transaction() as db:
            db.execute(
                "UPDATE sessions SET unknown = ? WHERE session_id = ? AND locked_seconds IS NULL",
                (why, session_id),
            )
            budgets.settle_unknown(db, session_id)

    def locks(self, session_id: str) -> list[Lock]:
        """Return the periods in which a session had the QPU to itself, the oldest first."""
        query = "SELECT * FROM locks WHERE session_id = ? ORDER BY began_at"
        with self._database.reading() as db:
            return [msgspec.convert(dict(row), Lock) for row in db.execute(query, (session_id,))]

    def uses(self, since: datetime, until: datetime) -> list[Use]:
        """Return the usage of every session that was opened in a period, the oldest first.

        Args:
            since: The start of the period.
            until: Its end, which is not part of it.
        """
        query = (
            "SELECT job_id, run, user_id, account, qpu, opened_at, locked_seconds, executed_seconds,"
            " unknown <> '' AS given_up,"
            " (SELECT count(*) FROM tasks WHERE tasks.session_id = sessions.session_id) AS tasks"
            " FROM sessions JOIN leases ON leases.id = sessions.lease_id"
            " WHERE opened_at >= ? AND opened_at < ? ORDER BY opened_at"
        )
        with self._database.reading() as db:
            found = db.execute(query, (rows.text(since), rows.text(until)))
            # SQLite has no booleans.
            return [msgspec.convert(dict(row), Use, strict=False) for row in found]

    def refusals(self, since: datetime, until: datetime) -> list[Lease]:
        """Return the leases that were refused in a period, the oldest first; see `Journal.refuse`."""
        query = (
            "SELECT * FROM leases WHERE state = 'failed' AND ended_at >= ? AND ended_at < ?"
            " AND EXISTS (SELECT 1 FROM events WHERE lease_id = leases.id AND what = 'refused') ORDER BY id"
        )
        with self._database.reading() as db:
            found = db.execute(query, (rows.text(since), rows.text(until)))
            return [rows.lease_of(row) for row in found]

    def tasks(self, session_id: str) -> list[TaskUse]:
        """Return the tasks of a session, the oldest first."""
        query = "SELECT * FROM tasks WHERE session_id = ? ORDER BY created_at, task_id"
        with self._database.reading() as db:
            return [msgspec.convert(dict(row), TaskUse) for row in db.execute(query, (session_id,))]

    def step_started(self, job_id: int, step: str, name: str, started_at: datetime) -> None:
        """Record that a step of a job's newest run has begun. A job without a lease is ignored.

        Args:
            job_id: The job; of a heterogeneous job, the leader.
            step: Slurm's id of the step.
            name: The program.
            started_at: When it began. If it is reported twice, the first report counts.
        """
        with self._database.transaction() as db:
            db.execute(
                "INSERT OR IGNORE INTO steps (job_id, run, step, name, started_at)"
                " SELECT job_id, run, ?, ?, ? FROM leases WHERE job_id = ? ORDER BY id DESC LIMIT 1",
                (step, name, rows.text(started_at), job_id),
            )

    def step_ended(self, job_id: int, step: str, ended_at: datetime) -> None:
        """Record that a step of a job's newest run has ended. A step without a recorded start is ignored.

        Args:
            job_id: The job; of a heterogeneous job, the leader.
            step: Slurm's id of the step.
            ended_at: When it ended. Each component of the job reports it; the last report counts.
        """
        with self._database.transaction() as db:
            db.execute(
                "UPDATE steps SET ended_at = max(?, ifnull(ended_at, '')) WHERE job_id = ? AND step = ?"
                " AND run = (SELECT run FROM leases WHERE job_id = ? ORDER BY id DESC LIMIT 1)",
                (rows.text(ended_at), job_id, step, job_id),
            )

    def steps(self, job_id: int, run: str) -> list[Step]:
        """Return the steps of one run of a job, the oldest first."""
        query = "SELECT * FROM steps WHERE job_id = ? AND run = ? ORDER BY started_at"
        with self._database.reading() as db:
            return [msgspec.convert(dict(row), Step) for row in db.execute(query, (job_id, run))]

    def forget(self, before: datetime, *, limit: int) -> int:
        """Delete leases that ended before some time, with their history.

        Args:
            before: The time.
            limit: How many at most, since the journal is locked meanwhile.

        Returns:
            How many were deleted.
        """
        with self._database.transaction() as db:
            forgotten = db.execute(
                "DELETE FROM leases WHERE id IN"
                " (SELECT id FROM leases WHERE ended_at < ? ORDER BY ended_at LIMIT ?)",
                (rows.text(before), limit),
            ).rowcount
            if forgotten:
                db.execute(
                    "DELETE FROM steps WHERE started_at < ? AND NOT EXISTS (SELECT 1 FROM leases"
                    " WHERE leases.job_id = steps.job_id AND leases.run = steps.run)",
                    (rows.text(before),),
                )
        return forgotten


def _write_tasks(db: sqlite3.Connection, session_id: str, tasks: Iterable[TaskUse]) -> None:
    db.executemany(
        "INSERT OR REPLACE INTO tasks (task_id, session_id, status, created_at, started_at, ended_at,"
        " seconds) VALUES (?, ?, ?, ?, ?, ?, ?)",
        [
            (
                task.task_id,
                session_id,
                task.status,
                rows.text(task.created_at),
                rows.text(task.started_at),
                rows.text(task.ended_at),
                task.seconds,
            )
            for task in tasks
        ],
    )
