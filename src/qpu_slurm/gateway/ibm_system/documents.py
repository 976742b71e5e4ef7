# SPDX-License-Identifier: Apache-2.0
"""Tasks of the IBM Quantum System API in the shapes of the cloud's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qpu_slurm.gateway.gates import documents
from qpu_slurm.providers.base import TaskStatus
from qpu_slurm.providers.ibm_system.answers import status_of, task_of, times_of

if TYPE_CHECKING:
    from qpu_slurm.journal.history import TaskUse
    from qpu_slurm.providers.ibm_system.answers import Job


def job(found: Job, bucket: str) -> dict[str, Any]:
    """Describe a task as the cloud does."""
    task = task_of(found, bucket)
    quantum = times_of(found).quantum or 0
    document = documents.job(task.id, task.status, task.session_id, task.created_at, quantum)
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
    document = documents.job(use.task_id, status, use.session_id, use.created_at, use.seconds)
    if status is TaskStatus.FAILED:
        document["state"]["reason"] = "The task failed; its log says why."
    return document | {
        "backend": backend,
        "program": {"id": ""},
        "cost": 0,
        "tags": [],
        "ended": documents.text(use.ended_at),
    }


def is_over(found: Job) -> bool:
    """Whether a task will not change any more."""
    status = status_of(found)
    return status is not None and status.final
