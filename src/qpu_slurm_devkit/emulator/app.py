# SPDX-License-Identifier: Apache-2.0
"""The web application: every route, and what happens to every request on its way there."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import time
from typing import TYPE_CHECKING

from aiohttp import web

from qpu_slurm_devkit.emulator import answers
from qpu_slurm_devkit.emulator.faults import Drop, Fault
from qpu_slurm_devkit.emulator.iqm import answers as iqm_answers
from qpu_slurm_devkit.emulator.record import RequestRecord
from qpu_slurm_devkit.emulator.routes import backends, cloud, control, iqm, sessions, system, tasks
from qpu_slurm_devkit.emulator.service import SERVICE, Service
from qpu_slurm_devkit.emulator.system import answers as system_answers
from qpu_slurm_devkit.emulator.system.storage import PREFIX as STORAGE_PREFIX
from qpu_slurm_devkit.emulator.system.storage import StorageError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from aiohttp.typedefs import Handler

# The runtime client leaves a URL as it is only if `experimental` stands in it.
API_PREFIXES = ("/api/v1", "/experimental/api/v1")
CONTROL_PREFIX = "/emulator"

_MAX_BODY = 2**30

_IQM_HANDLERS = frozenset(route.handler for route in iqm.ROUTES if isinstance(route, web.RouteDef))

_LOG = logging.getLogger(__name__)


def build(service: Service) -> web.Application:
    """Build the application."""
    app = web.Application(client_max_size=_MAX_BODY, middlewares=[_accompany, _answer_errors])
    app[SERVICE] = service
    app.router.add_routes(cloud.ROUTES)
    # Before IBM's, which take any id of a job.
    app.router.add_routes(_below(iqm.PREFIX, iqm.ROUTES))
    for prefix in API_PREFIXES:
        for routes in (backends.ROUTES, sessions.ROUTES, tasks.ROUTES):
            app.router.add_routes(_below(prefix, routes))
    app.router.add_routes(_below(system.PREFIX, system.ROUTES))
    app.router.add_routes(system.STORAGE_ROUTES)
    app.router.add_routes(_below(CONTROL_PREFIX, control.ROUTES))
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
    """Warm up while the server starts; leave no process behind when it ends."""
    service = app[SERVICE]
    service.simulator.start()
    yield
    service.reset()
    service.simulator.stop()


@web.middleware
async def _accompany(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Let happen to a request what was injected, and write the request down."""
    service = request.app[SERVICE]
    if request.path.startswith(f"{CONTROL_PREFIX}/"):
        if not ipaddress.ip_address(request.remote or "::").is_loopback:
            raise web.HTTPForbidden
        return await handler(request)
    arrived = service.clock.now()
    begin = time.monotonic()
    path = request.path
    for prefix in API_PREFIXES:
        path = path.removeprefix(prefix)
    fault = service.faults.next(request.method, path, await _account(request, service))
    status = 0
    try:
        response = await (handler(request) if fault is None else _suffer(fault, request, handler))
        status = 0 if request.transport is None or request.transport.is_closing() else response.status
        return response
    finally:
        service.record.requests.append(
            RequestRecord(
                time=arrived,
                method=request.method,
                path=path,
                query=request.query_string,
                status=status,
                seconds=time.monotonic() - begin,
                account=request.get("account", ""),
                fault="" if fault is None else str(fault),
            )
        )


async def _account(request: web.Request, service: Service) -> str:
    """Name the account that a request says it is of, before anybody has checked it; empty if it says none."""
    crn, api_key = request.headers.get("Service-CRN"), None
    if crn is None and request.path == "/identity/token":
        api_key = (await request.post()).get("apikey")
    elif crn is None:
        api_key = request.headers.get("Authorization", "").removeprefix("Bearer ")
    accounts = service.settings.accounts
    return next((one.name for one in accounts if one.crn == crn or one.api_key == api_key), "")


async def _suffer(fault: Fault, request: web.Request, handler: Handler) -> web.StreamResponse:
    """Handle a request that a fault happens to."""
    # All of it is here first, as behind a slow network: a client that still sends would miss the answer, and
    # one that gives up has asked nevertheless.
    await request.read()
    await asyncio.sleep(fault.delay)
    if fault.drop is Drop.BEFORE:
        return _cut(request)
    if fault.status is not None:
        return _refusal(fault, request)
    response = await handler(request)
    await asyncio.sleep(fault.late)
    return _cut(request) if fault.drop is Drop.AFTER else response


def _refusal(fault: Fault, request: web.Request) -> web.Response:
    """Answer with a fault's status."""
    status = fault.status or 500
    if fault.body is not None:
        response = web.Response(status=status, text=fault.body)
    else:
        response = _error(request, status, "Injected fault.", "Clear the emulator's faults.")
    if fault.retry_after is not None:
        response.headers["Retry-After"] = fault.retry_after
    return response


def _cut(request: web.Request) -> web.Response:
    """Cut the connection; the response returned is never sent."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response()


@web.middleware
async def _answer_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer errors in the service's shape."""
    try:
        return await handler(request)
    except answers.ApiError as error:
        return _in_the_shape_of(request, error)
    except StorageError as error:
        return error.answer()
    except web.HTTPException as error:
        return _error(request, error.status, error.reason, "Check the request's URL and method.")
    except Exception:  # noqa: BLE001 (a mistake of ours is logged, and looks like one of the service)
        _LOG.exception("a request could not be answered: %s %s", request.method, request.path)
        return _error(request, 500, "Internal error.", "See the emulator's log.")


def _error(request: web.Request, status: int, message: str, solution: str) -> web.Response:
    """Answer with an error that is none of the service's own."""
    if request.match_info.handler in _IQM_HANDLERS:
        return iqm_answers.answer(status, "internal_error", message)
    if request.path.startswith(f"{STORAGE_PREFIX}/"):
        return StorageError(status, "InternalError", message).answer()
    return _in_the_shape_of(request, answers.ApiError(status, 1000, message, solution))


def _in_the_shape_of(request: web.Request, error: answers.ApiError) -> web.Response:
    """Write an error as the API does that a request is for."""
    if request.path.startswith(f"{system.PREFIX}/"):
        return system_answers.answer(error)
    return error.answer()
