# SPDX-License-Identifier: Apache-2.0
"""What the gateway does for Slurm's hooks and for steps, which are a small client in C (plugin/client).

What a start, an end and a step mean is in `lifecycle/`. Here, Slurm is asked for many jobs at once, a job's
AdminComment is written when nothing waits for it, and what a job's start has found out is kept for its steps.
"""

from __future__ import annotations

import asyncio
import os
from collections import OrderedDict
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING

import msgspec
import structlog
from aiohttp import web

from qpu_slurm.errors import NoLeaseError, QpuSlurmError, RefusedError, SlurmAwayError, SlurmError
from qpu_slurm.gateway.answers import ApiError
from qpu_slurm.gateway.lookups import Lookups
from qpu_slurm.job.variables import NOTICE, to_environ
from qpu_slurm.journal.model import Hold
from qpu_slurm.leases.access import places_of
from qpu_slurm.leases.comments import completed, lacking
from qpu_slurm.lifecycle.end import End
from qpu_slurm.lifecycle.start import NOT_STARTED, Start
from qpu_slurm.lifecycle.variables import Opened, handover, of_step
from qpu_slurm.names import STEP_TAG
from qpu_slurm.slurm.control import Control
from qpu_slurm.slurm.query import connect
from qpu_slurm.system.deadline import Deadline

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from qpu_slurm.config.access import Place
    from qpu_slurm.gateway.gateway import Gateway
    from qpu_slurm.journal.model import Lease
    from qpu_slurm.leases.comments import Unwritten
    from qpu_slurm.slurm.admin_comment import AdminComment
    from qpu_slurm.slurm.job import HookJob, JobRecord

_KEPT = 100_000
"""How many jobs are kept for their steps; for others, Slurm is asked again."""

_END_SECONDS = 20.0
_STEP_SECONDS = 4.0
"""How long to wait for a Slurm that does not answer, as a job ends and as a step starts, which asks again."""

_CANCEL_SECONDS = 20.0
"""How long cancelling the tasks that a step has left may take."""

_COMPLETED = 100
"""How many comments that lack leases are written after a run of the reaper; the next run finds the others."""

_STOP_SECONDS = 10.0
"""How long comments that are not written yet may take when the gateway stops."""

_log = structlog.get_logger(__name__)


