# SPDX-License-Identifier: Apache-2.0
"""The journal: the crash-safe record of all leases and of what happened to them.

Every change is one transaction. `database` explains which of them survive a power loss, and why the others
need not. If another process has made a change already, it is not made twice. Times are UTC.

    database       the file, its transactions and its damage
    schema         its tables
    journal        leases: how one is granted, and what happens to it
    endings        leases: how one ends
    lookup         leases: every query about them
    history        the use of their sessions: what for, and when
    closed_qpus    the QPUs that an admin has closed to new leases
    blocked_users  the users who get no lease
    seen_qpus      the last known status of each QPU
    pace           how long sessions and tasks take on each QPU
    budgets        how much may be used, was used, and is reserved
    balances       the arithmetic of budgets
    backup         copies of the journal, and how they are restored
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Self, Unpack

from qpu_slurm.errors import JournalError
from qpu_slurm.journal import budgets, rows
from qpu_slurm.journal.blocked_users import BlockedUsers
from qpu_slurm.journal.budgets import BudgetBook
from qpu_slurm.journal.closed_qpus import Closings
from qpu_slurm.journal.database import Database
from qpu_slurm.journal.endings import Endings
from qpu_slurm.journal.history import History
from qpu_slurm.journal.model import Hold, Lease, LeaseState
from qpu_slurm.journal.pace import Paces
from qpu_slurm.journal.seen_qpus import SeenQpus

if TYPE_CHECKING:
    import sqlite3
    from pathlib import Path

    from qpu_slurm.journal.balances import Terms
    from qpu_slurm.journal.model import Holder, Refusal

_PATIENCE = 10.0


class Journal(Endings):
    """The journal in one file. Threads may share it.

    Args:
        path: The file.
        patience: Seconds to wait for another process that is writing.
        make: Make the file if it is missing. Processes that only read do not.

    Attributes:
        path: The file.
        history: The use of sessions.
        closings: The QPUs that an admin has closed to new leases.
        blocked_users: The users who get no lease.
        seen_qpus: The last known status of each QPU.
        paces: How long sessions and tasks take on each QPU.
        budgets: How much may be used, was used, and is reserved.

    Raises:
        NoJournalError: The file is missing, and `make` is False.
        JournalError: It cannot be opened. Every method raises this if it cannot be read or written.
    """

    def __init__(self, path: Path, *, patience: float = _PATIENCE, make: bool = True) -> None:
        super().__init__(Database(path, patience=patience, make=make))
        self.path = path
        self.history = History(self._database)
        self.closings = Closings(self._database)
        self.blocked_users = BlockedUsers(self._database)
        self.seen_qpus = SeenQpus(self._database)
        self.paces = Paces(self._database)
        self.budgets = BudgetBook(self._database)

    @property
    def losses(self) -> list[str]:
        """When the file was found deleted or damaged, since it was opened; the newest last."""
        return self._database.losses

    @property
    def damage(self) -> str:
        """SQLite's message about the file's damage; empty if there is none."""
        return self._database.damage

    def begin_anew(self) -> None:
        """Rename a damaged file, and continue with an empty one."""
        self._database.begin_anew()

    def check(self) -> None:
        """Read the whole file; raise `JournalDamagedError` if it is damaged."""
        self._database.check()

    def copy_to(self, path: Path) -> None:
        """Copy the journal, as it is now, into a new file. Other processes may write meanwhile."""
        self._database.copy_to(path)

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # What a broker writes.

    def intend(
        self,
        *,
        qpu: str,
        expires_at: datetime,
        hold: Hold = Hold.JOB,
        max_ttl: int | None = None,
        limit: int | None = None,
        terms: Terms | None = None,
        **holder: Unpack[Holder],
    ) -> Lease:
        """Record that a session is about to be opened for a job that has no lease on the QPU.

        Args:
            qpu: The QPU's name.
            expires_at: When the session ends by itself, at the latest.
            hold: How long sessions are held.
            max_ttl: The seconds that the session is asked to live.
            limit: How many jobs may have the QPU; None is any number.
            terms: What budgets say of it, and that it is to be reserved; None reserves nothing.
            holder: The job that gets the lease.

        Returns:
            The lease: ACQUIRING. Its `max_ttl` is no more than the budgets leave.

        Raises:
            QpuFullError: As many other jobs have it.
            BudgetSpentError: A budget is used up.
            BudgetReservedError: Running jobs have reserved what is left.
        """
        with self._database.transaction(durable=True) as db:
            rows.make_sure_of_room(db, qpu, holder["job_id"], limit)
            bound = "SELECT id FROM leases WHERE job_id = ? AND qpu = ? AND state = 'bound'"
            for row in db.execute(bound, (holder["job_id"], qpu)).fetchall():
                rows.begin_end(db, row["id"], "The job gets a session.")
            lease_id = rows.insert(
                db,
                holder,
                LeaseState.ACQUIRING,
                qpu=qpu,
                hold=hold,
                intended_at=rows.now(),
                expires_at=rows.text(expires_at),
                max_ttl=max_ttl,
            )
            rows.log(db, lease_id, "intent", qpu)
            _reserve(db, lease_id, expires_at, max_ttl, terms)
            return rows.one(db, lease_id)

    def bind(
        self, *, qpu: str, hold: Hold = Hold.NONE, limit: int | None = None, **holder: Unpack[Holder]
    ) -> Lease:
        """Record that a job may read a QPU's properties, and open a session on it if `hold` allows that.

        Args:
            qpu: The QPU's name.
            hold: NONE: the job never gets a session; otherwise it may open one: see `begin_session`.
            limit: How many jobs may have the QPU, if this one is to have it; None is any number.
            holder: The job that gets the lease.

        Returns:
            The lease: BOUND, or the one with a session that the job has or is about to get.

        Raises:
            QpuFullError: As many other jobs have it.
        """
        with self._database.transaction(durable=True) as db:
            rows.make_sure_of_room(db, qpu, holder["job_id"], limit)
            query = "SELECT id, hold FROM open_leases WHERE job_id = ? AND qpu = ? AND state <> 'releasing'"
            row = db.execute(query, (holder["job_id"], qpu)).fetchone()
            if row is not None and row["hold"] == Hold.NONE and hold is not Hold.NONE:
                # Another component of the job was faster; it only reads the QPU's properties.
                rows.begin_end(db, row["id"], "The job gets a session.")
                row = None
            if row is None:
                lease_id = rows.insert(db, holder, LeaseState.BOUND, qpu=qpu, hold=hold)
                rows.log(db, lease_id, "bound", qpu)
            else:
                lease_id = row["id"]
                rows.log(db, lease_id, "renewed", "")
            return rows.one(db, lease_id)

    def refuse(self, refusal: Refusal) -> list[Lease]:
        """Record that a job was refused, as a FAILED lease for each QPU that it asked for.

        If the job's acquire has recorded such a lease already, that one gets the reason.

        Args:
            refusal: The job, its QPUs and the reason.
        """
        holder: Holder = {
            "job_id": refusal.job_id,
            "user_id": refusal.user_id,
            "run": refusal.run,
            "account": refusal.account,
            "submitted_at": refusal.submitted_at,
        }
        query = "SELECT id FROM leases WHERE job_id = ? AND run = ? AND qpu = ? AND state = 'failed'"
        leases = []
        with self._database.transaction() as db:
            for qpu in refusal.qpus:
                row = db.execute(query, (refusal.job_id, refusal.run, qpu)).fetchone()
                if row is None:
                    lease_id = rows.insert(
                        db,
                        holder,
                        LeaseState.FAILED,
                        qpu=qpu,
                        ended_at=rows.now(),
                        reason=refusal.reason,
                    )
                else:
                    lease_id = row["id"]
                    rows.change(db, lease_id, reason=refusal.reason)
                rows.log(db, lease_id, "refused", refusal.reason)
                leases.append(rows.one(db, lease_id))
        return leases

    def begin_session(
        self, lease_id: int, expires_at: datetime, max_ttl: int | None = None, terms: Terms | None = None
    ) -> Lease:
        """Record that a session is about to be opened for a lease that has none.

        Args:
            lease_id: The lease, BOUND with another `hold` than NONE.
            expires_at: When the session ends by itself, at the latest.
            max_ttl: The seconds that the session is asked to live.
            terms: What budgets say of it; see `intend`, also for the errors.

        Returns:
            The lease: ACQUIRING; or unchanged, if it may not open a session (any more).
        """
        with self._database.transaction(durable=True) as db:
            lease = rows.one(db, lease_id)
            if lease.state is not LeaseState.BOUND or lease.hold is Hold.NONE:
                return lease
            rows.move(
                db,
                lease_id,
                LeaseState.ACQUIRING,
                event="intent",
                intended_at=rows.now(),
                expires_at=rows.text(expires_at),
                max_ttl=max_ttl,
            )
            _reserve(db, lease_id, expires_at, max_ttl, terms)
            return rows.one(db, lease_id)

    def ask_again(
        self, lease_id: int, expires_at: datetime, max_ttl: int | None = None, terms: Terms | None = None
    ) -> Lease:
        """Record that a session is about to be requested again, since the first answer was lost.

        The first session may still appear. A second lease, which is over, stands for it from now on. That
        lease is `unsettled`, so the reaper ends the session if it finds it.

        Args:
            lease_id: The lease, ACQUIRING. No session was found for it.
            expires_at: When the session ends by itself, at the latest.
            max_ttl: The seconds that the session is asked to live.
            terms: What budgets say of it; see `intend`, also for the errors.

        Returns:
            The lease; unchanged, if it is not ACQUIRING any more.
        """
        with self._database.transaction(durable=True) as db:
            lease = rows.one(db, lease_id)
            if lease.state is not LeaseState.ACQUIRING:
                return lease
            self._stand_in(db, lease)
            intended_at, ends_at = rows.now(), rows.text(expires_at)
            rows.change(db, lease_id, intended_at=intended_at, expires_at=ends_at, max_ttl=max_ttl)
            rows.log(db, lease_id, "intent", "again")
            _reserve(db, lease_id, expires_at, max_ttl, terms)
            return rows.one(db, lease_id)

    def part(self, lease_id: int, session_id: str, why: str) -> Lease:
        """Record that a lease's session takes no more tasks. A later task needs another session.

        Args:
            lease_id: The lease.
            session_id: The session. If the lease has another one by now, nothing changes.
            why: The reason.

        Returns:
            The lease: BOUND, without a session; or unchanged, if it is not HELD with this one.
        """
        with self._database.transaction() as db:
            lease = rows.one(db, lease_id)
            if lease.state is not LeaseState.HELD or lease.session_id != session_id:
                return lease
            rows.end_sessions(db, lease_id)
            return rows.move(db, lease_id, LeaseState.BOUND, event="parted", why=why, session_id=None)

    @staticmethod
    def _stand_in(db: sqlite3.Connection, lease: Lease) -> None:
        """Record another lease, which is over, for a session that may still appear."""
        number = rows.copy(db, lease, LeaseState.RELEASED, reason="No answer came, nor was a session found.")
        rows.log(db, number, LeaseState.RELEASED, "")

    def give_up_session(self, lease_id: int, why: str, *, may_come: bool = False) -> Lease:
        """Record that a lease gets no session now. It stays the job's.

        Args:
            lease_id: The lease, ACQUIRING by `begin_session`.
            why: The reason.
            may_come: Whether a session may still appear, though none was found; see `ask_again`.
        """
        with self._database.transaction(durable=may_come) as db:
            lease = rows.one(db, lease_id)
            if lease.state is not LeaseState.ACQUIRING:
                return lease
            if may_come:
                self._stand_in(db, lease)
            budgets.drop(db, lease_id)
            return rows.move(db, lease_id, LeaseState.BOUND, event="parted", why=why, intended_at=None)

    def take_over(
        self,
        *,
        qpu: str,
        hold: Hold,
        session_id: str | None,
        expires_at: datetime | None,
        number: int | None,
        created_at: datetime | None,
        **holder: Unpack[Holder],
    ) -> Lease | None:
        """Record a lease that was granted, and that a lost journal had recorded.

        Args:
            qpu: The QPU's name.
            hold: How long sessions are held.
            session_id: Its session; None if it has none.
            expires_at: When the session ends by itself, at the latest.
            number: Its old number. If another lease has that by now, it gets a new one.
            created_at: When it was recorded first.
            holder: The job that has it.

        Returns:
            The lease: HELD, or BOUND without a session; None if this journal has the session, or a lease of
            this run on the QPU, already.
        """
        with self._database.transaction(durable=True) as db:
            run = holder.get("run", "")
            if not rows.is_news(db, holder["job_id"], qpu, run, session_id):
                return None
            taken = db.execute("SELECT 1 FROM leases WHERE id = ?", (number,)).fetchone()
            own = {} if number is None or created_at is None or taken else {"id": number}
            lease_id = rows.insert(
                db,
                holder,
                LeaseState.HELD if session_id else LeaseState.BOUND,
                **own,
                qpu=qpu,
                hold=hold,
                session_id=session_id,
                created_at=rows.text(created_at) or rows.now(),
                acquired_at=rows.text(created_at) or rows.now() if session_id else None,
                expires_at=rows.text(expires_at),
            )
            if session_id:
                rows.add_session(db, lease_id, session_id)
            rows.log(db, lease_id, "adopted", session_id or "")
            lease = rows.one(db, lease_id)
            if session_id and expires_at is not None:
                budgets.take_over(db, lease, (expires_at - datetime.now(UTC)).total_seconds())
            return lease

    def renew(self, lease_id: int) -> Lease:
        """Record that a lease is given to its job again, if it is still HELD."""
        with self._database.transaction() as db:
            lease = rows.one(db, lease_id)
            if lease.state is LeaseState.HELD:
                rows.log(db, lease_id, "renewed", "")
            return lease

    def hold(self, lease_id: int, session_id: str, expires_at: datetime, *, adopted: bool = False) -> Lease:
        """Record the session that was opened for a lease.

        Args:
            lease_id: The lease.
            session_id: The session.
            expires_at: When it ends by itself, at the latest.
            adopted: Whether the session was found, after the process that opened it had died.

        Returns:
            The lease: HELD; or RELEASING, now with its session, if it is being ended already.

        Raises:
            JournalError: The session is another lease's.
        """
        # On the disk before the job learns of it: else a power loss could leave the session to another lease.
        with self._database.transaction(durable=True) as db:
            lease = rows.one(db, lease_id)
            if lease.session_id or lease.state not in {LeaseState.ACQUIRING, LeaseState.RELEASING}:
                return lease
            owner = db.execute("SELECT lease_id FROM sessions WHERE session_id = ?", (session_id,)).fetchone()
            if owner is not None and owner["lease_id"] != lease_id:
                raise JournalError(f"Session {session_id} belongs to lease {owner['lease_id']}.")
            event = "adopted" if adopted else "held"
            found = {
                "session_id": session_id,
                "acquired_at": rows.now(),
                "expires_at": rows.text(expires_at),
                "intended_at": None,
            }
            rows.add_session(db, lease_id, session_id)
            budgets.attach(db, lease_id, session_id)
            if lease.state is LeaseState.ACQUIRING:
                return rows.move(db, lease_id, LeaseState.HELD, event=event, why=session_id, **found)
            rows.change(db, lease_id, **found)
            rows.log(db, lease_id, event, session_id)
            return rows.one(db, lease_id)

    def found(self, lease_id: int, session_id: str) -> None:
        """Record a further session of a lease. It is ended with the lease, or at once if the lease is over.

        The job itself has opened it, or it was opened while the job was being ended.
        """
        with self._database.transaction() as db:
            if rows.add_session(db, lease_id, session_id):
                rows.log(db, lease_id, "adopted", session_id)
            if rows.one(db, lease_id).state.final:
                rows.end_sessions(db, lease_id)


def _reserve(
    db: sqlite3.Connection, lease_id: int, expires_at: datetime, max_ttl: int | None, terms: Terms | None
) -> None:
    """Reserve what a session may use, and have it live no longer than its budgets let it."""
    if terms is None or max_ttl is None:
        return
    seconds = budgets.reserve(db, lease_id, max_ttl, terms, datetime.now(UTC))
    if seconds < max_ttl:
        ends_at = rows.text(expires_at - timedelta(seconds=max_ttl - seconds))
        rows.change(db, lease_id, max_ttl=seconds, expires_at=ends_at)
