# SPDX-License-Identifier: Apache-2.0
"""The routes for Slurm's hooks and steps. MUNGE signs each request; see `messages`."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, TypeVar, cast

import msgspec
import structlog
from aiohttp import web

from qpu_slurm.errors import JournalError, QpuSlurmError, RefusedError, RequestError, UnavailableError
from qpu_slurm.gateway import messages
from qpu_slurm.gateway.answers import ApiError
from qpu_slurm.gateway.gateway import GATEWAY
from qpu_slurm.gateway.jobs import JOBS, NotHereError
from qpu_slurm.gateway.messages import JobKey, StepEnd, StepStart
from qpu_slurm.gateway.requests import begin, small_body
from qpu_slurm.journal.model import LeaseRequest, Refusal
from qpu_slurm.names import STEP
from qpu_slurm.system import munge

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from qpu_slurm.gateway.gateway import Gateway
    from qpu_slurm.gateway.pools import Pool
    from qpu_slurm.journal.model import Lease

    Answer = Callable[[web.Request, Gateway, bytes, int], Awaitable[object]]
    TextAnswer = Callable[[web.Request, Gateway, bytes, int], Awaitable[web.Response]]

T = TypeVar("T")

ROUTES = web.RouteTableDef()

JOB = "/jobs/{job:[0-9]{1,10}}"
_UNAUTHORIZED, _NOT_IMPLEMENTED = 401, 501
_TOO_LONG = 256

_MAX_STEPS = 40_000
"""How many steps of a job are recorded: Slurm's default limit (MaxStepCount). Otherwise a user could fill the
journal with made-up steps."""

_log = structlog.get_logger(__name__)


def signed(handler: Answer) -> Callable[[web.Request], Awaitable[web.Response]]:
    """Pass the user to a handler, and answer with its result, or its error, as JSON."""

    async def answer(request: web.Request, gateway: Gateway, body: bytes, uid: int) -> web.Response:
        found = messages.encode(await handler(request, gateway, body, uid))
        return web.Response(body=found, content_type="application/json")

    def refuse(status: int, error: QpuSlurmError) -> web.Response:
        _, body = messages.error_answer(error)
        return web.Response(status=status, body=body, content_type="application/json")

    return _signed(answer, refuse)


def signed_text(handler: TextAnswer) -> Callable[[web.Request], Awaitable[web.Response]]:
    """Pass the user to a handler, and answer with its text, or with a line for its error."""

    def refuse(status: int, error: QpuSlurmError) -> web.Response:
        if isinstance(error, NotHereError):
            # No text: the client goes on with the Python command.
            return web.Response(status=_NOT_IMPLEMENTED, content_type="application/json")
        return web.Response(status=status, text=messages.text_error(error))

    return _signed(handler, refuse)


def _signed(
    handler: TextAnswer, refuse: Callable[[int, QpuSlurmError], web.Response]
) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def serve(request: web.Request) -> web.Response:
        gateway = request.app[GATEWAY]
        request["arrived"] = time.monotonic()
        try:
            body = await small_body(request)
            uid = await _signer(request, gateway, body)
            request["user_id"] = uid
            begin(request, uid)
            return await handler(request, gateway, body, uid)
        except munge.UnprovenError as error:
            status, failure = _UNAUTHORIZED, cast("QpuSlurmError", error)
        except ApiError as error:
            kind = UnavailableError if error.temporary else RequestError
            status, failure = error.status, kind(error.message)
            if error.limit:
                gateway.metrics.limits.labels(error.limit).inc()
        except QpuSlurmError as error:
            status, failure = messages.error_answer(error)[0], error
        gateway.metrics.errors.labels(type(failure).__name__).inc()
        request["why"] = str(failure)
        return refuse(status, failure)

    return serve


@ROUTES.post("/leases")
@signed
async def acquire(request: web.Request, gateway: Gateway, body: bytes, uid: int) -> object:
    """Open the sessions of a job that is about to start."""
    need_slurm(gateway, uid)
    wanted = _read(body, LeaseRequest)
    request.app[JOBS].forget(wanted.job_id)
    return await gateway.starts.acquire(
        gateway.broker,
        wanted,
        arrived=request["arrived"],
        seconds=gateway.config.outage.acquire_timeout,
        is_there=partial(is_there, request),
    )


@ROUTES.delete(f"{JOB}/leases")
@signed
async def release(request: web.Request, gateway: Gateway, _: bytes, uid: int) -> object:
    """End what a job holds."""
    need_slurm(gateway, uid)
    reason = request.query.get("reason", "")[:_TOO_LONG]
    run, others = request.query.get("run", "")[:_TOO_LONG], bool(request.query.get("others"))
    end = partial(gateway.starts.release, gateway.broker, job_of(request), reason, run=run, others=others)
    leases = await gateway.pools.release.run(end)
    gateway.ended.set()
    return leases


@ROUTES.post("/refusals")
@signed
async def refuse(request: web.Request, gateway: Gateway, body: bytes, uid: int) -> object:
    """Record that a job was refused."""
    need_slurm(gateway, uid)
    refusal = _read(body, Refusal)
    request.app[JOBS].forget(refusal.job_id)
    return await gateway.pools.release.run(gateway.broker.refuse, refusal)


@ROUTES.get(f"{JOB}/keys")
@signed
async def keys(request: web.Request, gateway: Gateway, _: bytes, uid: int) -> object:
    """Return a job's keys to its user, or to Slurm."""
    return _keys(gateway, job_of(request), uid)