class Jobs:
    """The starts, ends and steps of jobs.

    Args:
        gateway: Its broker, journal and threads.
    """

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._lookups = Lookups(lambda: connect(gateway.config.slurm), gateway.pools.slurm)
        self._started = _Started()
        self._comments: dict[int, asyncio.Task[None]] = {}
        self._refused: set[int] = set()

    def does_for(self, user_id: int) -> bool:
        """Return whether this process may do in Slurm what a hook of that user may."""
        return os.geteuid() in {0, user_id}

    async def start(self, job: HookJob, *, arrived: float, is_there: Callable[[], bool]) -> bool:
        """Open the sessions of a job that is about to start; return whether it may.

        Args:
            job: The job.
            arrived: When the hook's request arrived (`time.monotonic`).
            is_there: Returns whether the hook still waits for the answer.

        Raises:
            QpuSlurmError: Nothing was found out about the job, or Slurm could not be told.
        """
        gateway, config = self._gateway, self._gateway.config
        start = Start(
            config,
            job,
            connect(config.slurm),
            Control(config.slurm),
            lambda: nullcontext(gateway.broker),
        )
        self._started.forget(job.leader, job.job_id)
        code = 0
        components = await self._lookups.components(job.leader, seconds=config.outage.acquire_timeout)
        try:
            request = start.ask(components)
            if request is not None:
                leases = await gateway.starts.acquire(
                    gateway.broker,
                    request,
                    arrived=arrived,
                    seconds=config.outage.acquire_timeout,
                    is_there=is_there,
                )
                write = partial(start.write, start.grant(leases))
                if all(config.qpu(lease.qpu).through_gateway for lease in leases):
                    await self._comment(job.job_id, write)
                else:
                    # Steps read it, on nodes that have a key.
                    await gateway.pools.slurm.run(write)
        except QpuSlurmError as error:
            if not is_there():
                # It was killed: Slurm knows, and starts the job again or ends it.
                _log.warning("the hook is gone", job_id=job.job_id, why=str(error))
                return False
            try:
                code = await gateway.pools.slurm.run(start.fail, error)
            except QpuSlurmError as failure:
                code = start.failure()
                if code != NOT_STARTED:
                    raise
                _log.error("prolog failed", job_id=job.job_id, why=str(failure))
        if start.handover is not None:
            self._started.keep(job, components, start.handover)
        return code == 0

    async def end(self, job: HookJob) -> None:
        """Close the sessions of a job that has ended.

        Raises:
            JournalError: The journal cannot be written.
        """
        gateway, leader = self._gateway, None
        try:
            components = await self._lookups.components(job.leader, seconds=_END_SECONDS)
            leader = next((record for record in components if record.job_id == job.leader), None)
        except SlurmError as error:
            _log.warning("Slurm was asked in vain", job_id=job.leader, why=str(error))
        end = End.of(job, leader)
        if end is not None:
            release = partial(gateway.starts.release, gateway.broker)
            await gateway.pools.release.run(end.release, release)
            gateway.ended.set()

    async def variables(self, job_id: int, user_id: int) -> tuple[int, str]:
        """Return what a step is told of its job's QPUs, as lines NAME=value; nothing if the job has none.

        Args:
            job_id: The job; of a heterogeneous job, the component.
            user_id: Who asks.

        Returns:
            The job, of a heterogeneous job the leader; and the lines.

        Raises:
            RequestError: The job must not run: its user made a mistake.
            NoLeaseError: The job no longer holds a QPU.
            RefusedError: It is another user's.
            SlurmError: Slurm does not answer, or does not know the job.
            ApiError: The journal was lost.
        """
        gateway = self._gateway
        records = self._started.records(job_id)
        if records is None:
            records = await self._lookups.components(job_id, seconds=_STEP_SECONDS, fresh=False)
        if not records:
            raise SlurmError(f"Slurm does not know job {job_id}.")
        if user_id not in gateway.trusted and any(record.user_id != user_id for record in records):
            raise RefusedError(f"Job {job_id} belongs to another user.")
        records = sorted(records, key=lambda record: record.job_id != job_id)
        leader, left = records[0].leader, handover(records)
        leases = [] if left.error else self._leases(records[0], left)
        # A gateway that was killed after it had granted a lease has not written the comment.
        if unwritten := lacking(left, leases):
            own = completed(handover(records[:1]), gateway.reader.with_choices(unwritten))
            records[0] = msgspec.structs.replace(records[0], admin_comment=own.into_comment(""))
            left = handover(records)
        if not left.sessions and not left.error:
            return leader, ""
        opened = {lease.qpu: Opened(gateway.keys.key(lease), lease.session_id) for lease in leases}
        config = gateway.config
        for name in left.sessions:
            if name in config.qpus and not config.qpus[name].through_gateway:
                raise NotHereError(f"The key of {name} is on the node.")
        qpus = of_step(config, records, opened, config.qpus)
        variables = to_environ(qpus)
        if notice := self._notice(leases):
            variables[NOTICE] = notice
        return leader, "".join(f"{name}={value}\n" for name, value in variables.items())

    def _notice(self, leases: Iterable[Lease]) -> str:
        """Return what a job's user is told of budgets that are nearly used up."""
        spend = [lease for lease in leases if lease.hold is not Hold.NONE]
        if not spend:
            return ""
        warning = self._gateway.budgets.warning
        return warning(spend[0].account, spend[0].user_id, [lease.qpu for lease in spend])

    def _leases(self, record: JobRecord, left: AdminComment) -> list[Lease]:
        """Return what a job holds through the gateway.

        Raises:
            ApiError: The journal was lost, and the job has QPUs.
        """
        try:
            callers = self._gateway.callers.of_job(record.leader)
        except ApiError:
            if left.sessions:
                raise
            return []  # What Slurm's record lacks cannot be taken over from there.
        return [caller.lease for caller in callers if caller.lease.user_id == record.user_id]

    async def leader(self, job_id: int) -> int:
        """Return the leader of a component, which leases are recorded under; of any other job, itself.

        Raises:
            SlurmAwayError: Slurm has to be asked, and does not answer now.
        """
        leader = self._started.leader(job_id)
        if leader is None and self._gateway.callers.of_late(job_id) is None:
            try:
                components = await self._lookups.components(job_id, seconds=_STEP_SECONDS, fresh=False)
            except SlurmAwayError:
                raise
            except SlurmError as error:
                # Asking again would not help.
                _log.warning("Slurm was asked in vain", job_id=job_id, why=str(error))
                components = []
            leader = components[0].leader if components else None
        return job_id if leader is None else leader

    def places(self, leader: int) -> tuple[Place, ...] | None:
        """Return where in Slurm a job runs; None if it was not started here."""
        records = self._started.records(leader)
        return None if records is None else places_of(records)

    def cancel(self, leader: int, mark: str) -> None:
        """Cancel the tasks that a step has left, as far as its job has leases yet; this blocks.

        Raises:
            QpuSlurmError: The service does not answer.
        """
        gateway, deadline = self._gateway, Deadline.after(_CANCEL_SECONDS)
        for caller in gateway.callers.of_job(leader):
            provider = gateway.broker.provider(caller.lease, deadline=deadline)
            for task_id in provider.pending_tasks(f"{STEP_TAG}{mark}"):
                provider.cancel_task(task_id)
                _log.info("task cancelled", job_id=leader, qpu=caller.qpu.name, task=task_id, step=mark)

    def forget(self, leader: int) -> None:
        """Ask Slurm again for a job that was started by others."""
        self._started.forget(leader)

    async def write(self, unwritten: Collection[Unwritten]) -> None:
        """Have the AdminComments of running jobs written that lack leases.

        Those that Slurm has refused are left alone, until they have been complete once.
        """
        control = Control(self._gateway.config.slurm)
        self._refused &= {job.job_id for job, _ in unwritten}
        passed_over = self._refused | self._comments.keys()
        for job, comment in islice(
            (one for one in unwritten if one.job.job_id not in passed_over), _COMPLETED
        ):
            text = comment.into_comment(job.admin_comment)
            _log.info("the job's AdminComment lacks leases", job_id=job.job_id, leases=comment.leases)
            await self._comment(job.job_id, partial(control.set_admin_comment, job.job_id, text))

    async def _comment(self, job_id: int, write: partial[None]) -> None:
        """Have a job's AdminComment written, after the one that was to be written before."""
        before = self._comments.get(job_id)
        if before is not None:
            await asyncio.wait([before])

        async def written() -> None:
            try:
                await self._gateway.pools.comments.run(write)
            except SlurmError as error:
                if not isinstance(error, SlurmAwayError):
                    self._refused.add(job_id)
                _log.warning("the job's AdminComment is not written", job_id=job_id, why=str(error))
            finally:
                if self._comments.get(job_id) is task:
                    del self._comments[job_id]

        task = asyncio.create_task(written())
        self._comments[job_id] = task

    async def stop(self) -> None:
        """Write the comments that are not written yet."""
        if self._comments:
            await asyncio.wait(list(self._comments.values()), timeout=_STOP_SECONDS)


