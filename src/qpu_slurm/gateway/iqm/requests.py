# SPDX-License-Identifier: Apache-2.0
"""What the routes of IQM's dialect share: they find the caller, its QPU and its task."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qpu_slurm.gateway.answers import unauthorized
from qpu_slurm.gateway.gateway import GATEWAY
from qpu_slurm.gateway.iqm import answers
from qpu_slurm.gateway.iqm.dialect import IQM
from qpu_slurm.gateway.requests import ANSWER, begin

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aiohttp import web

    from qpu_slurm.gateway.callers import Caller

    Handler = Callable[[web.Request, Caller], Awaitable[web.StreamResponse]]


def held(handler: Handler) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """Restrict a route to jobs that hold the QPU, and to a number of requests at once."""

    async def serve(request: web.Request) -> web.StreamResponse:
        request[ANSWER] = answers.answer
        gateway = request.app[GATEWAY]
        caller = gateway.callers.of_key(token_of(request))
        request.app[IQM].server(caller)
        request["caller"] = caller
        begin(request, caller.lease.user_id)
        with gateway.requests.one(caller.lease.id):
            return await handler(request, caller)

    return serve


def token_of(request: web.Request) -> str:
    """Return a request's token.

    Raises:
        ApiError: It has none.
    """
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise unauthorized("The request has no token.")
    return token.strip()


def shows_job_key(request: web.Request) -> bool:
    """Whether a request shows a job key. IBM's clients show a token that they were given for it."""
    token = request.headers.get("Authorization", "").partition(" ")[2].strip()
    return request.app[GATEWAY].keys.lease_id(token) is not None


def own_qpu(request: web.Request, caller: Caller) -> str:
    """Return the server's alias of the QPU that a request is about.

    Raises:
        ApiError: It is not the job's.
    """
    asked = request.match_info["qc"]
    # QRMI makes an alias of the QPU's name, and reads its last `_` as `:`.
    if asked not in {caller.qpu.backend, caller.qpu.name, ":".join(caller.qpu.name.rsplit("_", 1))}:
        raise answers.no_qpu(asked, caller.qpu.backend)
    return caller.qpu.backend


async def own_gate(request: web.Request, caller: Caller, task_id: str) -> str:
    """Return the gate that one of the job's tasks went through.

    Raises:
        ApiError: It is none of the job's.
    """
    qpu, gateway = caller.qpu.name, request.app[GATEWAY]
    gate = gateway.tasks.session(qpu, task_id)
    if gate is None:
        gate = await request.app[IQM].server(caller).tasks.gate_of(task_id, caller.sessions)
        if gate is not None:
            gateway.tasks.learn(qpu, task_id, gate)
    if gate is None or gate not in caller.sessions:
        raise answers.no_job(task_id)
    return gate
