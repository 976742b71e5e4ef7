# SPDX-License-Identifier: Apache-2.0
"""Errors in the shape that clients of IBM's service parse, and those that only this dialect has."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any, Final

import msgspec

from qpu_slurm.gateway.answers import ApiError, json_answer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aiohttp import web

_MORE_INFO: Final = "https://quantum.cloud.ibm.com/docs/errors"

_NOT_AUTHORIZED: Final = 1200
_CODES: Final = {"unauthorized": _NOT_AUTHORIZED, "forbidden": _NOT_AUTHORIZED}
"""The service's numbers of errors, by kind."""

_FAILED: Final = 1000
"""The number of errors that only the gateway has."""

_BAD_REQUEST: Final = 400
_BAD_GATEWAY: Final = 502


def answer(error: ApiError) -> web.Response:
    """Return an error in the service's shape."""
    code = _CODES.get(error.kind, _FAILED) if error.code is None else error.code
    written = {
        "code": code,
        "message": error.message,
        "solution": error.solution,
        "more_info": _MORE_INFO,
    }
    response = json_answer({"errors": [written], "trace": secrets.token_hex(8)}, error.status)
    if error.retry_after is not None:
        response.headers["Retry-After"] = str(error.retry_after)
    return response


def invalid(why: str) -> ApiError:
    """Return the error for a request that cannot be parsed."""
    return ApiError(400, f"Request validation failed, because: {why}.", "Correct the request.", code=1208)


def session_closed() -> ApiError:
    """Return the error for reopening a session, in the service's words."""
    return ApiError(400, "Session has been closed.", "Start a new session.", code=1217)


def passed_on(status: int, headers: Mapping[str, str], body: bytes) -> ApiError:
    """Return an error of the service's as one of ours, for a request that was not the client's own."""
    try:
        error: dict[str, Any] = msgspec.json.decode(body)["errors"][0]
        code, text = int(error["code"]), str(error["message"])
    except (msgspec.MsgspecError, UnicodeDecodeError, LookupError, TypeError, ValueError):
        code, text = _FAILED, "The quantum service answers with an error."
    return ApiError(
        status if status >= _BAD_REQUEST else _BAD_GATEWAY,
        text,
        code=code,
        kind="upstream",
        retry_after=retry_after_of(headers),
    )


def retry_after_of(headers: Mapping[str, str]) -> int | None:
    """Return the seconds that the service asks clients to wait; None if it names none."""
    seconds = headers.get("Retry-After", "")
    return int(seconds) if seconds.isascii() and seconds.isdigit() else None
