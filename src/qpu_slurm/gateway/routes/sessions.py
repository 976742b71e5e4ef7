# SPDX-License-Identifier: Apache-2.0
"""The lease's session, and the listing of workloads, in which sessions appear."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from aiohttp import web

from qpu_slurm.gateway.answers import json_answer
from qpu_slurm.gateway.gateway import GATEWAY
from qpu_slurm.gateway.routes.common import (
    client_headers,
    held,
    message,
    read_as,
    relay,
    same,
)

if TYPE_CHECKING:
    from qpu_slurm.gateway.holders import Holder

ROUTES = web.RouteTableDef()

_SESSION = "/sessions/{id:[A-Za-z0-9_-]{1,128}}"


class _Wanted(msgspec.Struct):
    """The body of `POST /sessions`; qrmi sends `backend_name` besides."""

    backend: str | None = None
    backend_name: str | None = None


class _Update(msgspec.Struct):
    """The body of `PATCH /sessions/{id}`."""

    accepting_jobs: bool


class _Workloads(msgspec.Struct):
    workloads: list[msgspec.Raw]


class _Workload(msgspec.Struct):
    id: str


@ROUTES.post("/sessions")
@held
async def open_session(request: web.Request, holder: Holder) -> web.StreamResponse:
    """Answer with the session that the lease holds already; nothing is created."""
    wanted = await message(request, _Wanted)
    for name in (wanted.backend, wanted.backend_name):
        same("backend", name or holder.qpu.backend, holder.qpu.backend)
    return await _show(request, holder, holder.session())


@ROUTES.get(_SESSION)
@held
async def show_session(request: web.Request, holder: Holder) -> web.StreamResponse:
    """Show the session."""
    return await _show(request, holder, _own(request, holder))


@ROUTES.patch(_SESSION)
@held
async def close_session(request: web.Request, holder: Holder) -> web.StreamResponse:
    """Have the session take no more tasks, or take them again."""
    session_id = _own(request, holder)
    # Written anew: nothing else in it is meant.
    body = msgspec.json.encode(await message(request, _Update))
    upstream = request.app[GATEWAY].upstream(holder.qpu.name)
    headers = client_headers(request)
    async with upstream.send("PATCH", "sessions", session_id, headers=headers, body=body) as answer:
        return await relay(request, answer)


@ROUTES.delete(f"{_SESSION}/close")
@held
async def cancel_session(request: web.Request, holder: Holder) -> web.StreamResponse:
    """Close the session at once."""
    session_id = _own(request, holder)
    upstream = request.app[GATEWAY].upstream(holder.qpu.name)
    headers = client_headers(request)
    async with upstream.send("DELETE", "sessions", session_id, "close", headers=headers) as answer:
        return await relay(request, answer)


@ROUTES.get("/workloads")
@held
async def list_workloads(request: web.Request, holder: Holder) -> web.StreamResponse:
    """List the session, if the client's filters take it."""
    session_id = holder.session()
    query = [
        (name, value) for name, value in request.query.items() if name not in {"search", "next", "previous"}
    ]
    upstream = request.app[GATEWAY].upstream(holder.qpu.name)
    headers = client_headers(request) | {"Accept-Encoding": "identity"}
    query.append(("search", session_id))
    async with upstream.send("GET", "workloads", query=query, headers=headers) as answer:
        found = (await read_as(answer, _Workloads)).workloads
    own = [item for item in found if msgspec.json.decode(item, type=_Workload).id == session_id]
    return json_answer({"workloads": own, "total_count": len(own), "limit": max(len(own), 1)})


async def _show(request: web.Request, holder: Holder, session_id: str) -> web.StreamResponse:
    upstream = request.app[GATEWAY].upstream(holder.qpu.name)
    async with upstream.send("GET", "sessions", session_id, headers=client_headers(request)) as answer:
        return await relay(request, answer)


def _own(request: web.Request, holder: Holder) -> str:
    """Return the session that a request names.

    Raises:
        ApiError: It is not the lease's.
    """
    own = holder.session()
    same("session", request.match_info["id"], own)
    return own
