# SPDX-License-Identifier: Apache-2.0
"""Sessions, and the listing of workloads, the only one in which they appear."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
from aiohttp import web

from qpu_slurm_devkit.emulator import answers
from qpu_slurm_devkit.emulator.answers import json_answer
from qpu_slurm_devkit.emulator.clock import timestamp
from qpu_slurm_devkit.emulator.routes.common import body, caller, many, moment, number
from qpu_slurm_devkit.emulator.service import SERVICE
from qpu_slurm_devkit.emulator.sessions import Session, SessionState
from qpu_slurm_devkit.emulator.tasks import Task, TaskStatus

if TYPE_CHECKING:
    from collections.abc import Callable

    from qpu_slurm_devkit.emulator.settings import Account

ROUTES = web.RouteTableDef()

_SESSION_STATUS = {
    SessionState.OPEN: "pending",
    SessionState.ACTIVE: "in_progress",
    SessionState.INACTIVE: "in_progress",
    SessionState.CLOSED: "completed",
}
_TASK_STATUS = {
    TaskStatus.QUEUED: "pending",
    TaskStatus.RUNNING: "in_progress",
    TaskStatus.COMPLETED: "completed",
    TaskStatus.CANCELLED: "canceled",
    TaskStatus.TOO_LONG: "canceled",
    TaskStatus.FAILED: "failed",
}


class SessionRequest(msgspec.Struct):
    """The body of `POST /sessions`; qrmi sends `backend_name` besides."""

    backend: str
    mode: Literal["dedicated", "batch"] = "dedicated"
    max_ttl: Annotated[float, msgspec.Meta(gt=0)] | None = None


class SessionUpdate(msgspec.Struct):
    """The body of `PATCH /sessions/{id}`."""

    accepting_jobs: bool


@ROUTES.post("/sessions")
async def open_session(request: web.Request) -> web.Response:
    """Open a session."""
    account = caller(request)
    service = request.app[SERVICE]
    wanted = await body(request, SessionRequest)
    if wanted.max_ttl is not None and wanted.max_ttl > service.settings.max_ttl:
        raise answers.invalid(f"max_ttl must be at most {service.settings.max_ttl}")
    session = service.open_session(account, wanted.backend, wanted.mode, wanted.max_ttl)
    return json_answer(session.document(service.clock.now()))


@ROUTES.get("/sessions/{id}")
async def show_session(request: web.Request) -> web.Response:
    """Show a session."""
    return json_answer(_session(request).document(request.app[SERVICE].clock.now()))


@ROUTES.patch("/sessions/{id}")
async def close_session(request: web.Request) -> web.Response:
    """Take no more tasks: closes the session when it has none left. Closed already is fine."""
    session = _session(request)
    update = await body(request, SessionUpdate)
    if not update.accepting_jobs:
        request.app[SERVICE].qpu(session.backend).close(session)
    elif not session.accepting_tasks:
        raise answers.session_closed()
    return web.Response(status=204)


@ROUTES.delete("/sessions/{id}/close")
async def cancel_session(request: web.Request) -> web.Response:
    """Close a session at once: what waits fails, what runs goes on."""
    session = _session(request)
    request.app[SERVICE].qpu(session.backend).end_session(session, "Session was cancelled by the user.")
    return web.Response(status=204)


@ROUTES.get("/workloads")
async def list_workloads(request: web.Request) -> web.Response:
    """List the instance's sessions, batches, and tasks outside of them (guess: not those within)."""
    account = caller(request)
    is_wanted = _filter(request)
    found = [workload for workload in _workloads(request, account) if is_wanted(workload)]
    found.sort(key=lambda workload: str(workload["created"]))
    if request.query.get("sort") == "-createdAt":
        found.reverse()
    limit = number(request, "limit", 10)
    # A cursor is the number of workloads before it (guess: the service's own are opaque).
    start = number(request, "next", 0)
    page: dict[str, Any] = {
        "workloads": found[start : start + limit],
        "total_count": len(found),
        "limit": limit,
    }
    if start + limit < len(found):
        page["next"] = {"href": f"{request.path}?next={start + limit}", "cursor": str(start + limit)}
    return json_answer(page)


def _session(request: web.Request) -> Session:
    return request.app[SERVICE].session(caller(request), request.match_info["id"])


def _workloads(request: web.Request, account: Account) -> list[dict[str, Any]]:
    """Describe everything that the instance ever did."""
    service = request.app[SERVICE]
    now = service.clock.now()
    sessions = [_session_workload(s, now) for s in service.sessions.values() if s.account.crn == account.crn]
    tasks = [
        _task_workload(task, now)
        for task in service.tasks.values()
        if task.account.crn == account.crn and task.session is None
    ]
    return sessions + tasks


def _session_workload(session: Session, now: float) -> dict[str, Any]:
    return {
        "id": session.id,
        "created": timestamp(session.opened_at),
        "ended": timestamp(session.closed_at),
        "backend": session.backend,
        "instance": session.account.crn,
        "user_id": f"IBMid-{session.account.name}",
        "accepting_jobs": session.accepting_tasks,
        "mode": "session" if session.dedicated else "batch",
        "status": _SESSION_STATUS[session.state],
        "status_reason": session.reason or None,
        "usage_seconds": round(session.locked_seconds(now), 3),
        "tags": [],
    }


def _task_workload(task: Task, now: float) -> dict[str, Any]:
    return {
        "id": task.id,
        "created": timestamp(task.queued_at),
        "ended": timestamp(task.done_at),
        "backend": task.backend,
        "instance": task.account.crn,
        "user_id": f"IBMid-{task.account.name}",
        "accepting_jobs": None,
        "mode": "job",
        "status": _TASK_STATUS[task.status],
        "status_reason": task.outcome.reason or None,
        "usage_seconds": round(task.seconds(now), 3),
        "tags": task.tags,
    }


def _filter(request: web.Request) -> Callable[[dict[str, Any]], bool]:
    """Make the query into a test of workloads."""
    exact = {name: request.query[name] for name in ("mode", "backend") if name in request.query}
    statuses, tags = many(request, "status"), set(many(request, "tags"))
    word = request.query.get("search", "")
    after, before = timestamp(moment(request, "created_after")), timestamp(moment(request, "created_before"))

    def is_wanted(workload: dict[str, Any]) -> bool:
        return (
            exact.items() <= workload.items()
            and (not statuses or workload["status"] in statuses)
            and tags <= set(workload["tags"])
            and any(word in text for text in (workload["id"], *workload["tags"]))
            and (after is None or workload["created"] >= after)
            and (before is None or workload["created"] <= before)
        )

    return is_wanted
