# SPDX-License-Identifier: Apache-2.0
"""The reaper: ends the leases whose jobs are over, where no epilog did.

An epilog may not have run (slurmctld was killed), may have found nobody (the gateway was down), or may have
failed (the service was away). The journal has what is held, Slurm has what runs: what is in the one and not
in the other is ended.

It may run beside live jobs, hooks and other reapers. The journal is read before Slurm is asked: a job that
had a lease by then had been started. A lease that its job's next run takes over meanwhile is left alone,
since that is written down (`Journal.renew`).
"""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import msgspec
import structlog

from qpu_slurm.errors import SlurmError
from qpu_slurm.journal.model import Lease, LeaseState
from qpu_slurm.leases.reconcile import CLOSED, LATE, Sessions
from qpu_slurm.leases.takeover import Takeover
from qpu_slurm.system.deadline import Deadline

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qpu_slurm.config import Config
    from qpu_slurm.journal.journal import Journal
    from qpu_slurm.leases.broker import Broker
    from qpu_slurm.slurm.job import JobRecord
    from qpu_slurm.slurm.query import Query

_OVER = frozenset(
    {
        *("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY"),
        *("PREEMPTED", "REVOKED", "TIMEOUT"),
        # To be run again; nothing is held meanwhile.
        *("PENDING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "RESV_DEL_HOLD", "SPECIAL_EXIT"),
    }
)
"""The states (squeue(1)) of a job whose run is over. One that we do not know is not."""

_STARTING = "CONFIGURING"
"""The state of a job whose prolog is at work, or was. One that runs was given its lease: where the journal
does not say so, the record of it was lost (see `database`), and the session is found again."""

_COMPLETING = "COMPLETING"
"""The state of a job whose epilog is at work, or was; one that hangs in it is over as well."""

_BUDGET = 60.0
"""Seconds after which a look begins no further release: the next look does."""

_AT_ONCE = 8
"""How many leases are ended at once."""

_GIVE_BACK = 60.0
"""Seconds that an acquire may need beyond its time-out, to give back what it had got."""

_FORGOTTEN = 500
"""How many leases one look deletes at most."""

_log = structlog.get_logger(__name__)


class Reaped(msgspec.Struct, frozen=True, kw_only=True):
    """A lease that something was done with.

    Attributes:
        lease: As it is now: RELEASED, or RELEASING if it could not be ended yet; of a job that goes on, BOUND
            if it lost its session, HELD if one was found.
        why: Why.
        trouble: Why it could not be ended.
    """

    lease: Lease
    why: str
    trouble: str = ""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What a look found, and what was done about it.

    Attributes:
        leases: How many leases were not over.
        reaped: Those of them that something was done with.
        taken_over: Those that Slurm knew of and the journal did not: it was lost.
        left: How many there was no time for.
        forgotten: How many leases that were over long ago were deleted from the journal.
        trouble: What kept the look from being complete.
    """

    leases: int
    reaped: tuple[Reaped, ...] = ()
    taken_over: tuple[Lease, ...] = ()
    left: int = 0
    forgotten: int = 0
    trouble: str = ""

    @property
    def complete(self) -> bool:
        """Whether nothing is left to be done."""
        return not (self.left or self.trouble or any(reaped.trouble for reaped in self.reaped))


class Reaper:
    """Compares the journal with Slurm, and with the service.

    Args:
        config: What the admin wrote.
        broker: Ends leases.
        journal: The broker's.
        query: How Slurm is asked.

    Attributes:
        jobs: What Slurm told in the last look; None if it did not.
    """

    def __init__(self, config: Config, broker: Broker, journal: Journal, query: Query) -> None:
        self._broker = broker
        self._journal = journal
        self._query = query
        self._takeover = Takeover(config, broker, journal)
        self._sessions = Sessions(config, broker, journal)
        self._keep = config.keep
        self._longest_acquire = config.outage.acquire_timeout + _GIVE_BACK
        self.jobs: tuple[JobRecord, ...] | None = None
        # What the last look left to an epilog.
        self._completing: set[int] = set()

    def run(self) -> Report:
        """Look once, and end what is to be ended.

        Raises:
            JournalError: The journal cannot be read or written.
        """
        mark = self._journal.last_event()
        leases = self._journal.leases()
        jobs, trouble = self._jobs()
        why = {lease.id: reason for lease in leases if (reason := self._why(lease, jobs))}
        if jobs is not None:
            completing = {job.job_id for job in jobs.values() if job.state == _COMPLETING}
            self._completing = {lease.id for lease in leases if lease.job_id in completing}
        ids = list(why)
        # In another order each time, so that one whose service does not answer is in nobody's way for ever.
        random.shuffle(ids)
        deadline = Deadline.after(_BUDGET)

        def end(lease_id: int) -> Lease | None:
            if deadline.passed:
                return None
            return self._broker.end(lease_id, why[lease_id], unless_after=mark)

        reaped = []
        left = 0
        # Most of it is waiting for the service.
        with ThreadPoolExecutor(_AT_ONCE, "reaper") as pool:
            for lease_id, lease in zip(ids, pool.map(end, ids), strict=True):
                if lease is None:
                    left += 1
                elif lease.state.final or lease.state is LeaseState.RELEASING:
                    reason = why[lease_id]
                    reaped.append(Reaped(lease=lease, why=reason, trouble=self._trouble(lease)))
                    _log.info("reaped", job_id=lease.job_id, qpu=lease.qpu, state=lease.state, why=reason)
        if trouble:
            _log.warning("reaped without Slurm", why=trouble)
        elif not deadline.passed:
            reaped += self._compared([lease for lease in leases if lease.id not in why], deadline)
        reaped += self._late(deadline)
        # Last: what is taken over of jobs that are over is ended by the next look.
        taken_over = () if jobs is None else tuple(self._takeover.run(jobs.values(), deadline))
        return Report(
            leases=len(leases),
            reaped=tuple(reaped),
            taken_over=taken_over,
            left=left,
            forgotten=self._forget(),
            trouble=trouble,
        )

    def _compared(self, leases: list[Lease], deadline: Deadline) -> Iterator[Reaped]:
        """Compare leases of jobs that run with the service."""
        for lease in self._sessions.part(leases):
            yield Reaped(lease=lease, why=CLOSED)
            _log.info("session gone", job_id=lease.job_id, qpu=lease.qpu)
        for lease in self._sessions.settle(leases, longest=self._longest_acquire, deadline=deadline):
            yield Reaped(lease=lease, why="Whoever was opening the session died.")
            _log.info("opening settled", job_id=lease.job_id, qpu=lease.qpu, state=lease.state)

    def _late(self, deadline: Deadline) -> Iterator[Reaped]:
        """End the sessions of leases that were over before these came; there is hardly ever one."""
        for lease in self._sessions.late(deadline):
            yield Reaped(lease=lease, why=LATE)
            _log.info("session ended", job_id=lease.job_id, qpu=lease.qpu, why=LATE)

    def _forget(self) -> int:
        """Delete leases that were over long ago; a few at each look, so that nobody waits for the journal."""
        before = datetime.now(UTC) - timedelta(seconds=self._keep)
        return self._journal.history.forget(before, limit=_FORGOTTEN)

    def _jobs(self) -> tuple[dict[int, JobRecord] | None, str]:
        """Ask what Slurm runs; None if it does not say."""
        try:
            self.jobs = tuple(self._query.jobs())
        except SlurmError as error:
            self.jobs = None
            return None, str(error)
        return {job.job_id: job for job in self.jobs}, ""

    def _why(self, lease: Lease, jobs: dict[int, JobRecord] | None) -> str:
        """Say why a lease is to be ended; nothing if it is not."""
        if lease.state is LeaseState.RELEASING:
            return lease.reason or "It was being released."
        if jobs is None:
            return ""
        job = jobs.get(lease.job_id)
        age = (datetime.now(UTC) - lease.created_at).total_seconds()
        if job is None:
            why = "Slurm does not know the job any more."
        elif job.user_id != lease.user_id:
            why = "The job's number is another user's job's now."
        elif not lease.is_of(job.run):
            why = "The job was started again."
        elif job.state in _OVER or (job.state == _COMPLETING and lease.id in self._completing):
            why = f"The job does not run: it is {job.state}."
        elif (
            lease.state is LeaseState.ACQUIRING
            and not lease.granted
            and job.state == _STARTING
            and age > self._longest_acquire
            # An age is worth nothing when the clock was set meanwhile.
            and not self._broker.is_opening(lease)
        ):
            why = "Whoever was opening the session died."
        else:
            why = ""
        return why

    def _trouble(self, lease: Lease) -> str:
        return "" if lease.state.final else self._journal.events(lease.id)[-1].detail
