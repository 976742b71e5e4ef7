# SPDX-License-Identifier: Apache-2.0
"""The lease's session, and the listing of workloads, in which sessions appear."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from aiohttp import web

from qpu_slurm.gateway.answers import json_answer
from qpu_slurm.gateway.gateway import GATEWAY
from qpu_slurm.gateway.ibm.answers import session_closed
from qpu_slurm.gateway.ibm.clients import client_headers
from qpu_slurm.gateway.ibm.dialect import IBM
from qpu_slurm.gateway.ibm.requests import held, message, own, read_as
from qpu_slurm.gateway.jobs import JOBS
from qpu_slurm.gateway.relay import copy, relay
from qpu_slurm.gateway.requests import SMALL

if TYPE_CHECKING:
    from qpu_slurm.gateway.callers import Caller
    from qpu_slurm.gateway.relay import Copy
    from qpu_slurm.gateway.upstream import Answer

ROUTES = web.RouteTableDef()

_SESSION = "/sessions/{id:[A-Za-z0-9_-]{1,128}}"


class _Wanted(msgspec.Struct):
    """The body of `POST /sessions`. qrmi also sends `backend_name`."""

    backend: str | None = None
    backend_name: str | None = None


class _Update(msgspec.Struct):
    """The body of `PATCH /sessions/{id}`."""

    accepting_jobs: bool


class _Session(msgspec.Struct):
    state: str = ""
    accepting_jobs: bool | None = None


class _Workloads(msgspec.Struct):
    workloads: list[msgspec.Raw]


class _Workload(msgspec.Struct):
    id: str


@ROUTES.post("/sessions")
@held
async def open_session(request: web.Request, caller: Caller) -> web.StreamResponse:
    """Answer with the lease's session. Open one if there is none, or if it takes no more tasks.

    Repeated and simultaneous requests get the same session.
    """
    wanted = await message(request, _Wanted)
    for name in (wanted.backend, wanted.backend_name):
        own("backend", name or caller.qpu.backend, caller.qpu.backend)
    caller.may_execute()
    document = await _document_if_open(request, caller)
    if document is not None:
        return document.response()
    return await _show(request, caller, await _open(request, caller))


async def session_for_tasks(request: web.Request, caller: Caller) -> str:
    """Return the session that takes the lease's tasks; open one if there is none.

    Raises:
        ApiError: The lease may have no session.
        QpuSlurmError: No session can be opened.
    """
    caller.may_execute()
    session_id = caller.lease.session_id
    if session_id is not None and await _document_if_open(request, caller) is not None:
        return session_id
    return await _open(request, caller)


async def _open(request: web.Request, caller: Caller) -> str:
    """Open a session for a lease."""
    gateway = request.app[GATEWAY]
    gateway.sessions.one(caller.lease.id)
    places = request.app[JOBS].places(caller.lease.job_id)
    lease = await gateway.pools.sessions.run(gateway.broker.open_session, caller.lease.id, places)
    return lease.session_id or ""


@ROUTES.get(_SESSION)
@held
async def show_session(request: web.Request, caller: Caller) -> web.StreamResponse:
    """Show the session."""
    return await _show(request, caller, _own(request, caller))


@ROUTES.patch(_SESSION)
@held
async def close_session(request: web.Request, caller: Caller) -> web.StreamResponse:
    """Have the session take no more tasks, or take them again."""
    session_id = _own(request, caller)
    update = await message(request, _Update)
    if update.accepting_jobs and session_id != caller.lease.session_id:
        # The release at the job's end would not know that it is open again.
        raise session_closed()
    # Built here, so that it has nothing else in it.
    body = msgspec.json.encode(update)
    upstream = request.app[IBM].upstream(caller.qpu.name)
    headers = client_headers(request)
    async with upstream.send("PATCH", "sessions", session_id, headers=headers, body=body) as answer:
        if not update.accepting_jobs:
            await _part(request, caller, session_id, answer)
        return await relay(request, answer)


@ROUTES.delete(f"{_SESSION}/close")
@held
async def cancel_session(request: web.Request, caller: Caller) -> web.StreamResponse:
    """Close the session at once."""
    session_id = _own(request, caller)
    upstream = request.app[IBM].upstream(caller.qpu.name)
    headers = client_headers(request)
    async with upstream.send("DELETE", "sessions", session_id, "close", headers=headers) as answer:
        await _part(request, caller, session_id, answer)
        return await relay(request, answer)


@ROUTES.get("/workloads")
@held
async def list_workloads(request: web.Request, caller: Caller) -> web.StreamResponse:
    """List the lease's sessions that match the client's filters."""
    caller.may_execute()
    query = [
        (name, value) for name, value in request.query.items() if name not in {"search", "next", "previous"}
    ]
    upstream = request.app[IBM].upstream(caller.qpu.name)
    headers = client_headers(request) | {"Accept-Encoding": "identity"}
    listed = []
    for session_id in reversed(caller.sessions):
        search = [*query, ("search", session_id)]
        async with upstream.send("GET", "workloads", query=search, headers=headers) as answer:
            found = (await read_as(answer, _Workloads)).workloads
        listed += [item for item in found if msgspec.json.decode(item, type=_Workload).id == session_id]
    return json_answer({"workloads": listed, "total_count": len(listed), "limit": max(len(listed), 1)})


async def _document_if_open(request: web.Request, caller: Caller) -> Copy | None:
    """Ask the service for the lease's session; return its answer if the session takes tasks."""
    if caller.lease.session_id is None:
        return None
    upstream = request.app[IBM].upstream(caller.qpu.name)
    headers = client_headers(request) | {"Accept-Encoding": "identity"}
    async with upstream.send("GET", "sessions", caller.lease.session_id, headers=headers) as answer:
        found = await copy(answer, SMALL)
    try:
        session = msgspec.json.decode(found.body, type=_Session)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    takes_tasks = found.ok and session.state != "closed" and session.accepting_jobs is not False
    return found if takes_tasks else None


async def _part(request: web.Request, caller: Caller, session_id: str, answer: Answer) -> None:
    """Record that the job closed a session, if the service confirms it."""
    if answer.status in range(200, 300):
        gateway = request.app[GATEWAY]
        why = "The job has closed its session."
        await gateway.pools.sessions.run(gateway.journal.part, caller.lease.id, session_id, why)


async def _show(request: web.Request, caller: Caller, session_id: str) -> web.StreamResponse:
    upstream = request.app[IBM].upstream(caller.qpu.name)
    async with upstream.send("GET", "sessions", session_id, headers=client_headers(request)) as answer:
        return await relay(request, answer)


def _own(request: web.Request, caller: Caller) -> str:
    """Return the session that a request names.

    Raises:
        ApiError: It is not one of the lease's.
    """
    caller.newest()
    session_id = request.match_info["id"]
    own("session", session_id, *caller.sessions)
    return session_id
