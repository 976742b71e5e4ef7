# SPDX-License-Identifier: Apache-2.0
"""QPUs and tasks of an IQM Server in the shapes of the cloud's API."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from qpu_slurm.gateway.gates import documents
from qpu_slurm.providers.iqm.answers import task_of, usage_of

if TYPE_CHECKING:
    from datetime import datetime

    from qpu_slurm.providers.base import Device
    from qpu_slurm.providers.iqm.answers import Job
    from qpu_slurm.providers.iqm.ledger import Entry


def configuration(backend: str, found: Device) -> bytes:
    """Write what circuits have to fit as the cloud does. `component_names` is ours: IQM names its qubits."""
    gates = [
        {"name": name, "parameters": [], "qasm_def": "", "coupling_map": sorted(map(list, places))}
        for name, places in sorted(found.places.items())
    ]
    return msgspec.json.encode(
        {
            "backend_name": backend,
            "backend_version": "",
            "n_qubits": found.qubits,
            "basis_gates": [gate["name"] for gate in gates],
            "gates": gates,
            "coupling_map": sorted(map(list, found.coupled)),
            "max_shots": found.max_shots,
            "simulator": False,
            "local": False,
            "conditional": False,
            "open_pulse": False,
            "memory": True,
            "component_names": found.names,
        }
    )


def properties(backend: str, calibrated_at: datetime | None) -> bytes:
    """Write when a QPU was calibrated last as the cloud does."""
    return msgspec.json.encode(
        {
            "backend_name": backend,
            "backend_version": "",
            "last_update_date": documents.text(calibrated_at),
            "qubits": [],
            "gates": [],
            "general": [],
        }
    )


def job(found: Job, entry: Entry | None, backend: str) -> dict[str, Any]:
    """Describe a task as the cloud does.

    Args:
        found: The task, as the server describes it.
        entry: What is written down of it.
        backend: The server's alias of the QPU.
    """
    task = task_of(found, entry.gate if entry else None, entry.tags if entry else ())
    used = usage_of(found)
    document = documents.job(task.id, task.status, task.session_id, task.created_at, used.seconds)
    if task.reason:
        document["state"]["reason"] = task.reason
    if used.ended_at is not None:
        document["ended"] = documents.text(used.ended_at)
    return document | {"backend": backend, "program": {"id": "circuit"}, "cost": 0, "tags": task.tags}
