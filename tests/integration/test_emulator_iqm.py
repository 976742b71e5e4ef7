# SPDX-License-Identifier: Apache-2.0
"""The emulator's IQM Server: qrmi's unmodified wheel on it, what it executes, and its faults.

tests/clients runs the unmodified iqm-client on it, which needs an older Qiskit than this environment's.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import textwrap
import time
import uuid
from typing import TYPE_CHECKING, Any

import pytest
import requests

from qpu_slurm_devkit.emulator import Account, Drop, Emulator, EventKind, Fault

if TYPE_CHECKING:
    from pathlib import Path

SECONDS = 90


def prx(qubit: str, angle: float = math.pi, phase: float = 0.0) -> dict[str, Any]:
    return {"name": "prx", "locus": [qubit], "args": {"angle": angle, "phase": phase}}


def cz(*qubits: str) -> dict[str, Any]:
    return {"name": "cz", "locus": list(qubits), "args": {}}


def measure(*qubits: str, key: str = "m") -> dict[str, Any]:
    return {"name": "measure", "locus": list(qubits), "args": {"key": key}}


def batch(*instructions: dict[str, Any], shots: int = 100, **more: object) -> dict[str, Any]:
    return {"circuits": [{"name": "one", "instructions": list(instructions)}], "shots": shots, **more}


def bell(*qubits: str, shots: int = 1000) -> dict[str, Any]:
    """Return a Bell pair, measured, in IQM's own gates."""
    first, second = qubits or ("QB1", "QB2")
    half = math.pi / 2
    return batch(
        prx(first, half, half),
        prx(second, half, half),
        cz(first, second),
        prx(second, -half, half),
        measure(first, second),
        shots=shots,
    )


class IqmApi:
    """The API in the hands of one account, without any client in between."""

    def __init__(self, url: str, token: str) -> None:
        self.url = f"{url}/api/v1"
        self.headers = {"Authorization": f"Bearer {token}"}

    @classmethod
    def of(cls, emulator: Emulator, account: Account | None = None) -> IqmApi:
        return cls(emulator.url, (account or emulator.accounts[0]).api_key)

    def send(self, method: str, path: str, *, body: object = None, **query: str) -> requests.Response:
        return requests.request(
            method, self.url + path, json=body, params=query, headers=self.headers, timeout=SECONDS
        )

    def get(self, path: str) -> Any:  # noqa: ANN401 - JSON
        response = self.send("GET", path)
        response.raise_for_status()
        return response.json()

    def submit(self, body: object, qpu: str = "garnet", **query: str) -> str:
        response = self.send("POST", f"/jobs/{qpu}/circuit", body=body, **query)
        response.raise_for_status()
        job_id: str = response.json()["id"]
        return job_id

    def ended(self, job_id: str) -> dict[str, Any]:
        deadline = time.monotonic() + SECONDS
        while (job := self.get(f"/jobs/{job_id}"))["status"] in {"waiting", "processing"}:
            assert time.monotonic() < deadline, job
            time.sleep(0.02)
        found: dict[str, Any] = job
        return found

    def counts(self, body: object, qpu: str = "garnet") -> dict[str, int]:
        job = self.ended(self.submit(body, qpu))
        assert job["status"] == "completed", job
        (found,) = self.get(f"/jobs/{job['id']}/artifacts/measurement_counts")
        counts: dict[str, int] = found["counts"]
        return counts


@pytest.fixture
def iqm(emulator: Emulator) -> IqmApi:
    return IqmApi.of(emulator)


def test_a_bell_pair_is_executed_with_the_errors_that_the_metrics_tell(iqm: IqmApi) -> None:
    counts = iqm.counts(bell())
    assert sum(counts.values()) == 1000
    right = counts["00"] + counts["11"]
    assert 850 < right < 1000  # noise
    assert abs(counts["00"] - counts["11"]) < 200


def test_both_artifacts_tell_of_the_same_shots(iqm: IqmApi) -> None:
    job = iqm.ended(
        iqm.submit(batch(prx("QB3"), measure("QB1", key="a"), measure("QB3", "QB4", key="b"), shots=50))
    )
    assert job["artifacts"] == [{"type": "measurements"}, {"type": "measurement_counts"}]
    (shots,) = iqm.get(f"/jobs/{job['id']}/artifacts/measurements")
    (counts,) = iqm.get(f"/jobs/{job['id']}/artifacts/measurement_counts")
    assert {key: (len(rows), len(rows[0])) for key, rows in shots.items()} == {"a": (50, 1), "b": (50, 2)}
    assert counts["measurement_keys"] == ["a", "b"]
    of_shots: dict[str, int] = {}
    for a, b in zip(shots["a"], shots["b"], strict=True):
        bits = "".join(map(str, a + b))
        of_shots[bits] = of_shots.get(bits, 0) + 1
    assert of_shots == counts["counts"]
    assert counts["counts"]["010"] > 40  # QB3 was flipped


