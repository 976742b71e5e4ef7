# SPDX-License-Identifier: Apache-2.0
"""The unmodified qrmi wheel against the emulator, by environment variables alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import time
from typing import TYPE_CHECKING, Any

import pytest
from qiskit_ibm_runtime import RuntimeDecoder
from qrmi import (  # type: ignore[attr-defined]  # it says it is typed, and its extension has no stubs
    Payload,
    QuantumResource,
    ResourceType,
    TaskStatus,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from qpu_slurm_devkit.emulator import Account, Emulator


# Still what upstream's own examples ask first.
pytestmark = pytest.mark.filterwarnings(r"ignore:is_accessible\(\) is deprecated")


def environ(emulator: Emulator, account: Account | None = None) -> dict[str, str]:
    """Return what qrmi reads, under both names of the resource type."""
    account = account or emulator.accounts[0]
    settings = {
        "ENDPOINT": f"{emulator.url}/api/v1",
        "IAM_ENDPOINT": emulator.url,
        "IAM_APIKEY": account.api_key,
        "SERVICE_CRN": account.crn,
        "SESSION_MODE": "dedicated",
        "SESSION_MAX_TTL": "600",
    }
    named = {
        f"ibm_fez_QRMI_IBM_{type_}_{name}": value
        for type_ in ("QCS", "QRS")
        for name, value in settings.items()
    }
    return {
        **named,
        "ibm_fez_QRMI_JOB_TIMEOUT_SECONDS": "500",
        "QRMI_JOB_QPU_RESOURCES": "ibm_fez",
        "QRMI_JOB_QPU_TYPES": "ibm-quantum-compute-service",
    }


@pytest.fixture
def resource(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> Iterator[QuantumResource]:
    for name, value in environ(emulator).items():
        monkeypatch.setenv(name, value)
    yield QuantumResource("ibm_fez", ResourceType.IBMQuantumComputeService)
    monkeypatch.delenv("ibm_fez_QRMI_JOB_ACQUISITION_TOKEN", raising=False)


def end_of(resource: QuantumResource, task: str) -> TaskStatus:
    deadline = time.monotonic() + 90
    while (status := resource.task_status(task)) in {TaskStatus.Queued, TaskStatus.Running}:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return status


def test_a_resource_is_acquired_used_and_released(
    emulator: Emulator, resource: QuantumResource, bell: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert resource.is_accessible()
    assert (str(resource.status().status), resource.status().pending_job_count) == (
        "ResourceStatusCode.Online",
        0,
    )
    target = json.loads(resource.target().value)
    assert target["configuration"]["backend_name"] == "ibm_fez"
    session = resource.acquire()
    monkeypatch.setenv("ibm_fez_QRMI_JOB_ACQUISITION_TOKEN", session)
    user = QuantumResource("ibm_fez", ResourceType.IBMQiskitRuntimeService)
    parameters = {"pubs": [[bell, [], 100]], "version": 2, "support_qiskit": False}
    task = user.task_start(Payload.QiskitPrimitive(input=json.dumps(parameters), program_id="sampler"))
    assert end_of(user, task) == TaskStatus.Completed
    samples = json.loads(user.task_result(task).value)["results"][0]["data"]["meas"]["samples"]
    assert set(samples) == {"0x0", "0x3"}
    assert "2 of 2 qubits" in user.task_logs(task)
    user.task_stop(task)
    resource.release(session)
    resource.release(session)
    (record,) = emulator.sessions()
    assert (record.id, record.state, record.max_ttl) == (session, "closed", 600)
    assert [(t.session_id, t.status, t.cost) for t in emulator.tasks()] == [(session, "Completed", 500)]


def test_a_task_that_fails_is_failed(resource: QuantumResource) -> None:
    payload = Payload.QiskitPrimitive(input=json.dumps({"pubs": [["?"]], "version": 2}), program_id="sampler")
    assert end_of(resource, resource.task_start(payload)) == TaskStatus.Failed


def test_a_task_that_is_stopped_is_cancelled(
    emulator: Emulator, resource: QuantumResource, bell: str
) -> None:
    emulator.set_backend("ibm_fez", "paused", "Calibrating.")
    assert not resource.is_accessible()
    assert resource.status().status_reason == "Calibrating."
    payload = Payload.QiskitPrimitive(
        input=json.dumps({"pubs": [[bell]], "version": 2}), program_id="sampler"
    )
    task = resource.task_start(payload)
    assert resource.task_status(task) == TaskStatus.Queued
    assert resource.status().pending_job_count == 1
    resource.task_stop(task)
    assert resource.task_status(task) == TaskStatus.Cancelled


USER_PROGRAM = """
    from qiskit import QuantumCircuit
    from qiskit.circuit.library import efficient_su2
    from qiskit.quantum_info import SparsePauliOp
    from qiskit.transpiler import generate_preset_pass_manager
    from qrmi.primitives import QRMIService
    from qrmi.primitives.ibm import EstimatorV2, SamplerV2, get_backend

    (resource,) = QRMIService().resources()
    transpile = generate_preset_pass_manager(1, get_backend(resource)).run
    circuit = QuantumCircuit(2)
    circuit.x(1)
    observable = SparsePauliOp(["ZI", "IZ"], [1, 10])
    isa = transpile(circuit)
    job = EstimatorV2(resource).run([(isa, observable.apply_layout(isa.layout))], precision=1e-6)
    print(round(float(job.result()[0].data.evs), 2))
    # Twelve parameters: half a turn for the last one, nothing for the others.
    ansatz = efficient_su2(2, su2_gates=["ry"], reps=5)
    ansatz.measure_all()
    job = SamplerV2(resource).run([(transpile(ansatz), [0] * 11 + [3.14159265])], shots=10)
    print(job.result()[0].data.meas.get_counts())
"""


def run(emulator: Emulator, *arguments: str, **extra: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "ignore", *arguments],
        env={"PATH": os.defpath, **environ(emulator), **extra},
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )


def test_a_users_program_runs_in_the_session_that_it_is_told(
    emulator: Emulator, resource: QuantumResource
) -> None:
    session = resource.acquire()
    token = {"ibm_fez_QRMI_JOB_ACQUISITION_TOKEN": session}
    done = run(emulator, "-c", textwrap.dedent(USER_PROGRAM), **token)
    assert (done.stdout, done.returncode) == ("9.0\n{'10': 10}\n", 0), done.stderr
    assert {task.session_id for task in emulator.tasks()} == {session}


@pytest.mark.parametrize("support_qiskit", [True, False], ids=["qiskit", "plain"])
def test_upstreams_task_runner_runs_an_input(
    emulator: Emulator, bell: str, tmp_path: Path, *, support_qiskit: bool
) -> None:
    source, sink = tmp_path / "in.json", tmp_path / "out.json"
    parameters: dict[str, Any] = {"pubs": [[bell, [], 20]], "version": 2, "support_qiskit": support_qiskit}
    source.write_text(json.dumps({"program_id": "sampler", "parameters": parameters}))
    done = run(emulator, "-m", "qrmi.tools.task_runner.main", "ibm_fez", str(source), str(sink))
    assert done.returncode == 0, done.stderr
    result = json.loads(sink.read_text(), cls=RuntimeDecoder)
    if support_qiskit:
        assert result[0].data.meas.num_shots == 20
    else:
        assert len(result["results"][0]["data"]["meas"]["samples"]) == 20
