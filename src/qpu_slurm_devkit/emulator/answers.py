# SPDX-License-Identifier: Apache-2.0
"""How the service answers: JSON, and errors in the shape that its clients take apart.

The codes and their sentences were gathered from public sources, as far as there are any; `(guess)` marks
those that nothing public confirms.
"""

from __future__ import annotations

import secrets
from typing import Any

import msgspec
from aiohttp import web

MORE_INFO = "https://quantum.cloud.ibm.com/docs/errors"


class ApiError(Exception):
    """The service says no.

    Args:
        status: The HTTP status.
        code: The service's own number for the error.
        message: What is wrong.
        solution: What to do about it.
    """

    def __init__(self, status: int, code: int, message: str, solution: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.solution = solution

    def answer(self) -> web.Response:
        """Write it down as the service does."""
        error = {
            "code": self.code,
            "message": self.message,
            "solution": self.solution,
            "more_info": MORE_INFO,
        }
        return json_answer({"errors": [error], "trace": secrets.token_hex(10)}, self.status)


def json_answer(data: Any, status: int = 200) -> web.Response:  # noqa: ANN401 (any JSON there is)
    """Answer with JSON."""
    return web.Response(body=msgspec.json.encode(data), status=status, content_type="application/json")


def unauthorized() -> ApiError:
    """Refuse a token that is missing, made up or past its time."""
    return ApiError(
        401, 1200, "You are not authorized to perform this action.", "Try again or contact support."
    )


def forbidden() -> ApiError:
    """Refuse an instance that is not the caller's (guess: the code of 401, with 403)."""
    return ApiError(403, 1200, "You are not authorized to perform this action.", "Check the Service-CRN.")


def invalid(because: str) -> ApiError:
    """Refuse a body or a query that does not fit the API's schema."""
    return ApiError(400, 1208, f"Request validation failed, because: {because}", "Correct the request.")


def no_backend(name: str) -> ApiError:
    """Refuse a QPU that the instance does not have."""
    return ApiError(404, 1007, f"Backend not found: {name}.", "Verify that the backend name is correct.")


def no_program(name: str) -> ApiError:
    """Refuse a program that is not a primitive (guess: the code)."""
    return ApiError(404, 1290, f"Program not found: {name}.", "Use sampler, estimator or executor.")


def not_emulated(name: str) -> ApiError:
    """Refuse a program that the service has and the emulator has not."""
    return ApiError(
        501,
        1290,
        f"This emulator does not run the program {name}: its QPUs have no noise.",
        "Use sampler, estimator or executor, or a real QPU.",
    )


def no_task(task_id: str) -> ApiError:
    """Refuse a task that is not there, or not the caller's."""
    return ApiError(404, 1291, f"Job not found. Job ID: {task_id}", "Check the job ID and the instance.")


def task_is_over(task_id: str) -> ApiError:
    """Refuse to cancel what has ended already (guess: the code; clients look for 409)."""
    return ApiError(409, 1292, f"Job {task_id} is in a final state.", "Nothing is left to cancel.")


def task_is_pending(task_id: str) -> ApiError:
    """Refuse to delete what has not ended yet (guess)."""
    return ApiError(400, 1293, f"Job {task_id} has not ended.", "Cancel it first.")


def no_session(session_id: str) -> ApiError:
    """Refuse a session that is not there, or not the caller's (guess: the code)."""
    return ApiError(404, 1216, f"Session not found: {session_id}.", "Check the session ID and the instance.")


def session_closed() -> ApiError:
    """Refuse a task for a session that was closed."""
    return ApiError(400, 1217, "Session has been closed.", "Start a new session.")


def no_dedicated_sessions() -> ApiError:
    """Refuse a dedicated session on the Open plan."""
    message = "You are not authorized to run a session when using the open plan."
    return ApiError(400, 1352, message, "Use job or batch mode, or an instance of another plan.")