class NotHereError(NoLeaseError):
    """The gateway cannot do it: the hook or the step has to, with the Python command."""


class _Started:
    """The jobs that were started here, as Slurm's record of them is, or will be in a moment."""

    def __init__(self) -> None:
        self._jobs: OrderedDict[int, dict[int, tuple[JobRecord, datetime | None]]] = OrderedDict()
        self._leaders: dict[int, int] = {}
        self._wanted: dict[int, frozenset[int]] = {}

    def keep(self, job: HookJob, components: Iterable[JobRecord], told: AdminComment) -> None:
        """Keep what the start of a job, or of a component, has left."""
        found = {record.job_id: record for record in components}
        record = found[job.job_id]
        ends_at = (
            None if record.time_left is None else datetime.now(UTC) + timedelta(seconds=record.time_left)
        )
        comment = told.into_comment("")
        self._jobs.setdefault(job.leader, {})[job.job_id] = (
            msgspec.structs.replace(record, admin_comment=comment),
            ends_at,
        )
        self._jobs.move_to_end(job.leader)
        self._wanted[job.leader] = frozenset(found)
        self._leaders[job.job_id] = job.leader
        while len(self._jobs) > _KEPT:
            self.forget(next(iter(self._jobs)))

    def forget(self, leader: int, component: int | None = None) -> None:
        """Forget a job, or a component that starts again."""
        for job_id in list(self._jobs.get(leader, ())):
            if component is None or job_id == component:
                del self._jobs[leader][job_id]
                self._leaders.pop(job_id, None)
        if not self._jobs.get(leader):
            self._jobs.pop(leader, None)
            self._wanted.pop(leader, None)

    def leader(self, job_id: int) -> int | None:
        """Return the leader of a component that was started here."""
        return self._leaders.get(job_id)

    def records(self, job_id: int) -> list[JobRecord] | None:
        """Return all components of a job; None if not all were started here."""
        leader = self._leaders.get(job_id)
        if leader is None or not self._wanted[leader] <= self._jobs[leader].keys():
            return None
        now = datetime.now(UTC)
        # Beyond its end, a job was given more time since: how much is not known.
        return [
            msgspec.structs.replace(
                record, time_left=int((end - now).total_seconds()) if end is not None and end > now else None
            )
            for _, (record, end) in sorted(self._jobs[leader].items())
        ]


JOBS = web.AppKey("jobs", Jobs)
