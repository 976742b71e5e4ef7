# SPDX-License-Identifier: Apache-2.0
"""The journal: the crash-safe record of all leases and of what happened to them.

Every change is one transaction; which of them survive a power loss, and why the others need not, says
`database`. A change that another process was faster with is not made twice. Times are UTC.

    database       the file
    schema         its tables
    journal        leases: every change of one
    lookup         leases: every question about them
    history        what their sessions were used for, and when
    closed_qpus    the QPUs that an admin has closed to new leases
    blocked_users  the users who get none
    seen_qpus      how the QPUs were when they were last asked for
    backup         a copy of it all, and the way back
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Self, Unpack

from qpu_slurm.errors import JournalError
from qpu_slurm.journal import rows
from qpu_slurm.journal.blocked_users import BlockedUsers
from qpu_slurm.journal.closed_qpus import Closings
from qpu_slurm.journal.database import Database
from qpu_slurm.journal.history import History
from qpu_slurm.journal.lookup import Lookup
from qpu_slurm.journal.model import Hold, Lease, LeaseState
from qpu_slurm.journal.seen_qpus import SeenQpus

if TYPE_CHECKING:
    import sqlite3
    from datetime import datetime
    from pathlib import Path

    from qpu_slurm.journal.model import Holder, Refusal

_PATIENCE = 10.0


class Journal(Lookup):
    """The journal in one file. Threads may share it.

    Args:
        path: The file.
        patience: Seconds to wait for another process that is writing.
        make: Make the file if it is not there: for those who write to it.

    Attributes:
        path: The file.
        history: What sessions were used for, and when.
        closings: The QPUs that an admin has closed to new leases.
        blocked_users: The users who get no lease.
        seen_qpus: How the QPUs were when they were last asked for.

    Raises:
        NoJournalError: It is not there, and is not to be made.
        JournalError: It cannot be opened; so does every method when it cannot be read or written.
    """

    def __init__(self, path: Path, *, patience: float = _PATIENCE, make: bool = True) -> None:
        super().__init__(Database(path, patience=patience, make=make))
        self.path = path
        self.history = History(self._database)
        self.closings = Closings(self._database)
        self.blocked_users = BlockedUsers(self._database)
        self.seen_qpus = SeenQpus(self._database)

    @property
    def losses(self) -> list[str]:
        """What was noticed of the file's being deleted or damaged since it was opened, the newest last."""
        return self._database.losses

    @property
    def damage(self) -> str:
        """What SQLite said of the file last, if it is damaged."""
        return self._database.damage

    def begin_anew(self) -> None:
        """Give a damaged file another name, and go on with an empty one."""
        self._database.begin_anew()

    def check(self) -> None:
        """Read all of the file; raise `JournalDamagedError` if it is damaged."""
        self._database.check()

    def copy_to(self, path: Path) -> None:
        """Copy all of it into a new file, as it is now; others may write meanwhile."""
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
        **holder: Unpack[Holder],
    ) -> Lease:
        """Write down that a session is about to be opened for a job that has no lease on the QPU.

        Args:
            qpu: The QPU's name.
            expires_at: When the session will have ended by itself, at the latest.
            hold: How long sessions are held.
            max_ttl: The seconds that the session is asked to live.
            limit: How many jobs may have the QPU; None is any number.
            holder: Who gets it.

        Raises:
            QpuFullError: As many other jobs have it.
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
            return rows.one(db, lease_id)

    def bind(
        self, *, qpu: str, hold: Hold = Hold.NONE, limit: int | None = None, **holder: Unpack[Holder]
    ) -> Lease:
        """Write down that a job may know what a QPU is like, and open a session on it if `hold` says so.

        Args:
            qpu: The QPU's name.
            hold: NONE: the job never gets a session; otherwise it may open one: see `begin_session`.
            limit: How many jobs may have the QPU, if this one is to have it; None is any number.
            holder: Who gets it.

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
                # Another component of the job was faster, which only wants to know what the QPU is like.
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
        """Write down that a job was refused: a lease that FAILED, for each QPU that it asked for.

        What failed as the job's acquire did is not written down twice: it gets the sentence.

        Args:
            refusal: Who was refused what, and why.
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

    def begin_session(self, lease_id: int, expires_at: datetime, max_ttl: int | None = None) -> Lease:
        """Write down that a session is about to be opened for a lease that has none, and may have one.

        Args:
            lease_id: The lease, BOUND with another `hold` than NONE.
            expires_at: When the session will have ended by itself, at the latest.
            max_ttl: The seconds that the session is asked to live.

        Returns:
            The lease: ACQUIRING; or as it is, if it is not (any more) a lease that may open one.
        """
        with self._database.transaction(durable=True) as db:
            lease = rows.one(db, lease_id)
            if lease.state is not LeaseState.BOUND or lease.hold is Hold.NONE:
                return lease
            return rows.move(
                db,
                lease_id,
                LeaseState.ACQUIRING,
                event="intent",
                intended_at=rows.now(),
                expires_at=rows.text(expires_at),
                max_ttl=max_ttl,
            )

    def ask_again(self, lease_id: int, expires_at: datetime, max_ttl: int | None = None) -> Lease:
        """Write down that a session is about to be asked for once more: the first answer was lost.

        The first one may come yet. A lease that is over stands for it from now on: it is `unsettled`, so
        whoever finds that session ends it.

        Args:
            lease_id: The lease, ACQUIRING; it was looked whether there is a session.
            expires_at: When the session will have ended by itself, at the latest.
            max_ttl: The seconds that the session is asked to live.

        Returns:
            The lease; or as it is, if it is not ACQUIRING any more.
        """
        with self._database.transaction(durable=True) as db:
            lease = rows.one(db, lease_id)
            if lease.state is not LeaseState.ACQUIRING:
                return lease
            self._stand_in(db, lease)
            intended_at, ends_at = rows.now(), rows.text(expires_at)
            rows.change(db, lease_id, intended_at=intended_at, expires_at=ends_at, max_ttl=max_ttl)
            rows.log(db, lease_id, "intent", "again")
            return rows.one(db, lease_id)

    def part(self, lease_id: int, session_id: str, why: str) -> Lease:
        """Write down that a lease's session takes no more tasks: a later task needs another one.

        Args:
            lease_id: The lease.
            session_id: The session; if the lease has another one by now, nothing changes.
            why: What closed it.

        Returns:
            The lease: BOUND, without a session; or as it is, if it is not HELD with this one.
        """
        with self._database.transaction() as db:
            lease = rows.one(db, lease_id)
            if lease.state is not LeaseState.HELD or lease.session_id != session_id:
                return lease
            rows.end_sessions(db, lease_id)
            return rows.move(db, lease_id, LeaseState.BOUND, event="parted", why=why, session_id=None)

    @staticmethod
    def _stand_in(db: sqlite3.Connection, lease: Lease) -> None:
        """Write another lease, which is over, for a session that may come yet."""
        number = rows.copy(db, lease, LeaseState.RELEASED, reason="No answer came, nor was a session found.")
        rows.log(db, number, LeaseState.RELEASED, "")

    def give_up_session(self, lease_id: int, why: str, *, may_come: bool = False) -> Lease:
        """Write down that a lease gets no session now, after all; it stays the job's.

        Args:
            lease_id: The lease, ACQUIRING by `begin_session`.
            why: What kept it from having one.
            may_come: A session may come yet, though none was found; see `ask_again` for what becomes of it.
        """
        with self._database.transaction(durable=may_come) as db:
            lease = rows.one(db, lease_id)
            if lease.state is not LeaseState.ACQUIRING:
                return lease
            if may_come:
                self._stand_in(db, lease)
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
        """Write down a lease that was granted, and that a journal which is lost has known.

        Args:
            qpu: The QPU's name.
            hold: How long sessions are held.
            session_id: The session that it has; None if it has none.
            expires_at: When that ends by itself, at the latest.
            number: What number it had; it gets another one if that is another lease's by now.
            created_at: When it was written down first.
            holder: Who has it.

        Returns:
            The lease: HELD, or BOUND without a session; None if this journal knows of the session, or of
            this run's hold on the QPU, already.
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
            return rows.one(db, lease_id)

    def renew(self, lease_id: int) -> Lease:
        """Write down that a lease that was held already is given to the job again, if it is HELD still."""
        with self._database.transaction() as db:
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

        Raises:
            JournalError: It is another lease's session already.
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
            if lease.state is LeaseState.ACQUIRING:
                return rows.move(db, lease_id, LeaseState.HELD, event=event, why=session_id, **found)
            rows.change(db, lease_id, **found)
            rows.log(db, lease_id, event, session_id)
            return rows.one(db, lease_id)

    def found(self, lease_id: int, session_id: str) -> None:
        """Write down a further session of a lease: one to be ended with it, or at once if that is over.

        It was opened by the job itself, or while the job was being ended.
        """
        with self._database.transaction() as db:
            if rows.add_session(db, lease_id, session_id):
                rows.log(db, lease_id, "adopted", session_id)
            if rows.one(db, lease_id).state.final:
                rows.end_sessions(db, lease_id)

    def end(self, job_id: int, reason: str, *, run: str = "", others: bool = False) -> list[Lease]:
        """Write down the intent to end what a job holds.

        Args:
            job_id: The job; of a heterogeneous job, the leader.
            reason: What ended it.
            run: Which run of the job has ended; empty is all of them.
            others: Rather what all runs hold but this one.

        Returns:
            The leases, RELEASING now; those that held nothing are RELEASED.
        """
        with self._database.reading() as db:
            if not rows.open_leases(db, job_id):
                return []  # as for most jobs that start: none of them waits for who writes
        with self._database.transaction() as db:
            return [
                rows.begin_end(db, lease.id, reason)
                for lease in rows.open_leases(db, job_id)
                if lease.is_of(run) is not others
            ]

    def end_one(self, lease_id: int, reason: str, *, unless_after: int | None = None) -> Lease:
        """Write down the intent to end one lease.

        Args:
            lease_id: The lease.
            reason: What ended it.
            unless_after: Leave the lease as it is if something has happened to it since; see `last_event`.
                That a lost session was found for it does not count: anybody may find it.
        """
        with self._database.transaction() as db:
            query = "SELECT EXISTS (SELECT 1 FROM events WHERE lease_id = ? AND id > ? AND what <> 'adopted')"
            if unless_after is not None and db.execute(query, (lease_id, unless_after)).fetchone()[0]:
                return rows.one(db, lease_id)
            return rows.begin_end(db, lease_id, reason)

    def postpone(self, lease_id: int, why: str) -> Lease:
        """Write down why a lease could not be ended yet; it stays RELEASING."""
        with self._database.transaction() as db:
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

        Where a session may still come (see `unsettled`), the credential is kept until that is settled.

        Args:
            lease_id: The lease.
            state: RELEASED or FAILED.
            reason: Why; empty leaves what is known already.
        """
        with self._database.transaction() as db:
            lease = rows.one(db, lease_id)
            if not lease.state.final:
                rows.end_sessions(db, lease_id)
                known = reason or lease.reason
                lease = rows.move(db, lease_id, state, why=reason, reason=known, ended_at=rows.now())
            forgotten = db.execute(
                "DELETE FROM credentials WHERE lease_id = ?"
                " AND lease_id NOT IN (SELECT id FROM unsettled_leases)",
                (lease_id,),
            ).rowcount
        if forgotten:
            self._database.scrub()
        return lease

    def settle(self, lease_id: int) -> None:
        """Write down that no session of a lease that is over can come any more; forget the credential."""
        with self._database.transaction() as db:
            rows.change(db, lease_id, intended_at=None)
            forgotten = db.execute("DELETE FROM credentials WHERE lease_id = ?", (lease_id,)).rowcount
            rows.log(db, lease_id, "settled", "")
        if forgotten:
            self._database.scrub()
