# SPDX-License-Identifier: Apache-2.0
"""Errors in the shape that IQM's clients parse."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Final

from qpu_slurm.errors import sentences
from qpu_slurm.gateway.answers import ApiError, json_answer

if TYPE_CHECKING:
    from aiohttp import web

_WORDS: Final = {
    400: "invalid_input",
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    413: "request_payload_too_large",
    429: "rate_limit_exceeded",
}
"""IQM's names of errors, by status."""

_FAILED: Final = "internal_error"


def answer(error: ApiError) -> web.Response:
    """Return an error in IQM's shape."""
    document = {
        "error_code": _WORDS.get(error.status, _FAILED),
        "message": sentences(error.message, error.solution),
        "details": {},
        "request_id": str(uuid.uuid4()),
    }
    response = json_answer(document, error.status)
    if error.retry_after is not None:
        response.headers["Retry-After"] = str(error.retry_after)
    return response


def no_qpu(asked: str, own: str) -> ApiError:
    """Refuse another QPU than the job's."""
    return ApiError(404, f"The quantum computer {asked[:64]!r} is not this job's.", f"Use {own!r}.")


def no_job(job_id: str) -> ApiError:
    """Refuse a task that is not there, or another job's."""
    return ApiError(
        404,
        f"The task {job_id!r} is not this job's.",
        "A job reaches the tasks that were submitted in its own lease. Use the id of one of them.",
    )
