# SPDX-License-Identifier: Apache-2.0
"""The lease's tasks, which IQM calls jobs."""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any, Final

import msgspec
from aiohttp import web

from qpu_slurm.errors import AnswerLostError, NotFoundError
from qpu_slurm.gateway.answers import ApiError, forbidden, json_answer, too_large
from qpu_slurm.gateway.gates.inputs import Slice
from qpu_slurm.gateway.gates.upstream import GateClosedError
from qpu_slurm.gateway.gateway import GATEWAY
from qpu_slurm.gateway.ibm.requests import read_as
from qpu_slurm.gateway.ibm.sessions import session_for_tasks
from qpu_slurm.gateway.iqm.dialect import IQM
from qpu_slurm.gateway.iqm.requests import held, own_gate, own_qpu
from qpu_slurm.gateway.relay import relay
from qpu_slurm.gateway.requests import pieces
from qpu_slurm.system.users import user_name

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qpu_slurm.gateway.callers import Caller

ROUTES = web.RouteTableDef()

JOB: Final = "/jobs/{id:[A-Za-z0-9_-]{1,128}}"

_DOCUMENT: Final = 1 << 20
"""Bytes that a task's description has at most."""

_LONGEST_TAG: Final = 50
_TAG: Final = "iqm-tag:"
"""What the tag begins with that a client gives a task; the tag at the server is the gate."""


class _Size(msgspec.Struct):
    """A submission, as the audit reads it."""

    size: int


@ROUTES.post("/jobs/{qc}/{type:circuit|run|sweep}")
@held
async def submit(request: web.Request, caller: Caller) -> web.StreamResponse:
    """Submit a batch of circuits."""
    gateway, server = request.app[GATEWAY], request.app[IQM].server(caller)
    request["submitter"] = await gateway.pools.short.run(user_name, caller.lease.user_id)
    own_qpu(request, caller)
    gateway.budgets.refuse_task(caller.lease)
    caller.may_execute()
    if request.match_info["type"] != "circuit":
        raise ApiError(
            400, f"Jobs of type {request.match_info['type']!r} are not let through.", "Submit circuits."
        )
    tag = request.query.get("tag", "")
    if len(tag) > _LONGEST_TAG:
        raise ApiError(400, f"A tag has {_LONGEST_TAG} characters at most.", "Shorten it.")
    tags = [*filter(None, [caller.lease.tag]), *([f"{_TAG}{tag}"] if tag else [])]
    program = "circuit:timeslot" if request.query.get("use_timeslot", "").lower() == "true" else "circuit"
    with _file() as file:
        size = await _receive(request, file)
        request["submission"] = _Size(size)
        gateway.callers.still(caller)  # it may have taken minutes
        gate, batch = await session_for_tasks(request, caller), Slice(file, 0, size)
        try:
            task_id = await server.tasks.while_open(
                gate, lambda: server.tasks.send_batch(program, batch, gate=gate, tags=tags)
            )
        except GateClosedError:
            raise forbidden(
                f"The task was cancelled: the job's hold on {caller.qpu.name} ended as it was submitted."
            ) from None
        except AnswerLostError as error:
            raise ApiError(502, error.message, "See the QPU's own dashboard.", kind="lost") from error
    request["task"] = task_id
    gateway.tasks.learn(caller.qpu.name, task_id, gate)
    gateway.metrics.tasks.labels(caller.qpu.name).inc()
    gateway.metrics.input_bytes.labels(caller.qpu.name).inc(size)
    return await _shown(request, caller, task_id)


@held
async def show(request: web.Request, caller: Caller) -> web.StreamResponse:
    """Show a task; a client may wait for its end."""
    task_id = request.match_info["id"]
    await own_gate(request, caller, task_id)
    return await _shown(request, caller, task_id)


@ROUTES.get(JOB + "/{what:payload}")
@ROUTES.get(JOB + "/{what:artifacts}/{artifact:[A-Za-z0-9_-]{1,64}}")
@held
async def read(request: web.Request, caller: Caller) -> web.StreamResponse:
    """Pass on what was submitted, or a part of the result."""
    task_id = request.match_info["id"]
    await own_gate(request, caller, task_id)
    parts = [request.match_info[name] for name in ("id", "what", "artifact") if name in request.match_info]
    async with request.app[IQM].server(caller).raw.send("GET", "jobs", *parts) as answer:
        return await relay(request, answer)


@held
async def cancel(request: web.Request, caller: Caller) -> web.StreamResponse:
    """Cancel a task."""
    task_id = request.match_info["id"]
    await own_gate(request, caller, task_id)
    async with request.app[IQM].server(caller).raw.send("POST", "jobs", task_id, "cancel") as answer:
        return await relay(request, answer)


@held
async def delete(request: web.Request, caller: Caller) -> web.StreamResponse:
    """Cancel a task, if need be, and have the server forget it once the journal knows what it used."""
    task_id = request.match_info["id"]
    gate = await own_gate(request, caller, task_id)
    tasks = request.app[IQM].server(caller).tasks
    await tasks.run(lambda provider: provider.cancel_task(task_id))
    await tasks.delete(task_id, gate)
    return web.Response(status=204)


async def _shown(request: web.Request, caller: Caller, task_id: str) -> web.StreamResponse:
    """Answer with a task as the server describes it, with the tag that its submitter gave it."""
    server = request.app[IQM].server(caller)
    wait = [
        (name, value)
        for name, value in request.query.items()
        if name in {"wait_until_terminal", "timeout_seconds"}
    ]
    async with server.raw.send("GET", "jobs", task_id, query=wait) as answer:
        if not answer.ok:
            return await relay(request, answer)
        document = await read_as(answer, dict[str, Any], _DOCUMENT)
        timed_out = answer.headers.get("IQM-Long-Poll-Timed-Out")
    try:
        _, entry = await server.tasks.look_up(task_id) if document.get("tag") else (None, None)
    except NotFoundError:
        entry = None
    tags = entry.tags if entry else ()
    document["tag"] = next((tag.removeprefix(_TAG) for tag in tags if tag.startswith(_TAG)), None)
    shown = json_answer(document)
    if timed_out is not None:
        shown.headers["IQM-Long-Poll-Timed-Out"] = timed_out
    return shown


async def _receive(request: web.Request, file: IO[bytes]) -> int:
    """Keep a submission in a file; return its size.

    Raises:
        ApiError: It is too large, or does not arrive.
    """
    limit, size = request.app[GATEWAY].settings.max_body, 0
    if (request.content_length or 0) > limit:
        raise too_large(limit)
    async for piece in pieces(request):
        size += len(piece)
        if size > limit:
            raise too_large(limit)
        await request.app[GATEWAY].pools.systems.run(file.write, piece)
    return size


@contextmanager
def _file() -> Iterator[IO[bytes]]:
    with tempfile.TemporaryFile(prefix="qpu-slurm-") as file:
        yield file
