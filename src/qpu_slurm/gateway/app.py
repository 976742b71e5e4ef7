# SPDX-License-Identifier: Apache-2.0
"""The web application: every route, and what happens to every request on its way there."""

from __future__ import annotations

import asyncio
import itertools
import time
from typing import TYPE_CHECKING, NoReturn

import structlog
from aiohttp import web

from qpu_slurm.errors import JournalError, QpuSlurmError
from qpu_slurm.gateway import messages
from qpu_slurm.gateway.answers import ApiError, CutOffError, of_error, unavailable
from qpu_slurm.gateway.gateway import GATEWAY, Gateway
from qpu_slurm.gateway.ibm import answers as ibm_answers
from qpu_slurm.gateway.ibm.dialect import IBM, IbmDialect
from qpu_slurm.gateway.ibm.routes import ROUTES as IBM_ROUTES
from qpu_slurm.gateway.ibm.upstream import in_the_cloud
from qpu_slurm.gateway.ibm_system.upstream import on_premises
from qpu_slurm.gateway.iqm.dialect import IQM, IqmDialect
from qpu_slurm.gateway.iqm.routes import ROUTES as IQM_ROUTES
from qpu_slurm.gateway.iqm.upstream import behind_iqm
from qpu_slurm.gateway.jobs import JOBS, Jobs
from qpu_slurm.gateway.requests import ANSWER, described
from qpu_slurm.gateway.routes import budgets, control, history, jobs, qpus, watch
from qpu_slurm.system import logs

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from aiohttp.typedefs import Handler

_ROUTES = (
    ("", watch.ROUTES),
    *((messages.PREFIX, part.ROUTES) for part in (control, jobs, history, qpus, budgets)),
    *IQM_ROUTES,
    *IBM_ROUTES,
)
"""Prefixes, and what is below them."""

_FORBIDDEN = 403
_REFUSED = (401, _FORBIDDEN)
_FAILED = 500
_CLIENT_GONE = 499

_LONGEST_PATH = 256

_HEALTH = frozenset(("/healthz", "/healthz/live"))
_WATCHED = _HEALTH | {"/metrics"}
"""What monitoring asks all the time."""

_numbers = itertools.count(1)
"""Joins the lines of the log that are about the same request."""

_log = structlog.get_logger(__name__)


def build(gateway: Gateway) -> web.Application:
    """Build the application."""
    app = web.Application(middlewares=[_accompany, _answer_errors])
    app[GATEWAY] = gateway
    app[JOBS] = Jobs(gateway)
    app[IBM] = dialect = IbmDialect(gateway, (in_the_cloud, on_premises, behind_iqm))
    app[IQM] = of_iqm = IqmDialect(gateway)
    gateway.dialects += (dialect, of_iqm)
    for prefix, routes in _ROUTES:
        app.router.add_routes(_below(prefix, routes))
    app.cleanup_ctx.append(_life)
    return app


def _below(prefix: str, routes: web.RouteTableDef) -> list[web.RouteDef]:
    """Put routes below a prefix."""
    return [
        web.route(route.method, prefix + route.path, route.handler, **route.kwargs)
        for route in routes
        if isinstance(route, web.RouteDef)
    ]


async def _life(app: web.Application) -> AsyncIterator[None]:
    await app[GATEWAY].start()
    yield
    await app[JOBS].stop()
    await app[GATEWAY].stop()


@web.middleware
async def _accompany(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Log a request, and measure it."""
    begin = time.perf_counter()
    status = _FAILED
    request["number"] = next(_numbers)
    limiter = request.app[GATEWAY].limiter
    limiter.begin(request.protocol)
    try:
        response = await handler(request)
    except ConnectionResetError:
        status = _CLIENT_GONE
        raise
    else:
        status = response.status
        if limiter.last_answer(request.protocol):
            response.force_close()
        return response
    finally:
        limiter.done(request.protocol)
        seconds = time.perf_counter() - begin
        resource = request.match_info.route.resource
        route = resource.canonical if resource else "none"
        request.app[GATEWAY].metrics.requests.labels(request.method, route).observe(seconds)
        _write_down(request, status, seconds)


def _write_down(request: web.Request, status: int, seconds: float) -> None:
    """Log a request, and what came of it."""
    fields = {**described(request), "status": status, "ms": round(seconds * 1000, 2)}
    if "submitter" in request:
        _audit_submission(request, status, fields)
    elif status in _REFUSED:
        logs.audit("refused", severity="warning", **fields)
    elif request.path in _WATCHED:
        _log.debug("request", **fields)
    else:
        _log.info("request", **fields)


def _audit_submission(request: web.Request, status: int, fields: Mapping[str, object]) -> None:
    """Log each submission for auditors, with its user and its outcome."""
    submission, lease = request.get("submission"), request["caller"].lease
    taken = status in range(200, 300)
    logs.audit(
        "task submitted" if taken else "task refused",
        severity="info" if taken else "warning",
        **fields,
        user=request["submitter"],
        account=lease.account,
        session_id=lease.session_id,
        task=request.get("task", ""),
        bytes=0 if submission is None else submission.size,
    )


@web.middleware
async def _answer_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer errors in the shape of the service's API."""
    try:
        if request.headers.get("Content-Encoding", "identity").lower() != "identity":
            # A request that cannot be checked cannot be passed on.
            _refuse_encoding()
        if request.app[GATEWAY].limiter.kept_for_slurm(request.protocol) and not _has_a_place(request):
            _refuse_connection()
        return await handler(request)
    except CutOffError:
        request["why"] = "the service's answer was lost"
        if request.transport is not None:
            request.transport.abort()
        return web.Response(status=502)
    except (ConnectionError, asyncio.CancelledError):
        raise
    except Exception as error:  # noqa: BLE001 - a mistake of ours is logged, and looks like one of the service
        told = _told(request, error)
        request["why"] = told.message
        metrics = request.app[GATEWAY].metrics
        metrics.errors.labels(told.kind).inc()
        if told.limit:
            metrics.limits.labels(told.limit).inc()
        write: Callable[[ApiError], web.Response] = request.get(ANSWER, ibm_answers.answer)
        return write(told)


def _refuse_encoding() -> NoReturn:
    raise ApiError(415, "Compressed requests are not accepted.", "Send it without Content-Encoding.")


def _has_a_place(request: web.Request) -> bool:
    """Tell whether a reserved connection may carry a request. A full gateway is well: nothing restarts it."""
    return request.path.startswith(messages.PREFIX) or request.path in _HEALTH


def _refuse_connection() -> NoReturn:
    why = "The gateway has reached its limit of connections."
    raise ApiError(503, why, "Try again later.", kind="busy", retry_after=2)


def _told(request: web.Request, error: Exception) -> ApiError:
    """Return the answer for an error."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, web.HTTPException):
        # Not found, or not with this method: the gateway has no such route.
        return ApiError(error.status, f"{error.reason}: {request.method} {request.path[:_LONGEST_PATH]}.")
    if isinstance(error, JournalError):
        _log.error("the journal cannot be used", why=str(error))
        return unavailable("The gateway cannot read its journal now.")
    if isinstance(error, QpuSlurmError):
        return of_error(error)
    _log.error("a request could not be answered", path=request.path, exc_info=error)
    return ApiError(500, "Internal error.", "See the gateway's log.", kind="internal")
