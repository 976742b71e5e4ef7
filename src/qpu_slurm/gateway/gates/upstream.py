# SPDX-License-Identifier: Apache-2.0
"""What the cloud's service would answer, done with the provider of a service without sessions.

Who asks, and whether the lease covers it, was checked before (`gateway.ibm`); so was what is submitted.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

import msgspec
import structlog

from qpu_slurm.config import QpuConfig
from qpu_slurm.errors import (
    AnswerLostError,
    QpuSlurmError,
    RefusedError,
    ServiceError,
    UnavailableError,
)
from qpu_slurm.gateway.answers import CutOffError, of_error, unavailable
from qpu_slurm.gateway.gates import documents, inputs
from qpu_slurm.gateway.upstream import READ, WrittenAnswer
from qpu_slurm.providers.base import Provider
from qpu_slurm.providers.gates import Gates
from qpu_slurm.system.deadline import Deadline

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping

    from qpu_slurm.gateway.gateway import Gateway
    from qpu_slurm.gateway.upstream import Answer, Body, Query
    from qpu_slurm.providers.base import Pieces

    T = TypeVar("T")

AnyQpu = TypeVar("AnyQpu", bound=QpuConfig)
AnyProvider = TypeVar("AnyProvider", bound=Provider)

_TOO_MANY: Final = 429
_GONE: Final = 409
_SESSION_CLOSED: Final = 1217

_log = structlog.get_logger(__name__)


class GateClosedError(Exception):
    """A gate takes no more tasks; one that came too late is cancelled."""


class GateUpstream(ABC, Generic[AnyQpu, AnyProvider]):
    """One QPU whose service has no sessions; see `gateway.upstream.Upstream`.

    Args:
        qpu: How it is reached.
        gateway: Its connections, its threads, its journal.

    Attributes:
        qpu: As above.
    """

    def __init__(self, qpu: AnyQpu, gateway: Gateway) -> None:
        self.qpu = qpu
        self._gateway = gateway

    # What depends on the kind of service.

    @abstractmethod
    def provider(self, deadline: Deadline) -> AnyProvider:
        """Return the QPU's provider, which gives up at a deadline."""

    @abstractmethod
    def configuration(self, provider: AnyProvider) -> bytes:
        """Return the QPU's configuration: JSON text, as the cloud has it."""

    @abstractmethod
    def properties(self, provider: AnyProvider) -> bytes:
        """Return the QPU's last calibration, likewise."""

    @abstractmethod
    async def submit(self, envelope: inputs.Envelope, parameters: Pieces) -> str:
        """Submit a task; return its id.

        Raises:
            GateClosedError: The gate was closed meanwhile, and nothing was submitted.
        """

    @abstractmethod
    async def job(self, task_id: str) -> dict[str, Any]:
        """Describe a task as the cloud does."""

    @abstractmethod
    async def jobs(self, gate: str) -> list[dict[str, Any]]:
        """Describe a gate's tasks, in any order."""

    @abstractmethod
    async def result(self, task_id: str, gate: str) -> Iterator[bytes]:
        """Return the result of a task that is completed, in pieces."""

    @abstractmethod
    async def log(self, task_id: str, gate: str) -> str:
        """Return what the service logged of a task that is over."""

    @abstractmethod
    async def delete(self, task_id: str, gate: str) -> None:
        """Have the service forget a task that is over."""

    async def metrics(self, task_id: str) -> dict[str, Any]:
        """Describe where a task's time went."""
        return documents.metrics(await self.job(task_id))

    def lost(self, error: AnswerLostError) -> WrittenAnswer:
        """Answer a submission whose own answer was lost; by default, the client's answer is lost, too.

        Raises:
            CutOffError: It is.
        """
        raise CutOffError(str(error)) from error

    # What does not.

    @asynccontextmanager
    async def send(
        self,
        method: str,
        *parts: str,
        query: Query = (),
        headers: Mapping[str, str] | None = None,
        body: Body | None = None,
        once: bool = False,
    ) -> AsyncIterator[Answer]:
        """Answer a request; see `Upstream.send`."""
        try:
            answer = await self._answer(method, parts, dict(query), headers or {}, body)
        except AnswerLostError as error:
            if not once:
                raise unavailable("The quantum service did not answer.") from error
            answer = self.lost(error)
        except UnavailableError as error:
            if error.status == _TOO_MANY:
                answer = documents.refusal(_TOO_MANY, error.message, error.advice, code=error.code)
                answer.headers["Retry-After"] = "2"
            else:
                _log.warning("the service does not answer", qpu=self.qpu.name, why=str(error))
                raise unavailable("The quantum service cannot be reached now.") from error
        except RefusedError as error:
            if error.admin_advice:
                _log.warning("refused", qpu=self.qpu.name, why=str(error), advice=error.admin_advice)
            told = of_error(error)
            answer = documents.refusal(told.status, told.message, told.solution, code=told.code)
        except (QpuSlurmError, OSError) as error:
            _log.error("the QPU cannot be asked", qpu=self.qpu.name, why=str(error))
            raise unavailable(f"The gateway has no access to {self.qpu.name} now.") from error
        yield answer

    async def _answer(  # noqa: C901, PLR0911, PLR0912 - the cloud's API, a case for each of its requests
        self,
        method: str,
        parts: tuple[str, ...],
        query: Mapping[str, str],
        headers: Mapping[str, str],
        body: Body | None,
    ) -> WrittenAnswer:
        match method, parts:
            case "POST", ("jobs",) if body is not None:
                return await self._submit(body)
            case "GET", ("jobs",):
                return await self._list(query)
            case "GET", ("jobs", task_id):
                return WrittenAnswer.of(await self.job(task_id))
            case "GET", ("jobs", task_id, "metrics"):
                return WrittenAnswer.of(await self.metrics(task_id))
            case "GET", ("jobs", task_id, "results"):
                return await self._result(task_id)
            case "GET", ("jobs", task_id, "logs"):
                return await self._logs(task_id)
            case "POST", ("jobs", task_id, "cancel"):
                return await self._cancel(task_id)
            case "DELETE", ("jobs", task_id):
                return await self._delete(task_id)
            case "GET", ("sessions", gate):
                return await self._session(gate)
            case "PATCH", ("sessions", _):  # the journal notes it
                return WrittenAnswer(204)
            case "DELETE", ("sessions", gate, "close"):
                await self.run(lambda provider: provider.cancel_session(gate))
                return WrittenAnswer(204)
            case "GET", ("workloads",):
                return await self._workloads(query)
            case "GET", ("backends",):
                return await self.run(lambda provider: self._backends(provider, headers))
            case "GET", ("backends", _, "status"):
                return await self.run(
                    lambda provider: documents.backend_status(provider.status(), self.configuration(provider))
                )
            case "GET", ("backends", _, "configuration"):
                return WrittenAnswer(200, await self.run(self.configuration))
            case "GET", ("backends", _, "properties"):
                return WrittenAnswer(200, await self.run(self.properties))
            case "GET", ("instances", "usage"):
                # No plan bounds it. What jobs have used is in `qpu-slurm report`.
                return WrittenAnswer.of({"instance_id": self.qpu.instance, "usage_consumed_seconds": 0})
        return documents.refusal(
            404, f"The QPU {self.qpu.name} has no answer to {method} /{'/'.join(parts)[:64]}."
        )

    # Tasks.

    async def _submit(self, body: Body) -> WrittenAnswer:
        with inputs.spooled() as spool:
            try:
                if isinstance(body, bytes):
                    spool.write(body)
                else:
                    async for piece in body:
                        await self._gateway.pools.systems.run(spool.write, piece)
                envelope, parameters = spool.envelope(), spool.parameters()
            except msgspec.MsgspecError as error:
                return documents.refusal(400, f"Request validation failed, because: {error}.", code=1208)
            gate = envelope.session_id
            try:
                task_id = await self.while_open(gate, lambda: self.submit(envelope, parameters))
            except GateClosedError:
                return _closed()
        return WrittenAnswer.of({"id": task_id, "backend": self.qpu.backend, "session_id": gate})

    async def _list(self, query: Mapping[str, str]) -> WrittenAnswer:
        """List a session's tasks, the newest first."""
        tags = {value for name, value in query.items() if name.removesuffix("[]") == "tags"}
        pending = query.get("pending")
        listed = [
            job
            for job in await self.jobs(query.get("session_id", ""))
            if tags <= {*job["tags"]}
            and (pending is None or documents.is_pending(job) == (pending.lower() == "true"))
        ]
        ascending = query.get("sort", "").upper() == "ASC"
        listed.sort(key=lambda job: str(job["created"]), reverse=not ascending)
        offset, limit = int(query.get("offset", "0")), int(query.get("limit", "200"))
        page = listed[offset : offset + limit]
        return WrittenAnswer.of({"jobs": page, "count": len(listed), "limit": limit, "offset": offset})

    async def _result(self, task_id: str) -> WrittenAnswer:
        document = await self.job(task_id)
        if document["status"] != "Completed":
            return WrittenAnswer(204)
        pieces = await self.result(task_id, document["session_id"])
        first = await self._gateway.pools.systems.run(next, pieces, b"")
        return WrittenAnswer(200, self._streamed(first, pieces), "text/plain; charset=utf-8")

    async def _streamed(self, first: bytes, pieces: Iterator[bytes]) -> AsyncIterator[bytes]:
        piece = first
        while piece:
            yield piece
            try:
                piece = await self._gateway.pools.systems.run(next, pieces, b"")
            except ServiceError as error:
                # Its beginning was handed on: a client that reads to the end must not take it for the whole.
                raise TimeoutError(str(error)) from error

    async def _logs(self, task_id: str) -> WrittenAnswer:
        document = await self.job(task_id)
        if documents.is_pending(document):
            return WrittenAnswer(204)
        text = await self.log(task_id, document["session_id"])
        return WrittenAnswer(200, text.encode(), "text/plain; charset=utf-8")

    async def _cancel(self, task_id: str) -> WrittenAnswer:
        document = await self.job(task_id)
        if not documents.is_pending(document):
            return documents.refusal(
                _GONE, f"Job {task_id} is in a final state.", "Nothing is left to cancel."
            )
        await self.run(lambda provider: provider.cancel_task(task_id))
        return WrittenAnswer(204)

    async def _delete(self, task_id: str) -> WrittenAnswer:
        """Have the service forget a task that is over; the end of the lease deletes its data."""
        document = await self.job(task_id)
        if documents.is_pending(document):
            return documents.refusal(400, f"Job {task_id} has not ended.", "Cancel it first.")
        await self.delete(task_id, document["session_id"])
        return WrittenAnswer(204)

    # Gates.

    async def _end_if_spent(self, gate: str) -> None:
        """Close a gate whose tasks have executed for as long as the budgets let it.

        A service ends a session when its time is over. Here, nothing else would: a budget counts what ended
        gates have used, so a job would go on for as long as it runs.
        """
        journal = self._gateway.journal
        use = await self._gateway.pools.systems.run(journal.history.session, gate)
        if use is None or use.ended_at is not None:
            return
        lease = await self._gateway.pools.systems.run(journal.lease, use.lease_id)
        limit = lease.max_ttl
        if lease.session_id != gate or limit is None or not self._gateway.budgets.limits(lease):
            return

        def end(provider: AnyProvider) -> None:
            executed = {task.task_id: task.seconds for task in journal.history.tasks(gate)}
            if isinstance(provider, Gates):
                executed |= {task.id: task.seconds for task in provider.tasks_of(gate)}
            if sum(executed.values()) >= limit:
                journal.part(lease.id, gate, "Its tasks have used what the budget had left for them.")

        await self.run(end)

    async def _session(self, gate: str) -> WrittenAnswer:
        await self._end_if_spent(gate)
        use = await self._gateway.pools.systems.run(self._gateway.journal.history.session, gate)
        return WrittenAnswer.of(documents.session(gate, self.qpu.backend, use))

    async def _workloads(self, query: Mapping[str, str]) -> WrittenAnswer:
        gate = query.get("search", "")
        use = await self._gateway.pools.systems.run(self._gateway.journal.history.session, gate)
        found = [] if use is None else [documents.workload(gate, self.qpu.backend, use)]
        return WrittenAnswer.of({"workloads": found, "total_count": len(found), "limit": 1})

    async def while_open(self, gate: str, submit: Callable[[], Awaitable[str]]) -> str:
        """Submit a task; return its id. It is cancelled at once if the gate was closed meanwhile.

        Raises:
            GateClosedError: The gate is closed.
        """
        await self._end_if_spent(gate)
        if await self.has_ended(gate):
            raise GateClosedError
        task_id = await submit()
        if await self.has_ended(gate):
            # The reaper deletes it (`leases.late_tasks`).
            with suppress(ServiceError):
                await self.run(lambda provider: provider.cancel_task(task_id))
            raise GateClosedError
        return task_id

    async def has_ended(self, gate: str) -> bool:
        """Tell whether a gate is closed."""
        use = await self._gateway.pools.systems.run(self._gateway.journal.history.session, gate)
        return use is None or use.ended_at is not None

    # What the above is made of.

    def _backends(self, provider: AnyProvider, headers: Mapping[str, str]) -> WrittenAnswer:
        return documents.backends(
            self.qpu.backend,
            provider.status(),
            self.configuration(provider),
            self.properties(provider),
            headers.get("IBM-API-Version", ""),
        )

    async def run(self, ask: Callable[[AnyProvider], T], deadline: Deadline | None = None) -> T:
        """Ask the provider, in a thread."""
        return await self._gateway.pools.systems.run(
            lambda: ask(self.provider(deadline or Deadline.after(READ)))
        )


def _closed() -> WrittenAnswer:
    return documents.refusal(400, "Session has been closed.", code=_SESSION_CLOSED)
