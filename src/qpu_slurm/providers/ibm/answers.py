# SPDX-License-Identifier: Apache-2.0
"""The shapes of the service's answers, as far as we read them, and the errors made of the others.

Every answer is hostile: it is read up to a limit, checked, and quoted with nothing in it that could forge a
line of a log or of a terminal. Fields that we do not know are passed over; those that may be missing or null
in one of the API's versions are optional here.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import msgspec
from urllib3.exceptions import HTTPError

from qpu_slurm.errors import (
    BudgetSpentError,
    NotFoundError,
    RefusedError,
    ServiceError,
    UnavailableError,
)
from qpu_slurm.providers.base import QpuStatus, TaskStatus, TaskTimes, Traits

if TYPE_CHECKING:
    from collections.abc import Callable

    from urllib3 import BaseHTTPResponse

T = TypeVar("T")

MAX_BYTES = 16 << 20
"""More than any answer has that is not a result."""

_CHUNK = 1 << 16
_NOTHING = msgspec.Raw(b"null")
_QUOTED = 400

_STATUSES = {
    "queued": TaskStatus.QUEUED,
    "running": TaskStatus.RUNNING,
    "completed": TaskStatus.COMPLETED,
    "failed": TaskStatus.FAILED,
    "cancelled": TaskStatus.CANCELLED,
    "cancelled - ran too long": TaskStatus.CANCELLED,
}

_TOO_EARLY_OR_MANY = (408, 425, 429)
"""Statuses below 500 that say: later."""

Id = Annotated[str, msgspec.Meta(pattern=r"\A[A-Za-z0-9._~-]{1,128}\Z")]
"""What the service calls its things; it becomes part of URLs, variables and Slurm's records."""


class Token(msgspec.Struct):
    """IAM's answer to an API key; `expires_in` is in seconds."""

    access_token: Annotated[str, msgspec.Meta(pattern=r"\A[\x21-\x7e]+\Z")]
    expires_in: float = 0


class BackendStatus(msgspec.Struct):
    """GET /backends/{name}/status."""

    state: bool = False
    status: str = ""
    message: str | None = None
    length_queue: int = 0


class DeviceStatus(msgspec.Struct):
    """What GET /backends says of whether a QPU takes tasks."""

    name: str = ""
    reason: str | None = None


class Device(msgspec.Struct):
    """A QPU as GET /backends lists it; what it is like is read by `traits_of`."""

    name: str
    status: DeviceStatus = msgspec.field(default_factory=DeviceStatus)
    queue_length: int | None = None
    qubits: msgspec.Raw = _NOTHING
    is_simulator: msgspec.Raw = _NOTHING
    clops: msgspec.Raw = _NOTHING
    processor_type: msgspec.Raw = _NOTHING
    performance_metrics: msgspec.Raw = _NOTHING


class _Value(msgspec.Struct):
    """A number with more about it: `clops`, and each of `performance_metrics`."""

    value: float | None = None


class _Processor(msgspec.Struct):
    """`processor_type`."""

    family: Annotated[str, msgspec.Meta(pattern=r"\A[A-Za-z0-9_ .-]{1,32}\Z")]
    revision: Annotated[str, msgspec.Meta(pattern=r"\A[A-Za-z0-9_.-]{0,16}\Z")] | float | None = None


class _Metrics(msgspec.Struct):
    """`performance_metrics`: errors of two-qubit gates, in a layer of them and the least of all."""

    two_q_error_layered: _Value | None = None
    two_q_error_best: _Value | None = None


class Backends(msgspec.Struct):
    """GET /backends."""

    devices: list[Device] = []


class SessionDocument(msgspec.Struct):
    """POST /sessions and GET /sessions/{id}; `backend_name` may be null as long as the session is open."""

    id: Id
    backend_name: str | None = None
    state: str = ""
    accepting_jobs: bool | None = None
    started_at: str | None = None
    max_ttl: float | None = None


class StateChange(msgspec.Struct):
    """When a session came into a state; an item of `timestamps`."""

    status: str = ""
    timestamp: str | None = None


class UsedSession(SessionDocument):
    """GET /sessions/{id}, with what it was used for; `elapsed_time` is how long it was active."""

    elapsed_time: float | None = None
    timestamps: list[StateChange] | None = None