def test_a_gate_where_the_architecture_has_none_fails_with_the_reason(iqm: IqmApi) -> None:
    for body, reason in (
        (batch(cz("QB1", "QB20"), measure("QB1")), "QB1-QB20 is not allowed as a locus for 'cz'"),
        (batch({"name": "move", "locus": ["QB1", "CR1"]}), "'move' is not among the calibrated gates"),
        (batch(prx("QB21"), measure("QB21")), "QB21 is not allowed as a locus for 'prx'"),
        (batch(prx("QB1")), "has no measurement"),
        (batch(measure("QB1"), heralding_mode="zeros"), "does not emulate heralding_mode='zeros'"),
    ):
        job = iqm.ended(iqm.submit(body))
        assert (job["status"], job["artifacts"]) == ("failed", [])
        assert reason in job["errors"][0]["message"]


def test_cz_has_no_order_and_logical_names_are_mapped(iqm: IqmApi) -> None:
    assert iqm.ended(iqm.submit(batch(cz("QB2", "QB1"), measure("QB1"))))["status"] == "completed"
    mapped = batch(
        prx("left"), measure("left"), qubit_mapping=[{"logical_name": "left", "physical_name": "QB7"}]
    )
    assert iqm.counts(mapped)["1"] > 80


def test_the_architectures_agree(iqm: IqmApi) -> None:
    for qpu, width, couplers in (("garnet", 20, 30), ("spark", 5, 4)):
        (static,) = iqm.get(f"/quantum-computers/{qpu}/artifacts/static-quantum-architectures")
        dynamic = iqm.get(f"/calibration-sets/{qpu}/default/dynamic-quantum-architecture")
        assert (len(static["qubits"]), len(static["connectivity"])) == (width, couplers)
        assert dynamic["gates"]["cz"]["implementations"]["tgss"]["loci"] == static["connectivity"]
        assert dynamic["qubits"] == static["qubits"]
        set_id = dynamic["calibration_set_id"]
        assert iqm.get(f"/calibration-sets/{qpu}/{set_id}")["observation_set_id"] == set_id
        assert iqm.get(f"/calibration-sets/{qpu}/default/metrics")["describes_id"] == set_id
    missing = iqm.send("GET", f"/calibration-sets/garnet/{uuid.uuid4()}")
    assert (missing.status_code, missing.json()["error_code"]) == (404, "calibration_set_not_found")


def test_a_calibration_is_another_default(emulator: Emulator, iqm: IqmApi) -> None:
    path = "/calibration-sets/garnet/default/dynamic-quantum-architecture"
    before = iqm.get(path)["calibration_set_id"]
    requests.post(
        f"{emulator.url}/emulator/backends/garnet/calibrate",
        json={"at": "2026-11-20T00:00:00+00:00"},
        timeout=SECONDS,
    ).raise_for_status()
    assert iqm.get(path)["calibration_set_id"] != before


def test_jobs_wait_while_the_qpu_is_away_and_are_not_listed(emulator: Emulator, iqm: IqmApi) -> None:
    emulator.set_backend("garnet", "paused", "Not told.")
    assert iqm.get("/quantum-computers/garnet/health")["healthy"] is False
    assert iqm.get("/quantum-computers/garnet")["operational"] == "maintenance"
    jobs = [iqm.submit(bell(), tag=f"tag {number}") for number in range(2)]
    assert [iqm.get(f"/jobs/{job_id}")["queue_position"] for job_id in jobs] == [0, 1]
    assert [task.tags for task in emulator.tasks()] == [("tag 0",), ("tag 1",)]
    assert iqm.send("GET", "/jobs").status_code in {401, 404}  # what is there is IBM's
    waited = iqm.send("GET", f"/jobs/{jobs[0]}", wait_until_terminal="true", timeout_seconds="0")
    assert waited.headers["IQM-Long-Poll-Timed-Out"] == "true"
    emulator.set_backend("garnet")
    waited = iqm.send("GET", f"/jobs/{jobs[1]}", wait_until_terminal="true", timeout_seconds="30")
    assert waited.json()["status"] == "completed"


