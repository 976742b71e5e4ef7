# SPDX-License-Identifier: Apache-2.0
"""The emulator's own endpoint, `/emulator/…`: its record, faults on demand, its clock.

It needs no credential and shows none; it answers to this machine only, wherever the API listens.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from aiohttp import web

from qpu_slurm_devkit.emulator import answers
from qpu_slurm_devkit.emulator.answers import json_answer
from qpu_slurm_devkit.emulator.faults import Fault
from qpu_slurm_devkit.emulator.listener import LISTENER
from qpu_slurm_devkit.emulator.machine import Availability
from qpu_slurm_devkit.emulator.routes.common import body
from qpu_slurm_devkit.emulator.service import SERVICE
from qpu_slurm_devkit.emulator.tasks import Outcome, TaskStatus

ROUTES = web.RouteTableDef()


class BackendUpdate(msgspec.Struct, forbid_unknown_fields=True):
    """The body of `PUT /emulator/backends/{name}`."""

    status: Availability
    message: str = ""


class Calibration(msgspec.Struct, forbid_unknown_fields=True):
    """The body of `POST /emulator/backends/{name}/calibrate`."""

    at: str


class Closing(msgspec.Struct, forbid_unknown_fields=True):
    """The body of `POST /emulator/sessions/{id}/close`."""

    reason: str = "Session was closed by the service."


class Absence(msgspec.Struct, forbid_unknown_fields=True):
    """The body of `POST /emulator/refuse`."""

    seconds: Annotated[float, msgspec.Meta(ge=0)]


class Step(msgspec.Struct, forbid_unknown_fields=True):
    """The body of `POST /emulator/advance`."""

    seconds: Annotated[float, msgspec.Meta(ge=0)]


@ROUTES.get("/events")
async def events(request: web.Request) -> web.Response:
    """List what happened, the oldest first."""
    return json_answer(request.app[SERVICE].record.events)


@ROUTES.get("/requests")
async def requests(request: web.Request) -> web.Response:
    """List the requests, the oldest first."""
    return json_answer(request.app[SERVICE].record.requests)


@ROUTES.get("/sessions")
async def sessions(request: web.Request) -> web.Response:
    """List every account's sessions."""
    service = request.app[SERVICE]
    now = service.clock.now()
    return json_answer([session.record(now) for session in service.sessions.values()])


@ROUTES.post("/sessions/{id}/close")
async def close_session(request: web.Request) -> web.Response:
    """Close a session as the service does of its own accord."""
    service = request.app[SERVICE]
    session = service.sessions.get(request.match_info["id"])
    if session is None:
        raise answers.no_session(request.match_info["id"])
    service.qpu(session.backend).end_session(session, (await body(request, Closing)).reason)
    return _done()


@ROUTES.post("/tasks/{id}/cancel")
async def cancel_task(request: web.Request) -> web.Response:
    """Cancel a task as the service does of its own accord."""
    service = request.app[SERVICE]
    task = next((task for task in service.all_tasks() if task.id == request.match_info["id"]), None)
    if task is None:
        raise answers.no_task(request.match_info["id"])
    if not task.status.pending:
        raise answers.task_is_over(task.id)
    outcome = Outcome(status=TaskStatus.CANCELLED, reason="Cancelled by the service.")
    service.any_qpu(task.backend).cancel(task, outcome)
    return _done()


@ROUTES.get("/tasks")
async def tasks(request: web.Request) -> web.Response:
    """List every account's tasks, of all APIs."""
    return json_answer([task.record() for task in request.app[SERVICE].all_tasks()])


@ROUTES.get("/accounts")
async def accounts(request: web.Request) -> web.Response:
    """List the accounts, without their keys."""
    known: list[dict[str, Any]] = [
        {"name": account.name, "crn": account.crn, "plan": account.plan}
        for account in request.app[SERVICE].settings.accounts
    ]
    return json_answer(known)


@ROUTES.put("/backends/{name}")
async def set_backend(request: web.Request) -> web.Response:
    """Put a QPU into maintenance, or back to work."""
    update = await body(request, BackendUpdate)
    qpu = request.app[SERVICE].any_qpu(request.match_info["name"])
    qpu.backend.set_status(update.status, update.message)
    qpu.proceed()
    return _done()


@ROUTES.post("/backends/{name}/calibrate")
async def calibrate(request: web.Request) -> web.Response:
    """Say when a QPU was calibrated last."""
    at = (await body(request, Calibration)).at
    request.app[SERVICE].any_qpu(request.match_info["name"]).backend.calibrate(at)
    return _done()


@ROUTES.post("/faults")
async def inject(request: web.Request) -> web.Response:
    """Have something go wrong."""
    request.app[SERVICE].faults.inject(await body(request, Fault))
    return _done()


@ROUTES.get("/faults")
async def faults(request: web.Request) -> web.Response:
    """List what is to go wrong yet."""
    return json_answer(request.app[SERVICE].faults.waiting())


@ROUTES.delete("/faults")
async def clear_faults(request: web.Request) -> web.Response:
    """Have nothing go wrong any more."""
    request.app[SERVICE].faults.clear()
    return _done()


@ROUTES.post("/refuse")
async def refuse(request: web.Request) -> web.Response:
    """Refuse connections for a while, this endpoint's too."""
    seconds = (await body(request, Absence)).seconds
    await request.app[LISTENER].refuse(seconds, request.transport)
    response = _done()
    response.force_close()
    return response


@ROUTES.post("/reset")
async def reset(request: web.Request) -> web.Response:
    """Be as new."""
    request.app[SERVICE].reset()
    return _done()


@ROUTES.post("/advance")
async def advance(request: web.Request) -> web.Response:
    """Move the clock forward."""
    await request.app[SERVICE].clock.advance((await body(request, Step)).seconds)
    return _done()


def _done() -> web.Response:
    return web.Response(status=204)
