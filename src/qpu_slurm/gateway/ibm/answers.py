# SPDX-License-Identifier: Apache-2.0
"""How the gateway answers: JSON, and errors in the shape that the quantum service's clients take apart."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any

import msgspec
from aiohttp import web

from qpu_slurm.errors import NoLease, Refused

if TYPE_CHECKING:
    from qpu_slurm.errors import QpuSlurmError

_MORE_INFO = "https://quantum.cloud.ibm.com/docs/errors"

_CODE = 1200
"""The service's number for `not authorized`."""

_BAD_GATEWAY = 502
_FAILED = 1000
"""What the gateway cannot do, the service has no number for."""


class ApiError(Exception):
    """The gateway says no to a client of the quantum service.

    Args:
        status: The HTTP status.
        message: What is wrong.
        solution: What to do about it.
        code: The service's number for it, where it has one.
        kind: What it is counted as.
        retry_after: Seconds to wait before asking again; None says nothing.
    """

    def __init__(
        self,
        status: int,
        message: str,
        solution: str = "",
        *,
        code: int = _FAILED,
        kind: str = "request",
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.solution = solution
        self.code = code
        self.kind = kind
        self.retry_after = retry_after

    def answer(self) -> web.Response:
        """Write it down as the service does."""
        error = {
            "code": self.code,
            "message": self.message,
            "solution": self.solution,
            "more_info": _MORE_INFO,
        }
        response = json_answer({"errors": [error], "trace": secrets.token_hex(8)}, self.status)
        if self.retry_after is not None:
            response.headers["Retry-After"] = str(self.retry_after)
        return response


class Cut(Exception):
    """Nobody knows whether a request took effect: its connection is cut, as the service's was.

    A status would make some clients send it again, and others take it for not done.
    """


def json_answer(data: Any, status: int = 200) -> web.Response:  # noqa: ANN401 - whatever JSON can be
    """Answer with JSON."""
    return web.Response(body=msgspec.json.encode(data), status=status, content_type="application/json")


def unauthorized(why: str) -> ApiError:
    """Refuse who does not show a credential of a job that holds a QPU."""
    return ApiError(
        401,
        why,
        "Use the variables that the job was given, inside the job, while it runs.",
        code=_CODE,
        kind="unauthorized",
    )


def forbidden(why: str, solution: str = "") -> ApiError:
    """Refuse what a job's lease does not cover."""
    return ApiError(403, why, solution, code=_CODE, kind="forbidden")


def invalid(why: str) -> ApiError:
    """Refuse what cannot be understood."""
    return ApiError(400, f"Request validation failed, because: {why}.", "Correct the request.", code=1208)


def too_large(limit: int) -> ApiError:
    """Refuse a body that is too large."""
    return ApiError(
        413, f"The body is larger than {limit} bytes.", "Send less, or ask the admin for a larger max_body."
    )


def session_closed() -> ApiError:
    """Refuse to have a session take tasks again, in the service's words."""
    return ApiError(400, "Session has been closed.", "Start a new session.", code=1217)


def of_error(error: QpuSlurmError) -> ApiError:
    """Say what the broker could not do."""
    if isinstance(error, NoLease):
        return unauthorized(str(error))
    if isinstance(error, Refused):
        status, code = error.status or _BAD_GATEWAY, error.code or _FAILED
        return ApiError(status, error.message, error.advice, code=code, kind="upstream")
    return unavailable(str(error))


def unavailable(why: str) -> ApiError:
    """Say that the service is not there; nothing was done."""
    return ApiError(503, why, "Try again later.", kind="unavailable", retry_after=2)
