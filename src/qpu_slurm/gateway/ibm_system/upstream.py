# SPDX-License-Identifier: Apache-2.0
"""What the cloud's service would answer, done with the provider of a QPU on the premises.

Who asks, and whether the lease covers it, was checked before (`gateway.ibm`); so was what is submitted.

A task holds a lane of the QPU until it is deleted, and programs for the cloud delete none. So a task that is
over is retired as soon as a program asks for it: the journal notes what it used, and the service forgets it.
Its result and its log stay in the storage until the lease is over. Where all lanes are taken, the other tasks
of the gate that are over are retired, too, and the submission is tried again.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec
import structlog

from qpu_slurm.config import QuantumSystemQpu
from qpu_slurm.errors import (
    AnswerLostError,
    JournalError,
    NotFoundError,
    QpuSlurmError,
    RefusedError,
    ServiceError,
    ThrottledError,
    UnavailableError,
)
from qpu_slurm.gateway.answers import CutOffError, of_error, unavailable
from qpu_slurm.gateway.ibm_system import documents, inputs
from qpu_slurm.gateway.upstream import READ, SUBMIT, WrittenAnswer
from qpu_slurm.journal.history import TaskUse
from qpu_slurm.providers.ibm_system.answers import usage_of
from qpu_slurm.system.deadline import Deadline

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping

    from qpu_slurm.config import QpuConfig
    from qpu_slurm.gateway.gateway import Gateway
    from qpu_slurm.gateway.upstream import Answer, Body, Query
    from qpu_slurm.providers.ibm_system.answers import Job
    from qpu_slurm.providers.ibm_system.service import Prepared, QuantumSystem

    T = TypeVar("T")

_LANES_PAUSE: Final = 1.0
"""Seconds between two tries of a submission for which there is no lane, at least."""

_TOO_MANY: Final = 429
_GONE: Final = 409
_SESSION_CLOSED: Final = 1217
_REMEMBERED: Final = 10_000

_log = structlog.get_logger(__name__)


class SystemUpstream:
    """One QPU on the premises; see `gateway.upstream.Upstream`.

    Args:
        qpu: How it is reached.
        gateway: Its connections, its threads, its journal.
    """

    def __init__(self, qpu: QuantumSystemQpu, gateway: Gateway) -> None:
        self.qpu = qpu
        self._gateway = gateway
        self._retired: OrderedDict[str, dict[str, Any]] = OrderedDict()

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
            if once:
                raise CutOffError(str(error)) from error
            raise unavailable("The quantum service did not answer.") from error
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
                return WrittenAnswer.of(await self._job(task_id))
            case "GET", ("jobs", task_id, "metrics"):
                return WrittenAnswer.of(documents.metrics(await self._job(task_id)))
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
                await self._run(lambda provider: provider.cancel_session(gate))
                return WrittenAnswer(204)
            case "GET", ("workloads",):
                return await self._workloads(query)
            case "GET", ("backends",):
                return await self._run(lambda provider: self._backends(provider, headers))
            case "GET", ("backends", _, "status"):
                return await self._run(
                    lambda provider: documents.backend_status(provider.status(), provider.configuration())
                )
            case "GET", ("backends", _, "configuration"):
                return WrittenAnswer(200, await self._run(lambda provider: provider.configuration()))
            case "GET", ("backends", _, "properties"):
                return WrittenAnswer(200, await self._run(lambda provider: provider.properties()))
            case "GET", ("instances", "usage"):
                # No plan bounds it. What jobs have used is in `qpu-slurm report`.
                return WrittenAnswer.of({"instance_id": self.qpu.instance, "usage_consumed_seconds": 0})
        return documents.refusal(
            404, f"A QPU on the premises has no answer to {method} /{'/'.join(parts)[:64]}."
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
            deadline, gate = Deadline.after(SUBMIT), envelope.session_id
            if await self._has_ended(gate):
                return _closed()
            prepared = await self._run(
                lambda provider: provider.prepare(
                    envelope.program_id,
                    parameters,
                    session_id=gate,
                    tags=envelope.tags or (),
                    cost=envelope.cost or self.qpu.task_timeout,
                ),
                deadline,
            )
        return await self._send(prepared, gate, deadline)

    async def _send(self, prepared: Prepared, gate: str, deadline: Deadline) -> WrittenAnswer:
        """Submit a task whose input is in the storage, as soon as there is a lane."""
        while True:
            if await self._has_ended(gate):
                await self._run(lambda provider: provider.discard(prepared))
                return _closed()
            try:
                task_id = await self._run(lambda provider: provider.send(prepared, patient=False), deadline)
                break
            except ThrottledError as error:
                pause = max(error.retry_after or 0.0, _LANES_PAUSE)
                if not deadline.allows(pause):
                    raise
            if not await self._make_room(gate):
                await asyncio.sleep(pause)
        if await self._has_ended(gate):
            # The gate was closed meanwhile. The reaper deletes the task (`leases.late_tasks`).
            with suppress(ServiceError):
                await self._run(lambda provider: provider.cancel_task(task_id))
            return _closed()
        return WrittenAnswer.of({"id": task_id, "backend": self.qpu.backend, "session_id": gate})

    async def _make_room(self, gate: str) -> bool:
        """Retire the tasks of a gate that are over; return whether there was one."""
        jobs = await self._run(lambda provider: provider.jobs(gate))
        over = [job for job in jobs if documents.is_over(job)]
        for job in over:
            await self._retire(job, gate)
        return bool(over)

    async def _retire(self, job: Job, gate: str) -> None:
        """Have the service forget a task that is over, once the journal knows it."""
        used = usage_of(job)
        use = TaskUse(
            task_id=job.id,
            session_id=gate,
            status=used.status or "",
            created_at=used.created_at,
            started_at=used.started_at,
            ended_at=used.ended_at,
            seconds=used.seconds,
        )
        self._retired[job.id] = documents.job(job, self.qpu.s3_bucket)
        if len(self._retired) > _REMEMBERED:
            self._retired.popitem(last=False)

        def retire(provider: QuantumSystem) -> None:
            self._gateway.journal.history.note_tasks(gate, [use])
            provider.retire_task(job.id)

        await self._run(retire)

    async def _retire_later(self, job: Job, gate: str) -> None:
        with suppress(ServiceError, JournalError):  # the end of the lease does it, too
            await self._retire(job, gate)

    async def _job(self, task_id: str) -> dict[str, Any]:
        """Describe a task; one that is over is retired."""
        if task_id in self._retired:
            return self._retired[task_id]
        try:
            job = await self._run(lambda provider: provider.job(task_id))
        except NotFoundError:
            use = await self._noted(task_id)
            if use is None:
                raise
            return documents.retired_job(use, self.qpu.backend)
        document = documents.job(job, self.qpu.s3_bucket)
        gate = document["session_id"]
        if gate is not None and documents.is_over(job):
            self._gateway.later(self._retire_later(job, gate))
        return document

    async def _list(self, query: Mapping[str, str]) -> WrittenAnswer:
        """List a session's tasks, the newest first."""
        gate = query.get("session_id", "")
        jobs = await self._run(lambda provider: provider.jobs(gate))
        found = {job.id: documents.job(job, self.qpu.s3_bucket) for job in jobs}
        for use in await self._gateway.pools.systems.run(self._gateway.journal.history.tasks, gate):
            if use.task_id not in found:
                known = self._retired.get(use.task_id)
                found[use.task_id] = known or documents.retired_job(use, self.qpu.backend)
        tags = {value for name, value in query.items() if name.removesuffix("[]") == "tags"}
        listed = [job for job in found.values() if tags <= {*job["tags"]} and _has(job, query.get("pending"))]
        ascending = query.get("sort", "").upper() == "ASC"
        listed.sort(key=lambda job: job["created"], reverse=not ascending)
        offset, limit = int(query.get("offset", "0")), int(query.get("limit", "200"))
        page = listed[offset : offset + limit]
        return WrittenAnswer.of({"jobs": page, "count": len(listed), "limit": limit, "offset": offset})

    async def _result(self, task_id: str) -> WrittenAnswer:
        document = await self._job(task_id)
        if document["status"] != "Completed":
            return WrittenAnswer(204)
        gate = document["session_id"]
        pieces = await self._run(lambda provider: provider.retired_result(gate, task_id))
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
        document = await self._job(task_id)
        if document["status"] == "Running":
            return WrittenAnswer(204)
        gate = document["session_id"]
        text = await self._run(lambda provider: provider.retired_logs(gate, task_id))
        return WrittenAnswer(200, text.encode(), "text/plain; charset=utf-8")

    async def _cancel(self, task_id: str) -> WrittenAnswer:
        document = await self._job(task_id)
        if document["status"] != "Running":
            return documents.refusal(
                _GONE, f"Job {task_id} is in a final state.", "Nothing is left to cancel."
            )
        await self._run(lambda provider: provider.cancel_task(task_id))
        return WrittenAnswer(204)

    async def _delete(self, task_id: str) -> WrittenAnswer:
        """Have the service forget a task that is over; the end of the lease deletes its data."""
        job = await self._run(lambda provider: provider.job(task_id))
        document = documents.job(job, self.qpu.s3_bucket)
        if not documents.is_over(job):
            return documents.refusal(400, f"Job {task_id} has not ended.", "Cancel it first.")
        await self._retire(job, document["session_id"])
        return WrittenAnswer(204)

    # Sessions.

    async def _session(self, gate: str) -> WrittenAnswer:
        use = await self._gateway.pools.systems.run(self._gateway.journal.history.session, gate)
        return WrittenAnswer.of(documents.session(gate, self.qpu.backend, use))

    async def _workloads(self, query: Mapping[str, str]) -> WrittenAnswer:
        gate = query.get("search", "")
        use = await self._gateway.pools.systems.run(self._gateway.journal.history.session, gate)
        found = [] if use is None else [documents.workload(gate, self.qpu.backend, use)]
        return WrittenAnswer.of({"workloads": found, "total_count": len(found), "limit": 1})

    async def _has_ended(self, gate: str) -> bool:
        use = await self._gateway.pools.systems.run(self._gateway.journal.history.session, gate)
        return use is None or use.ended_at is not None

    # What the above is made of.

    def _backends(self, provider: QuantumSystem, headers: Mapping[str, str]) -> WrittenAnswer:
        version = headers.get("IBM-API-Version", "")
        return documents.backends(
            self.qpu.backend, provider.status(), provider.configuration(), provider.properties(), version
        )

    async def _noted(self, task_id: str) -> TaskUse | None:
        return await self._gateway.pools.systems.run(self._gateway.journal.history.task, task_id)

    async def _run(self, ask: Callable[[QuantumSystem], T], deadline: Deadline | None = None) -> T:
        """Ask the provider, in a thread."""

        def run() -> T:
            until = deadline or Deadline.after(READ)
            provider = self._gateway.connections.connect(self.qpu.access(), deadline=until)
            # Here, since it needs packages that a gateway for the cloud alone does without.
            from qpu_slurm.providers.ibm_system.service import QuantumSystem  # noqa: PLC0415

            if not isinstance(provider, QuantumSystem):
                raise TypeError(f"{self.qpu.name} is reached by {type(provider).__name__}")
            return ask(provider)

        return await self._gateway.pools.systems.run(run)


def on_premises(qpu: QpuConfig, gateway: Gateway) -> SystemUpstream | None:
    """Return the upstream of a QPU on the premises; None for any other."""
    return SystemUpstream(qpu, gateway) if isinstance(qpu, QuantumSystemQpu) else None


def _closed() -> WrittenAnswer:
    return documents.refusal(400, "Session has been closed.", code=_SESSION_CLOSED)


def _has(job: dict[str, Any], pending: str | None) -> bool:
    """Tell whether a task is pending, if that is asked for, or over, if that is."""
    return pending is None or (job["status"] == "Running") == (pending.lower() == "true")
