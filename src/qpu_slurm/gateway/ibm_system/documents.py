# SPDX-License-Identifier: Apache-2.0
"""Answers in the shapes of the cloud's API, about a QPU on the premises."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from qpu_slurm.gateway.answers import ApiError
from qpu_slurm.gateway.ibm import answers as ibm_answers
from qpu_slurm.gateway.upstream import WrittenAnswer
from qpu_slurm.providers.base import TaskStatus
from qpu_slurm.providers.ibm_system.answers import status_of, task_of, times_of

if TYPE_CHECKING:
    from datetime import datetime

    from qpu_slurm.journal.history import SessionUse, TaskUse
    from qpu_slurm.providers.base import QpuStatus
    from qpu_slurm.providers.ibm_system.answers import Job

_LISTS_NAMES: Final = "2024-01-01"
"""The version of the API up to which QPUs are listed by name."""

_WORDS: Final = {
    TaskStatus.RUNNING: "Running",
    TaskStatus.COMPLETED: "Completed",
    TaskStatus.FAILED: "Failed",
    TaskStatus.CANCELLED: "Cancelled",
}

_PAIR: Final = 2


def refusal(status: int, message: str, solution: str = "", *, code: int | None = None) -> WrittenAnswer:
    """Answer with an error, as the cloud's service does."""
    written = ibm_answers.answer(ApiError(status, message, solution, code=code))
    return WrittenAnswer(status, bytes(written.body) if isinstance(written.body, bytes) else b"")


def backends(
    name: str, status: QpuStatus, configuration: bytes, properties: bytes, version: str
) -> WrittenAnswer:
    """List the one QPU, as far as its configuration and its calibration tell."""
    if version <= _LISTS_NAMES:
        return WrittenAnswer.of({"devices": [name]})
    known = msgspec.json.decode(configuration, type=dict[str, Any])
    best = _best_pair(msgspec.json.decode(properties, type=dict[str, Any]))
    device = {
        "name": name,
        "status": {
            "name": "online" if status.online else "paused",
            "reason": status.reason or "available",
        },
        "is_simulator": False,
        "qubits": known.get("n_qubits"),
        "clops": {"type": "hardware", "value": known.get("clops_h")},
        "processor_type": known.get("processor_type"),
        "queue_length": status.queue_length,
        "performance_metrics": {"two_q_error_best": best, "two_q_error_layered": best} if best else {},
    }
    return WrittenAnswer.of({"devices": [device]})


def backend_status(status: QpuStatus, configuration: bytes) -> WrittenAnswer:
    """Tell whether the QPU takes tasks."""
    version = msgspec.json.decode(configuration, type=dict[str, Any]).get("backend_version", "")
    return WrittenAnswer.of(
        {
            "state": True,
            "status": "active" if status.online else "paused",
            "message": status.reason,
            "length_queue": status.queue_length,
            "backend_version": version,
        }
    )


def session(gate: str, backend: str, use: SessionUse | None) -> dict[str, Any]:
    """Describe a gate as the session that it stands for; `use` is what the journal has of it."""
    closed = use is None or use.ended_at is not None
    return {
        "id": gate,
        "backend_name": backend,
        "mode": "dedicated",
        # Clients take a session that is active for one that takes tasks now, as a gate does all the time.
        "state": "closed" if closed else "active",
        "accepting_jobs": not closed,
        "started_at": None if use is None else _text(use.opened_at),
        "closed_at": None if use is None else _text(use.ended_at),
    }


def workload(gate: str, backend: str, use: SessionUse) -> dict[str, Any]:
    """Describe a gate as the cloud lists sessions."""
    closed = use.ended_at is not None
    return {
        "id": gate,
        "created": _text(use.opened_at),
        "ended": _text(use.ended_at),
        "backend": backend,
        "accepting_jobs": not closed,
        "mode": "session",
        "status": "completed" if closed else "in_progress",
        "tags": [],
    }


def job(found: Job, bucket: str) -> dict[str, Any]:
    """Describe a task as the cloud does."""
    task = task_of(found, bucket)
    quantum = times_of(found).quantum or 0
    document = _job(task.id, task.status, task.session_id, task.created_at, quantum)
    if task.reason:
        document["state"]["reason"] = task.reason
    if found.end_time is not None:
        document["ended"] = found.end_time
    return document | {
        "backend": found.backend,
        "program": {"id": found.program_id},
        "cost": found.timeout_secs or 0,
        "tags": task.tags,
    }


def retired_job(use: TaskUse, backend: str) -> dict[str, Any]:
    """Describe a task that the service has forgotten, as far as the journal knows it."""
    status = TaskStatus(use.status)
    document = _job(use.task_id, status, use.session_id, use.created_at, use.seconds)
    if status is TaskStatus.FAILED:
        document["state"]["reason"] = "The task failed; its log says why."
    return document | {
        "backend": backend,
        "program": {"id": ""},
        "cost": 0,
        "tags": [],
        "ended": _text(use.ended_at),
    }


def metrics(document: dict[str, Any]) -> dict[str, Any]:
    """Write a task's times and usage, from its description; when it began to run is not told."""
    seconds = document["usage"]["seconds"]
    return {
        "timestamps": {
            "created": document["created"],
            "running": None,
            "finished": document.get("ended"),
        },
        "usage": {
            "quantum_seconds": seconds,
            "qpu_charge_time_seconds": seconds,
            "seconds": seconds,
            "status": "pending" if document["status"] == "Running" else "final",
        },
        "position_in_queue": None,
    }


def is_over(found: Job) -> bool:
    """Whether a task will not change any more."""
    status = status_of(found)
    return status is not None and status.final


def _job(
    task_id: str, status: TaskStatus, gate: str | None, created: datetime | None, seconds: float
) -> dict[str, Any]:
    word = _WORDS.get(status, "Running")
    return {
        "id": task_id,
        "status": word,
        "state": {"status": word},
        "session_id": gate,
        "created": _text(created) or "",
        "usage": {"seconds": seconds},
        "estimated_running_time_seconds": seconds,
        "private": False,
    }


def _text(time: datetime | None) -> str | None:
    return None if time is None else time.isoformat().replace("+00:00", "Z")


def _best_pair(properties: dict[str, Any]) -> dict[str, Any] | None:
    """Return the two-qubit gate with the least error, as the cloud's listing has it."""
    found = [
        {"value": parameter["value"], "gate": gate["gate"], "qubits": gate["qubits"]}
        for gate in properties.get("gates", [])
        if len(gate.get("qubits", ())) == _PAIR
        for parameter in gate.get("parameters", [])
        if parameter.get("name") == "gate_error"
    ]
    return min(found, key=lambda gate: float(gate["value"]), default=None)
