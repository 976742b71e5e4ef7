# SPDX-License-Identifier: Apache-2.0
"""The shapes of the API's answers, as far as we read them; `providers.ibm.answers` says how."""

from __future__ import annotations

from typing import Final

import msgspec

from qpu_slurm.errors import ServiceError, sentences
from qpu_slurm.providers.base import Task, TaskStatus, TaskTimes, TaskUsage
from qpu_slurm.providers.gates import gate_among
from qpu_slurm.providers.ibm.answers import quote, time_of
from qpu_slurm.providers.ibm_system import keys

DUPLICATE: Final = 409
"""What a submission is answered with whose id is taken, and a cancellation of what is over."""

_STATUSES: Final = {
    # There is no other word for one that waits.
    "running": TaskStatus.RUNNING,
    "completed": TaskStatus.COMPLETED,
    "failed": TaskStatus.FAILED,
    "cancelled": TaskStatus.CANCELLED,
}

_NANO: Final = 1e-9


class Backend(msgspec.Struct):
    """GET /v1/backends/{name}, and an item of GET /v1/backends."""

    name: str
    status: str = ""
    message: str | None = None


class Backends(msgspec.Struct):
    """GET /v1/backends."""

    backends: list[Backend]


class LaneConfiguration(msgspec.Struct):
    """How many lanes there are for one kind of client."""

    lanes: int


class Lanes(msgspec.Struct):
    """GET /v1/backends/{name}/lanes: the centre's lanes; those of IBM's cloud are none of ours."""

    hpc_workload_manager: LaneConfiguration


class Place(msgspec.Struct):
    """Where one of a task's objects is."""

    presigned_url: str | None = None


class Places(msgspec.Struct):
    """Where a task's objects are."""

    input: Place | None = None
    results: Place | None = None
    logs: Place | None = None


class Usage(msgspec.Struct):
    """What a task has used of the QPU."""

    quantum_nanoseconds: int | None = None


class Job(msgspec.Struct):
    """GET /v1/jobs/{id}, and an item of GET /v1/jobs; the id is its submitter's."""

    id: str
    status: str
    program_id: str = ""
    timeout_secs: int | None = None
    backend: str = ""
    created_time: str | None = None
    end_time: str | None = None
    reason_message: str | None = None
    reason_solution: str | None = None
    storage: Places = msgspec.field(default_factory=Places)
    usage: Usage | None = None

    def key(self, part: keys.Part, bucket: str) -> str | None:
        """Return the name of one of its objects; None if that is in another bucket, or not told."""
        place: Place | None = getattr(self.storage, part)
        return None if place is None else keys.key_in(place.presigned_url or "", bucket)

    def tags(self, bucket: str) -> tuple[str, ...]:
        """Return what its submitter wrote on it, the gate that it went through among it."""
        return keys.tags_of(self.key("input", bucket) or "")


class Jobs(msgspec.Struct):
    """GET /v1/jobs."""

    jobs: list[Job]


def status_of(job: Job) -> TaskStatus | None:
    """Read what has become of a task; None for a state that we do not know."""
    return _STATUSES.get(job.status.lower())


def task_of(job: Job, bucket: str) -> Task:
    """Read a task.

    Raises:
        ServiceError: It is in a state that we do not know.
    """
    status = status_of(job)
    if status is None:
        raise ServiceError(f"Task {quote(job.id)} is in a state that is not known: {quote(job.status)!r}.")
    tags = job.tags(bucket)
    gate = gate_among(tags)
    return Task(
        id=job.id,
        status=status,
        reason=sentences(quote(job.reason_message or ""), quote(job.reason_solution or "")),
        session_id=gate,
        created_at=time_of(job.created_time),
        tags=tuple(tag for tag in tags if tag != gate),
    )


def usage_of(job: Job) -> TaskUsage:
    """Read what a task was, and what it has used."""
    return TaskUsage(
        id=job.id,
        status=status_of(job),
        seconds=_seconds(job) or 0.0,
        created_at=time_of(job.created_time),
        ended_at=time_of(job.end_time),
    )


def times_of(job: Job) -> TaskTimes:
    """Read where a task's time went: all that is told is the time that is paid for."""
    return TaskTimes(quantum=_seconds(job))


def _seconds(job: Job) -> float | None:
    nanoseconds = job.usage.quantum_nanoseconds if job.usage else None
    return None if nanoseconds is None else max(nanoseconds * _NANO, 0.0)