def test_a_job_is_cancelled_once_and_deleted_at_any_time(emulator: Emulator, iqm: IqmApi) -> None:
    emulator.set_backend("garnet", "paused")
    first, second = iqm.submit(bell()), iqm.submit(bell())
    assert iqm.send("POST", f"/jobs/{first}/cancel").json()["status"] == "cancelled"
    again = iqm.send("POST", f"/jobs/{first}/cancel")
    assert (again.status_code, again.json()["error_code"]) == (403, "illegal_job_status")
    for job_id in (first, second):
        assert iqm.send("DELETE", f"/jobs/{job_id}").status_code == 204
        gone = iqm.send("GET", f"/jobs/{job_id}")
        assert (gone.status_code, gone.json()["error_code"]) == (404, "job_not_found")
    assert emulator.tasks() == []


def test_a_jobs_times_and_its_payload(emulator: Emulator, iqm: IqmApi) -> None:
    job = iqm.ended(iqm.submit(bell(), use_timeslot="true"))
    assert job["runtime_ms"] > 0
    assert [event["status"] for event in job["timeline"]] == [
        "created",
        "execution_started",
        "execution_ended",
        "ready",
    ]
    assert iqm.get(f"/jobs/{job['id']}/payload") == bell()
    (task,) = emulator.tasks()
    assert task.program_id == "circuit:timeslot"
    assert [event.kind for event in emulator.events()][-1] is EventKind.TASK_DONE


def test_what_is_refused(emulator: Emulator, iqm: IqmApi) -> None:
    for response, status, word in (
        (iqm.send("POST", "/jobs/nowhere/circuit", body=bell()), 404, "quantum_computer_not_found"),
        (iqm.send("POST", "/jobs/garnet/sweep", body=bell()), 400, "unsupported_job_type"),
        (iqm.send("POST", "/jobs/garnet/circuit", body={"shots": 1}), 400, "invalid_job_payload"),
        (iqm.send("POST", "/jobs/garnet/circuit", body=bell(), tag="x" * 51), 400, "invalid_input"),
        (IqmApi(emulator.url, "wrong").send("GET", "/quantum-computers"), 401, "unauthorized"),
    ):
        assert (response.status_code, response.json()["error_code"]) == (status, word)
    theirs = IqmApi.of(emulator, emulator.accounts[1]).submit(bell())
    assert iqm.send("GET", f"/jobs/{theirs}").json()["error_code"] == "job_not_found"


def test_faults_happen_to_its_requests(emulator: Emulator, iqm: IqmApi) -> None:
    emulator.inject(Fault(method="POST", path="/jobs/garnet/circuit", drop=Drop.AFTER))
    emulator.inject(Fault(account="premium", path="/quantum-computers", status=503))
    with pytest.raises(requests.ConnectionError):
        iqm.submit(bell())
    assert len(emulator.tasks()) == 1
    refused = iqm.send("GET", "/quantum-computers")
    assert (refused.status_code, refused.json()["error_code"]) == (503, "internal_error")


QRMI_PROGRAM = """
    import json, sys
    from qrmi import Payload, QuantumResource, ResourceStatusCode, ResourceType, TaskStatus

    qpu = QuantumResource("garnet", ResourceType.IQMServer)
    status = qpu.status()
    assert status.status == ResourceStatusCode.Online and status.healthy, status
    assert len(json.loads(qpu.target().value)["dynamic_quantum_architecture"]["qubits"]) == 20
    payload = Payload.IQMServer(
        iqmjson=sys.argv[1], job_type="circuit", use_timeslot=False, tag="mine"
    )
    task = qpu.task_start(payload)
    while qpu.task_status(task) in (TaskStatus.Queued, TaskStatus.Running):
        pass
    assert qpu.task_status(task) == TaskStatus.Completed
    result = json.loads(qpu.task_result(task).value)
    assert sorted(result) == ["measurement_counts", "measurements"]
    print(json.dumps(result["measurement_counts"][0]["counts"]))
"""


def test_qrmis_unmodified_wheel_runs_a_circuit(emulator: Emulator, tmp_path: Path) -> None:
    environ = {"PATH": os.defpath, **emulator.iqm_environ("garnet")}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(QRMI_PROGRAM), json.dumps(bell(shots=200))],
        env=environ,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS,
    )
    assert done.returncode == 0, done.stderr
    assert sum(json.loads(done.stdout.splitlines()[-1]).values()) == 200
    assert [task.tags for task in emulator.tasks()] == [("mine",)]
