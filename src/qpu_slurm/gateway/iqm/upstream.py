# SPDX-License-Identifier: Apache-2.0
"""What the cloud's service would answer, done with the provider of an IQM Server.

task_runner asks so. A submission whose answer was lost is refused, and not taken for lost: the client would
look for a task that cannot be found, and submit it again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from qpu_slurm.config import IqmServerQpu
from qpu_slurm.errors import RefusedError
from qpu_slurm.gateway.gates import documents as gate_documents
from qpu_slurm.gateway.gates.upstream import GateUpstream
from qpu_slurm.gateway.iqm import documents
from qpu_slurm.gateway.upstream import SUBMIT
from qpu_slurm.journal.history import TaskUse
from qpu_slurm.providers.iqm.answers import usage_of
from qpu_slurm.providers.iqm.service import PROGRAMS, IqmServer
from qpu_slurm.system.deadline import Deadline

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from qpu_slurm.config import QpuConfig
    from qpu_slurm.errors import AnswerLostError
    from qpu_slurm.gateway.gates.inputs import Envelope
    from qpu_slurm.gateway.gateway import Gateway
    from qpu_slurm.gateway.upstream import WrittenAnswer
    from qpu_slurm.providers.base import Pieces
    from qpu_slurm.providers.iqm.answers import Job
    from qpu_slurm.providers.iqm.ledger import Entry

_CONFLICT: Final = 409
_FORBIDDEN: Final = 403


class IqmUpstream(GateUpstream[IqmServerQpu, IqmServer]):
    """One QPU behind an IQM Server.

    Args:
        qpu: How it is reached.
        gateway: Its connections, its threads, its journal.
    """

    def provider(self, deadline: Deadline) -> IqmServer:
        """Return the QPU's provider; see `GateUpstream`."""
        provider = self._gateway.connections.connect(self.qpu.access(), deadline=deadline)
        if not isinstance(provider, IqmServer):
            raise TypeError(f"{self.qpu.name} is reached by {type(provider).__name__}")
        return provider

    def configuration(self, provider: IqmServer) -> bytes:
        """Return the QPU's architecture as a configuration of the cloud's."""
        return documents.configuration(self.qpu.backend, provider.device())

    def properties(self, provider: IqmServer) -> bytes:
        """Return when the QPU was calibrated last."""
        return documents.properties(self.qpu.backend, provider.calibrated_at())

    async def submit(self, envelope: Envelope, parameters: Pieces) -> str:
        """Submit a task; see `GateUpstream`."""
        return await self.send_batch(
            envelope.program_id, parameters, gate=envelope.session_id, tags=envelope.tags or ()
        )

    async def send_batch(self, program: str, batch: Pieces | bytes, *, gate: str, tags: Sequence[str]) -> str:
        """Submit a batch of circuits to the queue that the QPU's configuration says; return the task's id.

        Raises:
            RefusedError: The admin does not want tasks in that queue.
        """
        wanted = self.qpu.use_timeslot
        if PROGRAMS.get(program) and wanted == "never":
            raise RefusedError(
                f"On {self.qpu.name}, tasks do not wait for timeslots (use_timeslot).", status=_FORBIDDEN
            )
        if program in PROGRAMS and wanted == "always":
            program = "circuit:timeslot"
        return await self.run(
            lambda provider: provider.submit(program, batch, session_id=gate, tags=tags),
            Deadline.after(SUBMIT),
        )

    def lost(self, error: AnswerLostError) -> WrittenAnswer:
        """Refuse a submission whose answer was lost."""
        return gate_documents.refusal(_CONFLICT, error.message, "See the QPU's own dashboard.")

    async def job(self, task_id: str) -> dict[str, Any]:
        """Describe a task; see `GateUpstream`."""
        found, entry = await self.run(lambda provider: provider.look_up(task_id))
        return documents.job(found, entry, self.qpu.backend)

    async def jobs(self, gate: str) -> list[dict[str, Any]]:
        """Describe a gate's tasks."""
        return [
            documents.job(found, entry, self.qpu.backend)
            for found, entry in await self.run(lambda provider: provider.of_gate(gate))
        ]

    async def result(self, task_id: str, gate: str) -> Iterator[bytes]:  # noqa: ARG002 - others need it
        """Return the result of a task."""
        return await self.run(lambda provider: provider.result(task_id))

    async def log(self, task_id: str, gate: str) -> str:  # noqa: ARG002 - likewise
        """Return what the server logged of a task."""
        return await self.run(lambda provider: provider.logs(task_id))

    async def metrics(self, task_id: str) -> dict[str, Any]:
        """Describe where a task's time went, and its place in the queue."""
        document = await self.job(task_id)
        return gate_documents.metrics(document, await self.run(lambda provider: provider.times(task_id)))

    async def delete(self, task_id: str, gate: str) -> None:
        """Have the server forget a task that is over, once the journal knows it."""

        def delete(provider: IqmServer) -> None:
            use = TaskUse.of(usage_of(provider.job(task_id)), gate)
            self._gateway.journal.history.note_tasks(gate, [use])
            provider.delete_task(task_id)

        await self.run(delete)

    async def gate_of(self, task_id: str, gates: Sequence[str]) -> str | None:
        """Return the one of some gates that a task went through; None if it is none of them."""
        return await self.run(lambda provider: provider.gate_of(task_id, gates))

    async def look_up(self, task_id: str) -> tuple[Job, Entry | None]:
        """Return a task as the server describes it, and what is written down of it."""
        return await self.run(lambda provider: provider.look_up(task_id))


def behind_iqm(qpu: QpuConfig, gateway: Gateway) -> IqmUpstream | None:
    """Return the upstream of a QPU behind an IQM Server; None for any other."""
    return IqmUpstream(qpu, gateway) if isinstance(qpu, IqmServerQpu) else None