@ROUTES.post(f"{JOB}/steps")
@signed
async def step_started(request: web.Request, gateway: Gateway, body: bytes, uid: int) -> object:
    """Record that a step starts, and return the job's keys."""
    start = _read(body, StepStart)
    job_id = job_of(request)
    keys = _keys(gateway, job_id, uid)
    if keys:
        note_start(gateway, job_id, start)
    return keys


@ROUTES.delete(f"{JOB}/steps/{{step:{STEP.pattern}}}")
@signed
async def step_ended(request: web.Request, gateway: Gateway, _: bytes, uid: int) -> object:
    """Record that a step has ended."""
    try:
        end = msgspec.convert(dict(request.query), StepEnd, strict=False)
    except msgspec.ValidationError as error:
        raise RequestError(f"The gateway cannot read when the step ended: {error}.") from None
    job_id, step = job_of(request), request.match_info["step"]
    if end.cancel and not end.cancel.startswith(f"{job_id}.{step}."):
        raise RequestError("The mark is another step's.")
    leader = await request.app[JOBS].leader(job_id)
    lease = gateway.callers.of_late(leader)
    if lease is not None:
        _need_user(gateway, leader, uid, lease)
        write = gateway.background.history.step_ended
        _later(gateway, gateway.pools.steps, partial(write, leader, step, _time(end.ago)))
        if end.cancel:
            cancel = partial(request.app[JOBS].cancel, leader, end.cancel)
            _later(gateway, gateway.pools.background, cancel)
    return None


def note_start(gateway: Gateway, job_id: int, start: StepStart) -> None:
    """Have it written down that a step of a job starts."""
    if not start.step.isdigit() or int(start.step) < _MAX_STEPS:
        write = gateway.background.history.step_started
        _later(
            gateway,
            gateway.pools.steps,
            partial(write, job_id, start.step, start.name, _time(start.seconds_ago)),
        )


def is_there(request: web.Request) -> bool:
    """Tell whether a client still waits for its answer."""
    transport = request.transport
    return transport is not None and not transport.is_closing()


def _keys(gateway: Gateway, job_id: int, uid: int) -> messages.Keys:
    callers = gateway.callers.of_job(job_id)
    _need_user(gateway, job_id, uid, *(caller.lease for caller in callers))
    return {
        caller.qpu.name: JobKey(key=gateway.keys.key(caller.lease), session_id=caller.lease.session_id)
        for caller in callers
    }


def _time(seconds_ago: float) -> datetime:
    return datetime.now(UTC) - timedelta(seconds=seconds_ago)


def _later(gateway: Gateway, pool: Pool, what: Callable[[], None]) -> None:
    """Do something for which no step waits: a journal or a service that is away fails none."""

    async def done() -> None:
        try:
            await pool.run(what)
        except JournalError as error:
            _log.warning("a step is not in the journal", why=str(error))
        except QpuSlurmError as error:
            _log.warning("the tasks that a step has left are not cancelled", why=str(error))

    gateway.later(done())


async def _signer(request: web.Request, gateway: Gateway, body: bytes) -> int:
    """Return the user who signed a request.

    Raises:
        UnprovenError: The request has no MUNGE credential, or that of another request.
        UnavailableError: MUNGE does not work here.
    """
    scheme, _, credential = request.headers.get("Authorization", "").partition(" ")
    if scheme != messages.SCHEME:
        raise munge.InvalidError(f"The request shows no {messages.SCHEME} credential.")
    socket = gateway.config.slurm.munge_socket
    decoded = await gateway.pools.short.run(munge.decode, credential.strip(), socket=socket)
    if decoded.payload != messages.binding(request.method, request.raw_path, body):
        request["user_id"] = decoded.uid
        raise munge.InvalidError("The MUNGE credential was made for another request.")
    return decoded.uid


def _read(body: bytes, type_: type[T]) -> T:
    try:
        return messages.decode(body, type_)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise RequestError(f"The gateway cannot read this request: {error}.") from None


def need_slurm(gateway: Gateway, uid: int) -> None:
    """Refuse users other than SlurmUser and root."""
    if uid not in gateway.trusted:
        raise RefusedError(f"Only Slurm's own user and root may do this; user {uid} may not.")


def _need_user(gateway: Gateway, job_id: int, uid: int, *leases: Lease) -> None:
    if uid not in gateway.trusted and any(lease.user_id != uid for lease in leases):
        raise RefusedError(f"Job {job_id} belongs to another user.")


def job_of(request: web.Request) -> int:
    """Return the job in a path."""
    return int(request.match_info["job"])
