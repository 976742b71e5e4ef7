# SPDX-License-Identifier: Apache-2.0
"""The reaper: ends the leases of ended jobs that no epilog has ended.

An epilog may not have run (slurmctld was killed), may not have reached the gateway, or may have failed (the
service was away). So the reaper compares the journal's open leases with Slurm's jobs, and ends the leases
without a job.

It may run beside live jobs, hooks and other reapers. It reads the journal before it asks Slurm, so the job of
each lease that it sees has been started. If the next run of a job takes its lease over meanwhile, the journal
says so (`Journal.renew`), and the reaper leaves that lease alone.
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
from qpu_slurm.leases.comments import Unwritten, commented, unwritten
from qpu_slurm.leases.late_tasks import WHY as LATE_TASK
from qpu_slurm.leases.late_tasks import end_late_tasks
from qpu_slurm.leases.reconcile import CLOSED, LATE, Sessions
from qpu_slurm.leases.takeover import Takeover
from qpu_slurm.system import structs
from qpu_slurm.system.deadline import Deadline
from qpu_slurm.system.pace import paced

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
        # The job will run again; it holds nothing meanwhile.
        *("PENDING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "RESV_DEL_HOLD", "SPECIAL_EXIT"),
    }
)
"""The states (squeue(1)) of a job whose run has ended. Unknown states count as running."""

_STARTING = "CONFIGURING"
"""The state of a job whose prolog runs or ran. A running job was granted its lease. If the journal does not
show that, its record was lost (see `database`), and the session is looked up."""

_COMPLETING = "COMPLETING"
"""The state of a job whose epilog runs or ran. A job whose epilog hangs has ended, too."""

_BUDGET = 60.0
"""Seconds after which a run begins no further release and leaves the rest to the next run."""

_AT_ONCE = 8
"""How many leases are ended in parallel."""

_GIVE_BACK = 60.0
"""Seconds beyond its timeout in which a failed acquire gives back what it got."""

_FORGOTTEN = 500
"""How many leases one run deletes at most."""

_log = structlog.get_logger(__name__)


class Reaped(msgspec.Struct, frozen=True, kw_only=True):
    """A lease that the reaper changed.

    Attributes:
        lease: Its new state: RELEASED, or RELEASING if it could not be ended yet. If its job goes on: BOUND
            if it lost its session, HELD if one was found.
        why: The reason.
        trouble: Why it could not be ended.
    """

    lease: Lease
    why: str
    trouble: str = ""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a run.

    Attributes:
        leases: How many leases were open.
        reaped: The leases that the reaper changed.
        taken_over: The leases that Slurm knew and the journal did not, since it was lost.
        unended: The leases of ended jobs that are left to the next run: ending them failed, or there was no
            time.
        left: How many there was no time for.
        forgotten: How many old leases were deleted from the journal.
        trouble: What kept the run from being complete.
    """

    leases: int
    reaped: tuple[Reaped, ...] = ()
    taken_over: tuple[Lease, ...] = ()
    unended: tuple[Lease, ...] = ()
    left: int = 0
    forgotten: int = 0
    trouble: str = ""

    @property
    def complete(self) -> bool:
        """Whether nothing is left to do."""
        return not (self.left or self.trouble or any(reaped.trouble for reaped in self.reaped))


