# SPDX-License-Identifier: Apache-2.0
"""The shapes of the API's answers, as far as we read them; `providers.ibm.answers` says how."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from qpu_slurm.errors import ServiceError
from qpu_slurm.providers.base import QpuStatus, Task, TaskStatus, TaskTimes, TaskUsage
from qpu_slurm.providers.ibm.answers import quote, time_of

Id = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-fA-F-]{36}\Z")]
"""A job's id; it becomes part of URLs."""

_STATUSES: Final = {
    "waiting": TaskStatus.QUEUED,
    "processing": TaskStatus.RUNNING,
    "completed": TaskStatus.COMPLETED,
    "failed": TaskStatus.FAILED,
    "cancelled": TaskStatus.CANCELLED,
}

_STARTED: Final = frozenset({"execution_started"})
_RAN: Final = frozenset({"execution_ended"})


class Listed(msgspec.Struct):
    """An item of GET /quantum-computers."""

    alias: str
    id: str = ""


class Listing(msgspec.Struct):
    """GET /quantum-computers."""

    quantum_computers: list[Listed]


class Health(msgspec.Struct):
    """GET /quantum-computers/{qc}/health."""

    healthy: bool


class Details(msgspec.Struct):
    """GET /quantum-computers/{qc}."""

    operational: str | None = None
    health: Health | None = None
    queue_length: int | None = None


class Limits(msgspec.Struct):
    """GET /quantum-computers/{qc}/limits."""

    max_shots_per_circuit: int | None = None


class CalibrationSet(msgspec.Struct):
    """GET /calibration-sets/{qc}/{set}, without what was observed."""

    end_timestamp: str | None = None
    created_timestamp: str | None = None


class Event(msgspec.Struct):
    """A step of a job's way."""

    status: str
    timestamp: str
    source: str = ""


class Said(msgspec.Struct):
    """A message, or an error."""

    message: str = ""
    source: str = ""


class Job(msgspec.Struct):
    """GET /jobs/{id}."""

    id: Id
    status: str
    tag: str | None = None
    queue_position: int | None = None
    runtime_ms: float | None = None
    timeline: list[Event] = []
    messages: list[Said] = []
    errors: list[Said] | None = None


def status_of(job: Job) -> TaskStatus | None:
    """Read what has become of a task; None for a state that we do not know."""
    return _STATUSES.get(job.status.lower())


def qpu_status(details: Details) -> QpuStatus:
    """Read how a QPU is; the server gives no reason beyond a word."""
    word = (details.operational or "online").lower()
    healthy = details.health is None or details.health.healthy
    reason = f"IQM Server says: {quote(word)}." if word != "online" else "IQM Server says: not healthy."
    online = word == "online" and healthy
    return QpuStatus(
        online=online, reason="" if online else reason, queue_length=max(details.queue_length or 0, 0)
    )


def task_of(job: Job, gate: str | None, tags: tuple[str, ...]) -> Task:
    """Read a task.

    Raises:
        ServiceError: It is in a state that we do not know.
    """
    status = status_of(job)
    if status is None:
        raise ServiceError(f"Task {job.id} is in a state that is not known: {quote(job.status)!r}.")
    return Task(
        id=job.id,
        status=status,
        reason=quote(" ".join(error.message for error in job.errors or ())),
        session_id=gate,
        created_at=time_of(job.timeline[0].timestamp) if job.timeline else None,
        tags=tags,
    )


def usage_of(job: Job) -> TaskUsage:
    """Read what a task was, and how long it ran."""
    status = status_of(job)
    created = time_of(job.timeline[0].timestamp) if job.timeline else None
    started = next((time_of(it.timestamp) for it in job.timeline if it.status in _STARTED), None)
    ended = next((time_of(it.timestamp) for it in job.timeline if it.status in _RAN), None)
    last = time_of(job.timeline[-1].timestamp) if job.timeline else None
    seconds = None if job.runtime_ms is None else job.runtime_ms / 1000
    if seconds is None and started is not None and ended is not None:
        seconds = (ended - started).total_seconds()
    over = status is not None and status.final
    return TaskUsage(
        id=job.id,
        status=status,
        seconds=max(seconds or 0.0, 0.0),
        created_at=created,
        started_at=started,
        ended_at=(ended or last) if over else None,
    )


def times_of(job: Job) -> TaskTimes:
    """Read where a task's time went, as far as the timeline tells."""
    used = usage_of(job)
    queued = None
    if used.created_at is not None and used.started_at is not None:
        queued = max((used.started_at - used.created_at).total_seconds(), 0.0)
    over = used.status is not None and used.status.final
    return TaskTimes(
        queued=queued,
        running=used.seconds if over else None,
        quantum=used.seconds if over else None,
        position=None if job.queue_position is None else job.queue_position + 1,
    )


def log_of(job: Job) -> str:
    """Write a task's way and what the server said of it as a log."""
    lines = [f"{event.timestamp} {event.source}: {event.status}" for event in job.timeline]
    lines += [f"{said.source}: {said.message}" for said in (*job.messages, *(job.errors or ()))]
    return "".join(f"{quote(line)}\n" for line in lines)