class Workload(msgspec.Struct):
    """An item of GET /workloads; jobs have no `accepting_jobs`."""

    id: Id
    created: str
    backend: str = ""
    mode: str = ""
    status: str = ""
    accepting_jobs: bool | None = None


class Cursor(msgspec.Struct):
    """Where the next page is: a URL with the parameter `next`."""

    href: str = ""


class Workloads(msgspec.Struct):
    """GET /workloads."""

    workloads: list[Workload]
    next: Cursor | None = None


class JobState(msgspec.Struct):
    """How a job (our task) is; `reason_solution` is the service's advice."""

    status: str = ""
    reason: str | None = None
    reason_solution: str | None = None


class Job(msgspec.Struct):
    """GET /jobs/{id}, an item of GET /jobs, and the answer to POST /jobs (where only the id is sure)."""

    id: Id
    status: str = ""
    state: JobState = msgspec.field(default_factory=JobState)
    session_id: str | None = None
    created: str | None = None
    tags: list[str] | None = None


class Jobs(msgspec.Struct):
    """GET /jobs."""

    jobs: list[Job]


class Usage(msgspec.Struct):
    """What a job has used of the QPU, in an item of GET /jobs."""

    seconds: float | None = None


class UsedJob(Job):
    """An item of GET /jobs, with what it has used; `ended` may be missing."""

    ended: str | None = None
    usage: Usage | None = None


class UsedJobs(msgspec.Struct):
    """GET /jobs, likewise."""

    jobs: list[UsedJob]


class Timestamps(msgspec.Struct):
    """A job's times."""

    created: str | None = None
    running: str | None = None
    finished: str | None = None


class MetricsUsage(msgspec.Struct):
    """What a job's metrics say that it has used."""

    quantum_seconds: float | None = None


class JobMetrics(msgspec.Struct):
    """GET /jobs/{id}/metrics; all of it may be missing."""

    timestamps: Timestamps | None = None
    usage: MetricsUsage | None = None
    position_in_queue: int | None = None


class Properties(msgspec.Struct):
    """GET /backends/{name}/properties, as far as it tells when the QPU was calibrated."""

    last_update_date: str


class _Error(msgspec.Struct):
    code: int | str | None = None
    message: str | None = None
    solution: str | None = None


class _Errors(msgspec.Struct):
    """What the service says no with; after that, IAM's own shape, and that of IQM Server."""

    errors: list[_Error] = []
    errorCode: str | None = None  # noqa: N815 - IAM's name
    errorMessage: str | None = None  # noqa: N815 - IAM's name
    message: str | None = None


def reading(type_: type[T]) -> Callable[[BaseHTTPResponse], T]:
    """Return what reads an answer as JSON of a type."""
    return lambda response: msgspec.json.decode(read(response), type=type_)


def read(response: BaseHTTPResponse) -> bytes:
    """Read an answer's body.

    Raises:
        urllib3.exceptions.HTTPError: The connection broke.
        msgspec.DecodeError: It is larger than any answer should be.
    """
    body = read_some(response, MAX_BYTES + 1)
    if len(body) > MAX_BYTES:
        raise msgspec.DecodeError(f"it is larger than {MAX_BYTES} bytes")
    return body


def read_some(response: BaseHTTPResponse, limit: int) -> bytes:
    """Read an answer's first bytes, `limit` of them at most.

    Raises:
        urllib3.exceptions.HTTPError: The connection broke.
    """
    body = bytearray()
    for piece in response.stream(_CHUNK, decode_content=True):
        body += piece
        if len(body) >= limit:
            break
    return bytes(body[:limit])


def error_of(response: BaseHTTPResponse, what: str) -> ServiceError:
    """Make an error of an answer that is none, in the service's words where it gave any.

    Args:
        response: The answer.
        what: The request.
    """
    status = response.status
    try:
        errors = msgspec.json.decode(read(response), type=_Errors)
        first = errors.errors[0] if errors.errors else _other_shape(errors)
    except (msgspec.DecodeError, UnicodeDecodeError, HTTPError):
        # No JSON, or a connection that broke: the status has to do.
        first = _Error()
    kind: type[ServiceError] = RefusedError
    if status == 404 and first.message:  # noqa: PLR2004 - Not Found, as the service says it, not some proxy
        kind = NotFoundError
    elif _number(first.code) == BudgetSpentError.CODE:  # as the gateway says it
        kind = BudgetSpentError
    elif status in _TOO_EARLY_OR_MANY or status >= 500:  # noqa: PLR2004 - the server's own fault
        kind = UnavailableError
    return kind(
        quote(first.message or "") or f"{what} was answered with {status}.",
        status=status,
        code=_number(first.code),
        advice=quote(first.solution or ""),
    )


