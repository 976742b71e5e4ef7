# SPDX-License-Identifier: Apache-2.0
"""What Slurm's hooks and steps ask for, each request signed with MUNGE; see `messages`."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import msgspec
import structlog
from aiohttp import web

from qpu_slurm import munge
from qpu_slurm.errors import QpuSlurmError, Refused, UserMistake
from qpu_slurm.gateway import messages
from qpu_slurm.gateway.answers import ApiError
from qpu_slurm.gateway.gateway import GATEWAY
from qpu_slurm.gateway.routes.common import small_body
from qpu_slurm.gateway.usage import account_for
from qpu_slurm.leases.model import LeaseRequest

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from qpu_slurm.gateway.gateway import Gateway

    Answer = Callable[[web.Request, Gateway, bytes, int], Awaitable[object]]

T = TypeVar("T")

ROUTES = web.RouteTableDef()

_JOB = "/jobs/{job:[0-9]{1,10}}"
_UNAUTHORIZED = 401
_TOO_LONG = 256

_log = structlog.get_logger(__name__)


def signed(handler: Answer) -> Callable[[web.Request], Awaitable[web.Response]]:
    """Tell the handler who asks, and answer with what it returns, or with what it raises."""

    async def serve(request: web.Request) -> web.Response:
        gateway = request.app[GATEWAY]
        try:
            body = await small_body(request)
            uid = await _caller(request, gateway, body)
            request["user_id"] = uid
            answer = messages.encode(await handler(request, gateway, body, uid))
        except munge.Unproven as error:
            return _refuse(request, gateway, _UNAUTHORIZED, error)
        except ApiError as error:
            return _refuse(request, gateway, error.status, UserMistake(error.message))
        except QpuSlurmError as error:
            return _refuse(request, gateway, messages.error_answer(error)[0], error)
        return web.Response(body=answer, content_type="application/json")

    return serve


@ROUTES.post("/leases")
@signed
async def acquire(_: web.Request, gateway: Gateway, body: bytes, uid: int) -> object:
    """Open the sessions of a job that is about to start."""
    _need_slurm(gateway, uid)
    try:
        wanted = messages.decode(body, LeaseRequest)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise UserMistake(f"The gateway does not understand what is asked for: {error}.") from None
    return await gateway.apart(gateway.broker.acquire, wanted)


@ROUTES.delete(f"{_JOB}/leases")
@signed
async def release(request: web.Request, gateway: Gateway, _: bytes, uid: int) -> object:
    """End what a job holds."""
    _need_slurm(gateway, uid)
    reason = request.query.get("reason", "")[:_TOO_LONG]
    run, others = request.query.get("run", "")[:_TOO_LONG], bool(request.query.get("others"))
    leases = await gateway.apart(gateway.broker.release, _job(request), reason, run=run, others=others)
    account_for(gateway, leases)
    return leases


@ROUTES.get(f"{_JOB}/keys")
@signed
async def keys(request: web.Request, gateway: Gateway, _: bytes, uid: int) -> object:
    """Give a job's keys to its user, or to Slurm."""
    job_id = _job(request)
    holders = gateway.holders.of_job(job_id)
    if uid not in gateway.trusted and any(holder.lease.user_id != uid for holder in holders):
        raise Refused(f"Job {job_id} is not a job of user {uid}.")
    return {holder.qpu.name: gateway.keys.key(holder.lease).reveal() for holder in holders}


async def _caller(request: web.Request, gateway: Gateway, body: bytes) -> int:
    """Tell who signed a request.

    Raises:
        Unproven: Nobody, or something else.
        Unavailable: MUNGE does not work here.
    """
    scheme, _, credential = request.headers.get("Authorization", "").partition(" ")
    if scheme != messages.SCHEME:
        raise munge.Invalid(f"The request shows no {messages.SCHEME} credential.")
    socket = gateway.config.slurm.munge_socket
    caller = await gateway.aside(munge.decode, credential.strip(), socket=socket)
    if caller.payload != messages.binding(request.method, request.raw_path, body):
        request["user_id"] = caller.uid
        raise munge.Invalid("The MUNGE credential was made for another request.")
    return caller.uid


def _need_slurm(gateway: Gateway, uid: int) -> None:
    if uid not in gateway.trusted:
        raise Refused(f"Only Slurm's own user and root may do this; user {uid} may not.")


def _job(request: web.Request) -> int:
    return int(request.match_info["job"])


def _refuse(request: web.Request, gateway: Gateway, status: int, error: QpuSlurmError) -> web.Response:
    kind = type(error).__name__
    gateway.metrics.errors.labels(kind).inc()
    request["why"] = str(error)
    _, body = messages.error_answer(error)
    return web.Response(status=status, body=body, content_type="application/json")
