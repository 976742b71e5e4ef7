# SPDX-License-Identifier: Apache-2.0
"""Tasks, which the service calls jobs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from aiohttp import web

from qpu_slurm_devkit.emulator import answers
from qpu_slurm_devkit.emulator.answers import json_answer
from qpu_slurm_devkit.emulator.routes.common import body, caller, flag, many, moment, number
from qpu_slurm_devkit.emulator.service import SERVICE
from qpu_slurm_devkit.emulator.tasks import NOT_EMULATED, PROGRAMS, Task, TaskRequest, TaskStatus

if TYPE_CHECKING:
    from collections.abc import Callable

ROUTES = web.RouteTableDef()


class Tags(msgspec.Struct):
    """The body of `PUT /jobs/{id}/tags`."""

    tags: tuple[str, ...]


@ROUTES.post("/jobs")
async def submit(request: web.Request) -> web.Response:
    """Take a task. Whether its input can be executed shows when it is."""
    account = caller(request)
    wanted = await body(request, TaskRequest)
    if wanted.program_id in NOT_EMULATED:
        raise answers.not_emulated(wanted.program_id)
    if wanted.program_id not in PROGRAMS:
        raise answers.no_program(wanted.program_id)
    if bytes(memoryview(wanted.params)[:1]) != b"{":
        raise answers.invalid("params must be an object")
    task = request.app[SERVICE].submit(account, wanted)
    document = {"id": task.id, "backend": task.backend}
    if task.session_id is not None:
        document["session_id"] = task.session_id
    return json_answer(document)


@ROUTES.get("/jobs")
async def list_tasks(request: web.Request) -> web.Response:
    """List the instance's tasks, the newest first."""
    account = caller(request)
    service = request.app[SERVICE]
    is_wanted = _filter(request)
    found = [task for task in service.tasks.values() if task.account.crn == account.crn and is_wanted(task)]
    found.sort(key=lambda task: task.queued_at, reverse=request.query.get("sort", "DESC").upper() != "ASC")
    limit, offset = number(request, "limit", 200), number(request, "offset", 0)
    params = flag(request, "exclude_params") is False
    now = service.clock.now()
    return json_answer(
        {
            "jobs": [task.document(now, params=params) for task in found[offset : offset + limit]],
            "count": len(found),
            "limit": limit,
            "offset": offset,
        }
    )


@ROUTES.get("/jobs/{id}")
async def show(request: web.Request) -> web.Response:
    """Show a task, with its input unless that is excluded."""
    task = _task(request)
    return json_answer(
        task.document(request.app[SERVICE].clock.now(), params=not flag(request, "exclude_params"))
    )


@ROUTES.get("/jobs/{id}/results")
async def results(request: web.Request) -> web.StreamResponse:
    """Send a completed task's result: as plain text, since qrmi takes nothing else, and in pieces."""
    task = _task(request)
    if task.status is not TaskStatus.COMPLETED or not task.result.exists():
        return web.Response(status=204)
    if task.private:
        # The service keeps the results of a private task until they are read once.
        text = task.result.read_bytes()
        task.result.unlink()
        return web.Response(body=text, headers={"Content-Type": "text/plain; charset=utf-8"})
    return web.FileResponse(task.result, headers={"Content-Type": "text/plain; charset=utf-8"})


@ROUTES.get("/jobs/{id}/logs")
async def logs(request: web.Request) -> web.Response:
    """Send what the execution had to say, once it is over."""
    task = _task(request)
    if task.status.pending:
        return web.Response(status=204)
    return web.Response(text=task.outcome.log)


@ROUTES.get("/jobs/{id}/metrics")
async def metrics(request: web.Request) -> web.Response:
    """Tell a task's times and usage."""
    task = _task(request)
    service = request.app[SERVICE]
    return json_answer(task.metrics(service.clock.now(), service.qpu(task.backend).position(task)))


@ROUTES.post("/jobs/{id}/cancel")
async def cancel(request: web.Request) -> web.Response:
    """Cancel a task."""
    task = _task(request)
    if not task.status.pending:
        raise answers.task_is_over(task.id)
    request.app[SERVICE].qpu(task.backend).cancel(task)
    return web.Response(status=204)


@ROUTES.put("/jobs/{id}/tags")
async def set_tags(request: web.Request) -> web.Response:
    """Write other tags on a task."""
    task = _task(request)
    task.tags = (await body(request, Tags)).tags
    return web.Response(status=204)


@ROUTES.delete("/jobs/{id}")
async def delete(request: web.Request) -> web.Response:
    """Forget a task that is over."""
    task = _task(request)
    if task.status.pending:
        raise answers.task_is_pending(task.id)
    request.app[SERVICE].delete(task)
    return web.Response(status=204)


def _task(request: web.Request) -> Task:
    return request.app[SERVICE].task(caller(request), request.match_info["id"])


def _filter(request: web.Request) -> Callable[[Task], bool]:
    """Make the query into a test of tasks."""
    names = {"backend": "backend", "program": "program_id", "session_id": "session_id"}
    exact = {names[name]: text for name, text in request.query.items() if name in names}
    tags = set(many(request, "tags"))
    pending = flag(request, "pending")
    after, before = moment(request, "created_after"), moment(request, "created_before")

    def is_wanted(task: Task) -> bool:
        return (
            all(getattr(task, name) == text for name, text in exact.items())
            and (pending is None or task.status.pending is pending)
            and tags <= set(task.tags)
            and (after is None or task.queued_at >= after)
            and (before is None or task.queued_at <= before)
        )

    return is_wanted
