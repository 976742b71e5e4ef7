# SPDX-License-Identifier: Apache-2.0
"""What the gateway and those who ask it say to each other, beside the quantum service's own API.

Each request is signed with MUNGE. Three are for the client in C (plugin/client), which reads no JSON: they
take fields, and are answered with text (see `read_fields` and `text_error`):

    POST   /qpu-slurm/v1/jobs/{job}/start               a hook's environment -> nothing; 409: not to start
    POST   /qpu-slurm/v1/jobs/{job}/end                 a hook's environment -> nothing
    POST   /qpu-slurm/v1/jobs/{job}/variables           a step, or nothing -> lines NAME=value

The others are JSON both ways:

    POST   /qpu-slurm/v1/leases                         LeaseRequest -> [Lease]
    DELETE /qpu-slurm/v1/jobs/{job}/leases?reason=&run=&others=  -> [Lease]
    POST   /qpu-slurm/v1/refusals                       Refusal -> null
    POST   /qpu-slurm/v1/jobs/{job}/steps               StepStart -> {QPU: JobKey}
    GET    /qpu-slurm/v1/jobs/{job}/keys                -> {QPU: JobKey}
    DELETE /qpu-slurm/v1/jobs/{job}/steps/{step}?ago=&cancel=  StepEnd -> null
    GET    /qpu-slurm/v1/jobs/{job}/history             -> JobHistory
    GET    /qpu-slurm/v1/qpus                           -> [QpuReport]

`start`, `end`, `leases` and `refusals` are for SlurmUser and root, `qpus` is for every user; the others are
for the job's user as well. A step's first node asks for the variables, or the keys, as it tells that the step
starts; the step's other nodes have nothing to tell. What went wrong is an `ErrorAnswer`.
"""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TypeVar
from urllib.parse import quote, urlencode

import msgspec

from qpu_slurm import errors
from qpu_slurm.errors import (
    AnswerLostError,
    ConfigError,
    JournalError,
    NotFoundError,
    QpuSlurmError,
    RefusedError,
    RequestError,
    ServiceError,
    SlurmAwayError,
    SlurmError,
    UnavailableError,
)
from qpu_slurm.journal.model import Lease
from qpu_slurm.names import STEP, STEP_MARK, STEP_NAME
from qpu_slurm.system.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Mapping

PREFIX = "/qpu-slurm/v1"
"""Where the gateway's own requests are; everything else is the quantum service's API."""

LEASES_PATH = f"{PREFIX}/leases"

QPUS_PATH = f"{PREFIX}/qpus"
BUDGETS_PATH = f"{PREFIX}/budgets"

REFUSALS_PATH = f"{PREFIX}/refusals"

SCHEME = "MUNGE"
"""The scheme of the header `Authorization: MUNGE <credential>`."""

T = TypeVar("T")


Leases = tuple[Lease, ...]
"""What was acquired or released."""

MAX_AGO = 60.0
"""Seconds after which a step's start or end is not worth telling any more."""

Ago = Annotated[float, msgspec.Meta(ge=0, le=MAX_AGO)]
"""How many seconds ago something happened: the clocks of nodes and gateway differ."""


class JobKey(msgspec.Struct, frozen=True, kw_only=True):
    """What opens a job's way to one QPU.

    Attributes:
        key: The job key.
        session_id: The session that the job's lease has now, which may be another than it began with; None
            while it has none.
    """

    key: Secret
    session_id: str | None


Keys = dict[str, JobKey]
"""One for each QPU that the job holds or is bound to."""


class StepStart(msgspec.Struct, frozen=True, kw_only=True):
    """A step of a job starts.

    Attributes:
        step: Slurm's id of it.
        name: Its program.
        seconds_ago: When it started.
    """

    step: Annotated[str, msgspec.Meta(pattern=rf"\A(?:{STEP.pattern})\Z")]
    name: Annotated[str, msgspec.Meta(pattern=rf"\A(?:{STEP_NAME.pattern})\Z")]
    seconds_ago: Ago


class StepEnd(msgspec.Struct, frozen=True, kw_only=True):
    """A step of a job has ended; this is a query, not a body.

    Attributes:
        ago: When, in seconds before now.
        cancel: The step's mark, if it failed and may have left tasks.
    """

    ago: Ago
    cancel: Annotated[str, msgspec.Meta(pattern=rf"\A(?:{STEP_MARK.pattern})?\Z")] = ""


class ErrorAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Why a request was not done.

    Attributes:
        error: The sentence.
        kind: The name of its class in `errors.py`.
    """

    error: str
    kind: str


def job_leases_path(job_id: int, reason: str, run: str = "", *, others: bool = False) -> str:
    """Return the path, with its query, that ends what a job, or some of its runs, holds."""
    query = {"reason": reason, "run": run, "others": "yes" if others else ""}
    query = {name: value for name, value in query.items() if value}
    return f"{PREFIX}/jobs/{job_id}/leases?{urlencode(query, quote_via=quote)}"


def job_variables_path(job_id: int) -> str:
    """Return the path of what a job's steps are told of its QPUs."""
    return f"{PREFIX}/jobs/{job_id}/variables"


