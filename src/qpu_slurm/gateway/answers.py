# SPDX-License-Identifier: Apache-2.0
"""The gateway's answers: JSON, and errors that each dialect writes in its own shape."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from aiohttp import web

from qpu_slurm.errors import BudgetSpentError, NoLeaseError, RefusedError, RequestError

if TYPE_CHECKING:
    from qpu_slurm.errors import QpuSlurmError

_BAD_GATEWAY = 502


class ApiError(Exception):
    """The gateway refuses a request of a service's client.

    Args:
        status: The HTTP status.
        message: What is wrong.
        solution: What to do about it.
        code: The service's number for such an error; None leaves it to the dialect.
        kind: The metrics' name for it.
        retry_after: Seconds that the client should wait before it repeats the request; None gives no advice.
        limit: The metrics' name of the limit that it is about; empty if there is none.
    """

    def __init__(
        self,
        status: int,
        message: str,
        solution: str = "",
        *,
        code: int | None = None,
        kind: str = "request",
        retry_after: int | None = None,
        limit: str = "",
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.solution = solution
        self.code = code
        self.kind = kind
        self.retry_after = retry_after
        self.limit = limit

    @property
    def temporary(self) -> bool:
        """Whether the same request may succeed later."""
        return self.retry_after is not None


class CutOffError(Exception):
    """A request may or may not have taken effect: its connection is cut, as the service's was.

    With a status, some clients would repeat the request, and others would assume that it had no effect.
    """


def json_answer(data: Any, status: int = 200) -> web.Response:  # noqa: ANN401 - whatever JSON can be
    """Answer with JSON."""
    return web.Response(body=msgspec.json.encode(data), status=status, content_type="application/json")


def unauthorized(why: str) -> ApiError:
    """Refuse a request without the credential of a job that holds a QPU."""
    return ApiError(
        401,
        why,
        "Use the variables that the job was given, inside the job, while it runs.",
        kind="unauthorized",
    )


def forbidden(why: str, solution: str = "") -> ApiError:
    """Refuse a request that the job's lease does not cover."""
    return ApiError(403, why, solution, kind="forbidden")


def too_large(limit: int) -> ApiError:
    """Refuse a body that is too large."""
    return ApiError(
        413,
        f"The body is larger than {limit} bytes.",
        "Send less, or ask the admin for a larger max_body.",
        limit="size",
    )


def of_error(error: QpuSlurmError) -> ApiError:
    """Return the answer for an error of the broker."""
    if isinstance(error, NoLeaseError):
        return unauthorized(str(error))
    if isinstance(error, RefusedError):
        status, code = error.status or _BAD_GATEWAY, error.code or None
        kind = "budget" if isinstance(error, BudgetSpentError) else "upstream"
        return ApiError(status, error.message, error.advice, code=code, kind=kind)
    if isinstance(error, RequestError):
        return forbidden(str(error))
    return unavailable(str(error))


def unavailable(why: str) -> ApiError:
    """Return the error for a service that is away: the request had no effect."""
    return ApiError(503, why, "Try again later.", kind="unavailable", retry_after=2)