def _other_shape(errors: _Errors) -> _Error:
    return _Error(errors.errorCode, errors.errorMessage or errors.message)


def quote(text: str) -> str:
    """Make one line of a text that the service sent, with no control character in it, and not too long."""
    line = re.sub(r"\s+", " ", "".join(c if c.isprintable() else " " for c in text[: 4 * _QUOTED])).strip()
    return line if len(line) <= _QUOTED else f"{line[:_QUOTED]}…"


def qpu_status(
    word: str,
    reason: str | None,
    queue_length: int | None,
    *,
    operational: bool = True,
    traits: Traits | None = None,
) -> QpuStatus:
    """Read how a QPU is, from the words that either answer has for it."""
    online = operational and word.lower() in {"active", "online"}
    why = "" if online else quote(reason or word or "not operational")
    length = max(queue_length or 0, 0)
    return QpuStatus(online=online, reason=why, queue_length=length, traits=traits or Traits())


def traits_of(device: Device) -> Traits:
    """Read what a QPU is like; what is missing or has another shape is not known."""
    clops = _part(device.clops, _Value)
    metrics = _part(device.performance_metrics, _Metrics) or _Metrics()
    errors = (metrics.two_q_error_layered, metrics.two_q_error_best)
    return Traits(
        qubits=_part(device.qubits, Annotated[int, msgspec.Meta(ge=0)]),
        processor=_processor(_part(device.processor_type, _Processor)),
        error=next((found.value for found in errors if found is not None and found.value is not None), None),
        clops=None if clops is None else clops.value,
        simulator=_part(device.is_simulator, bool),
    )


def _processor(processor: _Processor | None) -> str | None:
    """Write a processor's family and revision as one word."""
    if processor is None:
        return None
    revision = processor.revision
    family = processor.family.strip().lower().replace(" ", "-").replace("_", "-")
    if revision is None or revision == "":
        return family
    return f"{family}-r{revision if isinstance(revision, str) else format(revision, 'g')}".lower()


def _part(raw: msgspec.Raw, type_: Any) -> Any:  # noqa: ANN401 - as msgspec has it
    """Read a part of an answer that may be missing, or of another shape: None then."""
    try:
        return msgspec.json.decode(raw, type=type_)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def status_of(job: Job) -> TaskStatus | None:
    """Read what has become of a job; None for a state that we do not know."""
    return _STATUSES.get((job.state.status or job.status).lower())


def time_of(text: str | None) -> datetime | None:
    """Read a time, which is UTC where it does not say; None where it is none."""
    try:
        time = datetime.fromisoformat(text or "")
        # One at the end of the calendar cannot be told in every time zone.
        return time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        return None


def times_of(metrics: dict[str, Any]) -> TaskTimes:
    """Read the times out of a job's metrics; metrics of another shape have none."""
    try:
        found = msgspec.convert(metrics, JobMetrics)
    except msgspec.ValidationError:
        return TaskTimes()
    stamps, used = found.timestamps or Timestamps(), found.usage or MetricsUsage()
    created, running, finished = map(time_of, (stamps.created, stamps.running, stamps.finished))
    return TaskTimes(
        queued=_between(created, running),
        running=_between(running, finished),
        quantum=used.quantum_seconds,
        position=found.position_in_queue,
    )


def calibrated_at(properties: bytes) -> datetime | None:
    """Read when a QPU was calibrated out of its properties; None if they do not say it."""
    try:
        return time_of(msgspec.json.decode(properties, type=Properties).last_update_date)
    except (ValueError, msgspec.MsgspecError):
        return None


def later(time: datetime | None, seconds: float | None) -> datetime | None:
    """Add seconds to a time; None where there is none, or no end."""
    try:
        return None if time is None or seconds is None else time + timedelta(seconds=seconds)
    except (OverflowError, ValueError):
        return None


def _between(begin: datetime | None, end: datetime | None) -> float | None:
    return None if begin is None or end is None else max((end - begin).total_seconds(), 0.0)


def _number(code: int | str | None) -> int | None:
    text = str(code)
    return int(text) if re.fullmatch(r"[0-9]{1,9}", text) else None
