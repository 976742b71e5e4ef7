# SPDX-License-Identifier: Apache-2.0
"""Errors of the IBM Quantum System API: other codes than the cloud's, in another shape."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from qpu_slurm_devkit.emulator.answers import MORE_INFO, ApiError, json_answer

if TYPE_CHECKING:
    from aiohttp import web


def answer(error: ApiError) -> web.Response:
    """Write an error down as this API does; here, codes are text."""
    item = {
        "code": str(error.code),
        "message": error.message,
        "solution": error.solution,
        "more_info": MORE_INFO,
    }
    document = {"status_code": error.status, "trace": secrets.token_hex(10), "errors": [item]}
    return json_answer(document, error.status)


def no_backend(name: str) -> ApiError:
    """Refuse a QPU that is not there."""
    return ApiError(404, 1216, f"Backend {name} not found.", "Use a different backend.")


def no_task(task_id: str) -> ApiError:
    """Refuse a task that is not there, or was deleted."""
    return ApiError(404, 1291, f"Job not found. Job ID: {task_id}.", "Verify that the job ID is correct.")


def duplicate(task_id: str) -> ApiError:
    """Refuse an id that a task has already."""
    return ApiError(
        409, 1231, f"Job with duplicate id already exists. Job ID: {task_id}", "Use an id of its own."
    )


def no_lane(backend: str) -> ApiError:
    """Refuse a task while every lane is taken; one that is over keeps its lane until it is deleted."""
    return ApiError(
        429,
        1232,
        f"The maximum number of execution lanes for backend {backend} has been reached.",
        "Delete completed jobs and/or wait for other clients to delete jobs.",
    )


def task_is_over(task_id: str) -> ApiError:
    """Refuse to cancel what has ended already."""
    return ApiError(409, 1306, f"Job is not cancellable. Job ID: {task_id}.", "Nothing is left to cancel.")


def task_is_pending(task_id: str) -> ApiError:
    """Refuse to delete what has not ended yet."""
    return ApiError(
        409,
        1337,
        f"Deleting a job in a non-terminal state is not possible. Job ID: {task_id}.",
        "Cancel it first.",
    )


def no_program(name: str) -> ApiError:
    """Refuse a program that is neither the sampler nor the estimator."""
    return ApiError(400, 1337, f"Invalid program_id specified: {name}.", "Use sampler or estimator.")
