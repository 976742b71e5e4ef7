# SPDX-License-Identifier: Apache-2.0
"""What the client in C (plugin/client) asks for hooks and steps, in text and not in JSON; see `messages`."""

from __future__ import annotations

from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING

import msgspec
from aiohttp import web

from qpu_slurm.errors import RequestError
from qpu_slurm.gateway import messages
from qpu_slurm.gateway.jobs import JOBS, NotHereError
from qpu_slurm.gateway.messages import StepStart
from qpu_slurm.gateway.routes.control import JOB, is_there, job_of, need_slurm, note_start, signed_text
from qpu_slurm.slurm.job import HookJob

if TYPE_CHECKING:
    from qpu_slurm.gateway.gateway import Gateway

ROUTES = web.RouteTableDef()


@ROUTES.post(f"{JOB}/start")
@signed_text
async def start(request: web.Request, gateway: Gateway, body: bytes, uid: int) -> web.Response:
    """Open the sessions of a job that is about to start: PrologSlurmctld."""
    job = _hook(request, gateway, body, uid)
    arrived, there = request["arrived"], partial(is_there, request)
    if await request.app[JOBS].start(job, arrived=arrived, is_there=there):
        return web.Response(text="")
    return web.Response(status=HTTPStatus.CONFLICT, text="The job must not start.\n")


@ROUTES.post(f"{JOB}/end")
@signed_text
async def end(request: web.Request, gateway: Gateway, body: bytes, uid: int) -> web.Response:
    """Close the sessions of a job that has ended: EpilogSlurmctld."""
    await request.app[JOBS].end(_hook(request, gateway, body, uid))
    return web.Response(text="")


@ROUTES.post(f"{JOB}/variables")
@signed_text
async def variables(request: web.Request, gateway: Gateway, body: bytes, uid: int) -> web.Response:
    """Give a step the variables of its job's QPUs; with fields, write down that it starts."""
    fields, step = messages.read_fields(body), None
    if fields:
        fields["seconds_ago"] = fields.pop("ago", "")
        try:
            step = msgspec.convert(fields, StepStart, strict=False)
        except msgspec.ValidationError as error:
            raise RequestError(f"The gateway cannot read what starts: {error}.") from None
    leader, lines = await request.app[JOBS].variables(job_of(request), uid)
    if lines and step is not None:
        note_start(gateway, leader, step)
    if not lines:
        request["why"] = "the job has no QPU"
    return web.Response(text=lines)


def _hook(request: web.Request, gateway: Gateway, body: bytes, uid: int) -> HookJob:
    """Read a hook's environment, which only Slurm's own user has."""
    need_slurm(gateway, uid)
    if not request.app[JOBS].does_for(uid):
        raise NotHereError("The gateway runs as another user than the hook: it may not do the same in Slurm.")
    job = HookJob.from_environ(messages.read_fields(body))
    if job.job_id != job_of(request):
        raise RequestError("The environment is another job's.")
    return job
