# SPDX-License-Identifier: Apache-2.0
"""How leases end in the journal: the intent first, then what became of it.

A lease becomes RELEASING before the service is asked to close its sessions, and RELEASED when all are closed.
So whatever process dies in between, the next run of the reaper finds the lease and continues.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from qpu_slurm.journal import budgets, rows
from qpu_slurm.journal.lookup import Lookup

if TYPE_CHECKING:
    from qpu_slurm.journal.model import Lease, LeaseState


class Endings(Lookup):
    """The part of the journal that ends leases. Every method may raise `JournalError`."""

    def end(self, job_id: int, reason: str, *, run: str = "", others: bool = False) -> list[Lease]:
        """Record the intent to end a job's leases.

        Args:
            job_id: The job; of a heterogeneous job, the leader.
            reason: Why they end.
            run: The run of the job that has ended; empty is all of them.
            others: End the leases of all other runs instead.

        Returns:
            The leases, RELEASING now. Those without any session are RELEASED.
        """
        with self._database.reading() as db:
            if not rows.open_leases(db, job_id):
                return []  # as for most jobs that start: none of them waits for a writer
        with self._database.transaction() as db:
            return [
                rows.begin_end(db, lease.id, reason)
                for lease in rows.open_leases(db, job_id)
                if lease.is_of(run) is not others
            ]

    def end_one(self, lease_id: int, reason: str, *, unless_after: int | None = None) -> Lease:
        """Record the intent to end one lease.

        Args:
            lease_id: The lease.
            reason: Why it ends.
            unless_after: Leave the lease as it is if it has had an event since this one; see `last_event`.
                That a lost session was found for it does not count, since any process may find it.
        """
        with self._database.transaction() as db:
            query = "SELECT EXISTS (SELECT 1 FROM events WHERE lease_id = ? AND id > ? AND what <> 'adopted')"
            if unless_after is not None and db.execute(query, (lease_id, unless_after)).fetchone()[0]:
                return rows.one(db, lease_id)
            return rows.begin_end(db, lease_id, reason)

    def postpone(self, lease_id: int, why: str) -> Lease:
        """Record why a lease could not be ended yet. It stays RELEASING."""
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
        """Record that a lease is over, and delete its credential.

        If a session may still appear (see `unsettled`), the credential is kept until that is settled.

        Args:
            lease_id: The lease.
            state: RELEASED or FAILED.
            reason: Why; empty keeps the reason that is recorded already.
        """
        with self._database.transaction() as db:
            lease = rows.one(db, lease_id)
            if not lease.state.final:
                rows.end_sessions(db, lease_id)
                budgets.drop(db, lease_id)
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
        """Record that no session can appear any more for a lease that is over; delete its credential."""
        with self._database.transaction() as db:
            rows.change(db, lease_id, intended_at=None)
            forgotten = db.execute("DELETE FROM credentials WHERE lease_id = ?", (lease_id,)).rowcount
            rows.log(db, lease_id, "settled", "")
        if forgotten:
            self._database.scrub()
