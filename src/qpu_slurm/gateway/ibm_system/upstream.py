# SPDX-License-Identifier: Apache-2.0
"""What the cloud's service would answer, done with the provider of a QPU on the premises.

A task holds a lane of the QPU until it is deleted, and programs for the cloud delete none. So a task that is
over is retired as soon as a program asks for it: the journal notes what it used, and the service forgets it.
Its result and its log stay in the storage until the lease is over. Where all lanes are taken, the other tasks
of the gate that are over are retired, too, and the submission is tried again.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from qpu_slurm.config import QuantumSystemQpu
from qpu_slurm.errors import JournalError, NotFoundError, ServiceError, ThrottledError
from qpu_slurm.gateway.gates.upstream import GateClosedError, GateUpstream
from qpu_slurm.gateway.ibm_system import documents
from qpu_slurm.gateway.upstream import SUBMIT
from qpu_slurm.journal.history import TaskUse
from qpu_slurm.providers.ibm_system.answers import usage_of
from qpu_slurm.system.deadline import Deadline

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qpu_slurm.config import QpuConfig
    from qpu_slurm.gateway.gates.inputs import Envelope
    from qpu_slurm.gateway.gateway import Gateway
    from qpu_slurm.providers.base import Pieces
    from qpu_slurm.providers.ibm_system.answers import Job
    from qpu_slurm.providers.ibm_system.service import QuantumSystem

_LANES_PAUSE: Final = 1.0
"""Seconds between two tries of a submission for which there is no lane, at least."""

_REMEMBERED: Final = 10_000


class SystemUpstream(GateUpstream[QuantumSystemQpu, "QuantumSystem"]):
    """One QPU on the premises.

    Args:
        qpu: How it is reached.
        gateway: Its connections, its threads, its journal.
    """

    def __init__(self, qpu: QuantumSystemQpu, gateway: Gateway) -> None:
        super().__init__(qpu, gateway)
        self._retired: OrderedDict[str, dict[str, Any]] = OrderedDict()

    def provider(self, deadline: Deadline) -> QuantumSystem:
        """Return the QPU's provider; see `GateUpstream`."""
        provider = self._gateway.connections.connect(self.qpu.access(), deadline=deadline)
        # Here, since it needs packages that a gateway for the cloud alone does without.
        from qpu_slurm.providers.ibm_system.service import QuantumSystem  # noqa: PLC0415

        if not isinstance(provider, QuantumSystem):
            raise TypeError(f"{self.qpu.name} is reached by {type(provider).__name__}")
        return provider

    def configuration(self, provider: QuantumSystem) -> bytes:
        """Return the QPU's configuration, which is as in the cloud."""
        return provider.configuration()

    def properties(self, provider: QuantumSystem) -> bytes:
        """Return the QPU's last calibration, likewise."""
        return provider.properties()

    async def submit(self, envelope: Envelope, parameters: Pieces) -> str:
        """Submit a task, and wait for a lane if need be."""
        deadline, gate = Deadline.after(SUBMIT), envelope.session_id
        prepared = await self.run(
            lambda provider: provider.prepare(
                envelope.program_id,
                parameters,
                session_id=gate,
                tags=envelope.tags or (),
                cost=envelope.cost or self.qpu.task_timeout,
            ),
            deadline,
        )
        while True:
            if await self.has_ended(gate):
                await self.run(lambda provider: provider.discard(prepared))
                raise GateClosedError
            try:
                return await self.run(lambda provider: provider.send(prepared, patient=False), deadline)
            except ThrottledError as error:
                pause = max(error.retry_after or 0.0, _LANES_PAUSE)
                if not deadline.allows(pause):
                    raise
            if not await self._make_room(gate):
                await asyncio.sleep(pause)

    async def job(self, task_id: str) -> dict[str, Any]:
        """Describe a task; one that is over is retired."""
        if task_id in self._retired:
            return self._retired[task_id]
        try:
            job = await self.run(lambda provider: provider.job(task_id))
        except NotFoundError:
            use = await self._gateway.pools.systems.run(self._gateway.journal.history.task, task_id)
            if use is None:
                raise
            return documents.retired_job(use, self.qpu.backend)
        document = documents.job(job, self.qpu.s3_bucket)
        gate = document["session_id"]
        if gate is not None and documents.is_over(job):
            self._gateway.later(self._retire_later(job, gate))
        return document

    async def jobs(self, gate: str) -> list[dict[str, Any]]:
        """Describe a gate's tasks, those that the service has forgotten among them."""
        jobs = await self.run(lambda provider: provider.jobs(gate))
        found = {job.id: documents.job(job, self.qpu.s3_bucket) for job in jobs}
        for use in await self._gateway.pools.systems.run(self._gateway.journal.history.tasks, gate):
            if use.task_id not in found:
                known = self._retired.get(use.task_id)
                found[use.task_id] = known or documents.retired_job(use, self.qpu.backend)
        return list(found.values())

    async def result(self, task_id: str, gate: str) -> Iterator[bytes]:
        """Return the result of a task, which is in the storage."""
        return await self.run(lambda provider: provider.retired_result(gate, task_id))

    async def log(self, task_id: str, gate: str) -> str:
        """Return what the service logged of a task, likewise."""
        return await self.run(lambda provider: provider.retired_logs(gate, task_id))

    async def delete(self, task_id: str, gate: str) -> None:
        """Have the service forget a task that is over; see `GateUpstream`."""
        with suppress(NotFoundError):  # retired already
            await self._retire(await self.run(lambda provider: provider.job(task_id)), gate)

    async def _make_room(self, gate: str) -> bool:
        """Retire the tasks of a gate that are over; return whether there was one."""
        jobs = await self.run(lambda provider: provider.jobs(gate))
        over = [job for job in jobs if documents.is_over(job)]
        for job in over:
            await self._retire(job, gate)
        return bool(over)

    async def _retire(self, job: Job, gate: str) -> None:
        """Have the service forget a task that is over, once the journal knows it."""
        use = TaskUse.of(usage_of(job), gate)
        self._retired[job.id] = documents.job(job, self.qpu.s3_bucket)
        if len(self._retired) > _REMEMBERED:
            self._retired.popitem(last=False)

        def retire(provider: QuantumSystem) -> None:
            self._gateway.journal.history.note_tasks(gate, [use])
            provider.retire_task(job.id)

        await self.run(retire)

    async def _retire_later(self, job: Job, gate: str) -> None:
        with suppress(ServiceError, JournalError):  # the end of the lease does it, too
            await self._retire(job, gate)


def on_premises(qpu: QpuConfig, gateway: Gateway) -> SystemUpstream | None:
    """Return the upstream of a QPU on the premises; None for any other."""
    return SystemUpstream(qpu, gateway) if isinstance(qpu, QuantumSystemQpu) else None
