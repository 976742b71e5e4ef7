# SPDX-License-Identifier: Apache-2.0
"""Errors of IQM Server: a word for programs, and a sentence."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

from qpu_slurm_devkit.emulator.answers import ApiError, json_answer

if TYPE_CHECKING:
    from aiohttp import web


class IqmError(ApiError):
    """The server says no.

    Args:
        status: The HTTP status.
        word: The server's own name of the error.
        message: What is wrong.
    """

    def __init__(self, status: int, word: str, message: str) -> None:
        super().__init__(status, 0, message, "")
        self.word = word

    def answer(self) -> web.Response:
        """Write it down as the server does."""
        return answer(self.status, self.word, self.message)


def answer(status: int, word: str, message: str) -> web.Response:
    """Answer with an error."""
    document = {"error_code": word, "message": message, "details": {}, "request_id": str(uuid.uuid4())}
    return json_answer(document, status)


def unauthorized() -> IqmError:
    """Refuse a token that is missing or not known."""
    return IqmError(401, "unauthorized", "Invalid or expired token.")


def no_qpu(name: str) -> IqmError:
    """Refuse a QPU that is not there."""
    return IqmError(404, "quantum_computer_not_found", f"Quantum computer {name!r} not found.")


def no_artifact(what: str) -> IqmError:
    """Refuse an artifact of a QPU that is not there."""
    return IqmError(404, "quantum_computer_artifact_not_found", f"Artifact {what!r} not found.")


def no_calibration_set(set_id: str) -> IqmError:
    """Refuse a calibration set that is not there."""
    return IqmError(404, "calibration_set_not_found", f"Calibration set {set_id!r} not found.")


def no_job(job_id: str) -> IqmError:
    """Refuse a job that is not there, or is another account's."""
    return IqmError(404, "job_not_found", f"Job {job_id!r} not found.")


def no_result(what: str) -> IqmError:
    """Refuse a result that is not there, or not yet."""
    return IqmError(404, "job_artifact_not_found", f"Artifact {what!r} not found.")


def no_type(name: str) -> IqmError:
    """Refuse a kind of job that is not emulated."""
    return IqmError(400, "unsupported_job_type", f"Unsupported job type {name!r}.")


def bad_payload(why: str) -> IqmError:
    """Refuse what is no batch of circuits."""
    return IqmError(400, "invalid_job_payload", f"Invalid job payload: {why}.")


def bad_input(why: str) -> IqmError:
    """Refuse a query that makes no sense."""
    return IqmError(400, "invalid_input", why)


def job_is_over(status: str) -> IqmError:
    """Refuse to cancel what has ended already."""
    return IqmError(403, "illegal_job_status", f"Job with status {status!r} cannot be cancelled.")
