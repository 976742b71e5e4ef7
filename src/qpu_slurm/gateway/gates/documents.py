# SPDX-License-Identifier: Apache-2.0
"""Answers in the shapes of the cloud's API, about a QPU whose service has no sessions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from qpu_slurm.gateway.answers import ApiError
from qpu_slurm.gateway.ibm import answers as ibm_answers
from qpu_slurm.gateway.upstream import WrittenAnswer
from qpu_slurm.providers.base import TaskStatus, TaskTimes

if TYPE_CHECKING:
    from datetime import datetime

    from qpu_slurm.journal.history import SessionUse
    from qpu_slurm.providers.base import QpuStatus

_LISTS_NAMES: Final = "2024-01-01"
"""The version of the API up to which QPUs are listed by name."""

_WORDS: Final = {
    TaskStatus.QUEUED: "Queued",
    TaskStatus.RUNNING: "Running",
    TaskStatus.COMPLETED: "Completed",
    TaskStatus.FAILED: "Failed",
    TaskStatus.CANCELLED: "Cancelled",
}

_PENDING: Final = frozenset({"Queued", "Running"})

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
        "started_at": None if use is None else text(use.opened_at),
        "closed_at": None if use is None else text(use.ended_at),
    }


def workload(gate: str, backend: str, use: SessionUse) -> dict[str, Any]:
    """Describe a gate as the cloud lists sessions."""
    closed = use.ended_at is not None
    return {
        "id": gate,
        "created": text(use.opened_at),
        "ended": text(use.ended_at),
        "backend": backend,
        "accepting_jobs": not closed,
        "mode": "session",
        "status": "completed" if closed else "in_progress",
        "tags": [],
    }


def job(
    task_id: str, status: TaskStatus, gate: str | None, created: datetime | None, seconds: float
) -> dict[str, Any]:
    """Describe a task, as far as all kinds of services tell."""
    word = _WORDS.get(status, "Running")
    return {
        "id": task_id,
        "status": word,
        "state": {"status": word},
        "session_id": gate,
        "created": text(created) or "",
        "usage": {"seconds": seconds},
        "estimated_running_time_seconds": seconds,
        "private": False,
    }


def metrics(document: dict[str, Any], times: TaskTimes | None = None) -> dict[str, Any]:
    """Write a task's times and usage, from its description, and its place in the queue, if that is told."""
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
            "status": "pending" if is_pending(document) else "final",
        },
        "position_in_queue": None if times is None else times.position,
    }


def is_pending(document: dict[str, Any]) -> bool:
    """Whether a task that was described may change still."""
    return document["status"] in _PENDING


def text(time: datetime | None) -> str | None:
    """Write a time as the cloud does."""
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