class Reaper:
    """Compares the journal with Slurm, and with the service.

    Args:
        config: The configuration.
        broker: Ends leases.
        journal: The broker's journal.
        query: Queries Slurm.

    Attributes:
        jobs: Slurm's jobs in the last run; None if Slurm did not answer.
        unwritten: Of these, the running ones whose AdminComments lack leases; see `comments`.
    """

    def __init__(self, config: Config, broker: Broker, journal: Journal, query: Query) -> None:
        self._config = config
        self._broker = broker
        self._journal = journal
        self._query = query
        self._takeover = Takeover(config, broker, journal)
        self._sessions = Sessions(config, broker, journal)
        self._keep = config.keep
        self._longest_acquire = config.outage.acquire_timeout + _GIVE_BACK
        self.jobs: tuple[JobRecord, ...] | None = None
        self.unwritten: tuple[Unwritten, ...] = ()
        # What the last run left to epilogs.
        self._completing: set[int] = set()

    def run(self) -> Report:
        """Run once: end all leases that are to be ended.

        Raises:
            JournalError: The journal cannot be read or written.
        """
        mark = self._journal.last_event()
        leases = self._journal.leases()
        jobs, trouble = self._jobs()
        why = {lease.id: reason for lease in paced(leases) if (reason := self._why(lease, jobs))}
        if jobs is not None:
            completing = {job.job_id for job in jobs.values() if job.state == _COMPLETING}
            self._completing = {lease.id for lease in leases if lease.job_id in completing}
        goes_on = [lease for lease in leases if lease.id not in why]
        comments = list(paced(commented(self.jobs or ())))
        self.unwritten = tuple(unwritten(paced(comments), goes_on, self._journal.with_choices))
        ids = list(why)
        # In another order each time, so that a service that does not answer does not delay the same ones.
        random.shuffle(ids)
        deadline = Deadline.after(_BUDGET)

        def end(lease_id: int) -> Lease | None:
            if deadline.passed:
                return None
            return self._broker.end(lease_id, why[lease_id], unless_after=mark)

        reaped = []
        unended = []
        left = 0
        found = {lease.id: lease for lease in leases}
        structs.prepare()
        # Most of the time is spent waiting for the service.
        with ThreadPoolExecutor(_AT_ONCE, "reaper") as pool:
            for lease_id, lease in zip(ids, pool.map(end, ids), strict=True):
                if lease is None:
                    left += 1
                    unended.append(found[lease_id])
                elif lease.state.final or lease.state is LeaseState.RELEASING:
                    reason = why[lease_id]
                    reaped.append(Reaped(lease=lease, why=reason, trouble=self._trouble(lease)))
                    if not lease.state.final:
                        unended.append(lease)
                    _log.info("reaped", job_id=lease.job_id, qpu=lease.qpu, state=lease.state, why=reason)
        if trouble:
            _log.warning("reaped without Slurm", why=trouble)
        elif not deadline.passed:
            reaped += self._compared(goes_on, deadline)
        reaped += self._late(deadline)
        # Last: the next run ends the leases of ended jobs that are taken over here.
        taken_over = () if jobs is None else tuple(self._takeover.run(paced(comments), leases, deadline))
        return Report(
            leases=len(leases),
            reaped=tuple(reaped),
            taken_over=taken_over,
            unended=tuple(unended),
            left=left,
            forgotten=self._forget(),
            trouble=trouble,
        )

    def _compared(self, leases: list[Lease], deadline: Deadline) -> Iterator[Reaped]:
        """Compare the leases of running jobs with the service."""
        for lease in self._sessions.part(leases):
            yield Reaped(lease=lease, why=CLOSED)
            _log.info("session gone", job_id=lease.job_id, qpu=lease.qpu)
        for lease in self._sessions.settle(leases, longest=self._longest_acquire, deadline=deadline):
            yield Reaped(lease=lease, why="Whoever was opening the session died.")
            _log.info("opening settled", job_id=lease.job_id, qpu=lease.qpu, state=lease.state)

    def _late(self, deadline: Deadline) -> Iterator[Reaped]:
        """End the rare sessions and tasks that appeared after their lease had ended."""
        for lease in self._sessions.late(deadline):
            yield Reaped(lease=lease, why=LATE)
            _log.info("session ended", job_id=lease.job_id, qpu=lease.qpu, why=LATE)
        for lease in end_late_tasks(self._config, self._broker, self._journal, deadline):
            yield Reaped(lease=lease, why=LATE_TASK)
            _log.warning("late tasks ended", job_id=lease.job_id, qpu=lease.qpu)

    def _forget(self) -> int:
        """Delete old leases; a few in each run, so that no process waits for the journal."""
        before = datetime.now(UTC) - timedelta(seconds=self._keep)
        return self._journal.history.forget(before, limit=_FORGOTTEN)

    def _jobs(self) -> tuple[dict[int, JobRecord] | None, str]:
        """Query Slurm's jobs; None if it does not answer."""
        try:
            self.jobs = tuple(self._query.jobs())
        except SlurmError as error:
            self.jobs = None
            return None, str(error)
        return {job.job_id: job for job in self.jobs}, ""

    def _why(self, lease: Lease, jobs: dict[int, JobRecord] | None) -> str:
        """Return why a lease is to be ended; empty if it is not."""
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
            # An age means nothing if the clock was set meanwhile.
            and not self._broker.is_opening(lease)
        ):
            why = "Whoever was opening the session died."
        else:
            why = ""
        return why

    def _trouble(self, lease: Lease) -> str:
        return "" if lease.state.final else self._journal.events(lease.id)[-1].detail