def job_keys_path(job_id: int) -> str:
    """Return the path of a job's keys."""
    return f"{PREFIX}/jobs/{job_id}/keys"


def job_steps_path(job_id: int) -> str:
    """Return the path of a job's steps, to which those that start are added."""
    return f"{PREFIX}/jobs/{job_id}/steps"


def step_end_path(job_id: int, step: str, ago: float, cancel: str = "") -> str:
    """Return the path, with its query, that says that a step ended so many seconds ago."""
    query = {"ago": f"{ago:.3f}"} | ({"cancel": cancel} if cancel else {})
    return f"{job_steps_path(job_id)}/{step}?{urlencode(query)}"


def job_history_path(job_id: int) -> str:
    """Return the path of what is known of a job."""
    return f"{PREFIX}/jobs/{job_id}/history"


def write_fields(fields: Mapping[str, str]) -> bytes:
    """Write the body of a request of the client in C: `NAME=value`, each with a NUL behind it."""
    return b"".join(f"{name}={value}\0".encode() for name, value in fields.items())


def read_fields(body: bytes) -> dict[str, str]:
    """Read it; what is no UTF-8 is kept, as Python keeps it in `os.environ`.

    Raises:
        RequestError: It is not that.
    """
    found = {}
    for field in body.split(b"\0")[:-1]:
        name, equals, value = os.fsdecode(field).partition("=")
        if not (name and equals) or name in found:
            raise RequestError("The gateway cannot read this request: its body has no fields NAME=value.")
        found[name] = value
    if body and not body.endswith(b"\0"):
        raise RequestError("The gateway cannot read this request: its body is cut.")
    return found


def text_error(error: QpuSlurmError) -> str:
    """Return the line for an error that the plugin reads (plugin/output.h): `wait:` for one that passes."""
    passes = isinstance(error, UnavailableError | SlurmAwayError | JournalError)
    return f"{'wait' if passes else 'error'}: {' '.join(str(error).split())}\n"


def binding(method: str, path: str, body: bytes = b"") -> bytes:
    """Return the payload of the MUNGE credential of a request, which makes it good for that one alone.

    Args:
        method: Such as `GET`.
        path: The path and query exactly as sent.
        body: The request's body.
    """
    return f"{method} {path} {hashlib.sha256(body).hexdigest()}".encode()


def encode(value: object) -> bytes:
    """Write a message; a credential in it is revealed, so the bytes are one themselves."""
    return msgspec.json.encode(value, enc_hook=_reveal)


def decode(data: bytes, type_: type[T]) -> T:
    """Read a message.

    Raises:
        msgspec.DecodeError: It is none of that type.
    """
    return msgspec.json.decode(data, type=type_, dec_hook=_hide)


def error_answer(error: QpuSlurmError) -> tuple[int, bytes]:
    """Return the HTTP status and the body that stand for an error."""
    status = next((status for class_, status in _STATUS if isinstance(error, class_)), 500)
    return status, encode(ErrorAnswer(error=str(error), kind=type(error).__name__))


def raise_error(status: int, body: bytes) -> NoReturn:
    """Raise what an answer with an error status stands for; one that we do not know is `UnavailableError`."""
    for prefix, kind in _TEXT_ERRORS.items():
        if body.startswith(prefix):
            raise kind(body.removeprefix(prefix).decode(errors="replace").strip())
    try:
        answer = decode(body, ErrorAnswer)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise UnavailableError(f"The gateway answered {status}, in an unknown form.", status=status) from None
    class_ = _ERRORS.get(answer.kind, UnavailableError)
    if issubclass(class_, ServiceError):
        raise class_(answer.error, status=status)
    if issubclass(class_, ConfigError):
        raise class_(*answer.error.splitlines())
    raise class_(answer.error)


_TEXT_ERRORS: dict[bytes, type[QpuSlurmError]] = {b"error: ": RequestError, b"wait: ": UnavailableError}
"""What `text_error` writes."""

_ERRORS = {
    name: value
    for name, value in vars(errors).items()
    if isinstance(value, type) and issubclass(value, QpuSlurmError)
}

_STATUS: tuple[tuple[type[QpuSlurmError], int], ...] = (
    # The first that fits: classes come before those that they derive from.
    (RequestError, 400),
    (NotFoundError, 404),
    (RefusedError, 403),
    (AnswerLostError, 502),
    (UnavailableError, 503),
    (SlurmError, 503),
    (JournalError, 503),
)


def _reveal(value: object) -> str:
    if isinstance(value, Secret):
        return value.reveal()
    raise NotImplementedError(f"no message holds a {type(value).__name__}")


def _hide(type_: type, value: Any) -> Any:  # noqa: ANN401 - as msgspec has it
    if type_ is Secret and isinstance(value, str):
        return Secret(value)
    raise NotImplementedError(f"no message holds a {type_.__name__}")
