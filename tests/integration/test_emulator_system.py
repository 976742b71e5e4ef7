# SPDX-License-Identifier: Apache-2.0
"""The emulator's IBM Quantum System API: qrmi's unmodified wheel on it, its storage and its faults."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import time
import uuid
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
import requests
from botocore.auth import S3SigV4Auth, S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from qiskit_ibm_runtime import RuntimeDecoder
from qrmi import (  # type: ignore[attr-defined]  # it says it is typed, and its extension has no stubs
    Payload,
    QuantumResource,
    ResourceType,
    TaskStatus,
)

from qpu_slurm_devkit.emulator import Account, Drop, Emulator, Fault
from tests.integration.test_emulator_qrmi import USER_PROGRAM

if TYPE_CHECKING:
    from pathlib import Path

SECONDS = 90


class SystemApi:
    """The API and its storage in the hands of one account, without any client in between."""

    def __init__(self, emulator: Emulator, account: Account | None = None) -> None:
        self.emulator = emulator
        self.account = account or emulator.accounts[0]
        grant = {"grant_type": "urn:ibm:params:oauth:grant-type:apikey", "apikey": self.account.api_key}
        token = requests.post(f"{emulator.url}/identity/token", data=grant, timeout=SECONDS).json()
        self.headers = {
            "Authorization": f"Bearer {token['access_token']}",
            "Service-CRN": self.account.crn,
        }

    def send(self, method: str, path: str, *, json: object = None) -> requests.Response:
        url = f"{self.emulator.url}/system/v1{path}"
        return requests.request(method, url, json=json, headers=self.headers, timeout=SECONDS)

    def presign(
        self, method: str, key: str, *, expires: int = 600, secret: str = "", bucket: str = ""
    ) -> str:
        storage = self.account.storage
        credentials = Credentials(storage.access_key_id, secret or storage.secret)
        path = f"{bucket or storage.bucket}/{quote(key)}"
        request = AWSRequest(method, f"{self.emulator.url}/s3/{path}")
        S3SigV4QueryAuth(credentials, "s3", "us-east-1", expires=expires).add_auth(request)
        url: str = request.url
        return url

    def request(self, task_id: str, **fields: object) -> dict[str, Any]:
        """Return the body of a submission."""
        places = {
            name: {"type": "s3_compatible", "presigned_url": self.presign(method, f"{name}_{task_id}.json")}
            for name, method in (("input", "GET"), ("results", "PUT"), ("logs", "PUT"))
        }
        body = {"id": task_id, "backend": "ibm_fez", "program_id": "sampler", "timeout_secs": 300}
        return {**body, "storage": places, **fields}

    def submit(self, circuit: str, task_id: str = "", **fields: object) -> str:
        task_id = task_id or str(uuid.uuid4())
        parameters = {"pubs": [[circuit, None, 20]], "version": 2, "support_qiskit": False}
        stored = requests.put(
            self.presign("PUT", f"input_{task_id}.json"), data=json.dumps(parameters), timeout=SECONDS
        )
        stored.raise_for_status()
        self.send("POST", "/jobs", json=self.request(task_id, **fields)).raise_for_status()
        return task_id

    def task(self, task_id: str) -> dict[str, Any]:
        document: dict[str, Any] = self.send("GET", f"/jobs/{task_id}").json()
        return document

    def end_of(self, task_id: str) -> dict[str, Any]:
        deadline = time.monotonic() + SECONDS
        while (task := self.task(task_id))["status"] == "Running":
            assert time.monotonic() < deadline
            time.sleep(0.02)
        return task

    def object(self, key: str) -> requests.Response:
        return requests.get(self.presign("GET", key), timeout=SECONDS)


@pytest.fixture
def system(emulator: Emulator) -> SystemApi:
    return SystemApi(emulator)


def refusal(response: requests.Response) -> tuple[int, str]:
    """Return the status and the service's code."""
    document = response.json()
    assert document["status_code"] == response.status_code
    assert document["trace"]
    return response.status_code, document["errors"][0]["code"]


def test_qrmis_resource_runs_a_task(emulator: Emulator, bell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in emulator.system_environ("ibm_fez").items():
        monkeypatch.setenv(name, value)
    resource = QuantumResource("ibm_fez", ResourceType.IBMQuantumSystem)
    status = resource.status()
    assert str(status.status) == "ResourceStatusCode.Online"
    assert (status.capacity.available_slots, status.capacity.max_slots) == (5, 5)
    target = json.loads(resource.target().value)
    assert target["configuration"]["backend_name"] == target["properties"]["backend_name"] == "ibm_fez"
    parameters = {"pubs": [[bell, [], 100]], "version": 2, "support_qiskit": False}
    task = resource.task_start(Payload.QiskitPrimitive(input=json.dumps(parameters), program_id="sampler"))
    deadline = time.monotonic() + SECONDS
    while resource.task_status(task) == TaskStatus.Running:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    samples = json.loads(resource.task_result(task).value)["results"][0]["data"]["meas"]["samples"]
    assert (len(samples), set(samples)) == (100, {"0x0", "0x3"})
    assert "2 of 2 qubits" in resource.task_logs(task)
    assert [(record.id, record.status, record.cost) for record in emulator.tasks()] == [
        (task, "Completed", 300)
    ]
    resource.task_stop(task)
    assert emulator.tasks() == []
    assert emulator.sessions() == []


def test_a_qpu_that_is_paused_takes_tasks_and_says_why(
    emulator: Emulator, system: SystemApi, bell: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in emulator.system_environ("ibm_fez").items():
        monkeypatch.setenv(name, value)
    resource = QuantumResource("ibm_fez", ResourceType.IBMQuantumSystem)
    emulator.set_backend("ibm_fez", "paused", "Calibrating.")
    assert str(resource.status().status) == "ResourceStatusCode.Paused"
    # qrmi does not pass the reason on.
    assert system.send("GET", "/backends/ibm_fez").json()["message"] == "Calibrating."
    task = system.submit(bell)
    assert resource.task_status(task) == TaskStatus.Running  # there is no word for a task that waits
    assert resource.status().capacity.available_slots == 4
    emulator.set_backend("ibm_fez")
    assert system.end_of(task)["status"] == "Completed"


def run(emulator: Emulator, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "ignore", *arguments],
        env={"PATH": os.defpath, **emulator.system_environ("ibm_fez")},
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )


def test_a_users_program_runs_on_it_and_leaves_no_task(emulator: Emulator) -> None:
    done = run(emulator, "-c", textwrap.dedent(USER_PROGRAM))
    assert (done.stdout, done.returncode) == ("9.0\n{'10': 10}\n", 0), done.stderr
    posts = [request for request in emulator.requests() if request.path == "/system/v1/jobs"]
    assert [request.method for request in posts].count("POST") == 2
    assert emulator.tasks() == []


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


def test_a_task_says_what_became_of_it(system: SystemApi, bell: str) -> None:
    task_id = system.submit(bell)
    task = system.end_of(task_id)
    assert (task["status"], task["program_id"], task["timeout_secs"]) == ("Completed", "sampler", 300)
    assert task["usage"]["quantum_nanoseconds"] > 0
    assert task["end_time"] > task["created_time"]
    assert f"/input_{task_id}.json?" in task["storage"]["input"]["presigned_url"]
    assert system.send("GET", "/jobs").json()["jobs"] == [task]
    assert len(system.object(f"results_{task_id}.json").json()["results"]) == 1
    assert system.send("GET", "/backends/ibm_fez").json()["status"] == "online"
    names = [backend["name"] for backend in system.send("GET", "/backends").json()["backends"]]
    assert names == ["ibm_fez", "ibm_torino"]


def test_an_input_that_is_no_circuit_fails_its_task(system: SystemApi) -> None:
    task_id = system.submit("no circuit")
    task = system.end_of(task_id)
    assert (task["status"], task["reason_code"]) == ("Failed", 1002)
    assert task["reason_message"]
    assert system.object(f"logs_{task_id}.json").text
    assert system.object(f"results_{task_id}.json").status_code == 404


def test_a_task_without_an_input_fails(system: SystemApi) -> None:
    assert system.send("POST", "/jobs", json=system.request("1")).status_code == 204
    task = system.end_of("1")
    assert (task["status"], task["reason_message"]) == (
        "Failed",
        "The storage does not give the input, or does not take the result: 404.",
    )


def test_a_task_that_is_over_keeps_its_lane_until_it_is_deleted(system: SystemApi, bell: str) -> None:
    tasks = [system.submit(bell) for _ in range(5)]
    for task in tasks:
        system.end_of(task)
    assert refusal(system.send("POST", "/jobs", json=system.request("sixth"))) == (429, "1232")
    system.submit(bell, backend="ibm_torino")  # another QPU has lanes of its own
    assert system.send("DELETE", f"/jobs/{tasks[0]}").status_code == 204
    system.submit(bell, "sixth")


def test_an_id_is_taken_once(emulator: Emulator, system: SystemApi, bell: str) -> None:
    emulator.inject(Fault(method="POST", path="/system/v1/jobs", drop=Drop.AFTER))
    with pytest.raises(requests.ConnectionError):
        system.submit(bell, "mine")
    assert refusal(system.send("POST", "/jobs", json=system.request("mine"))) == (409, "1231")
    assert [task.id for task in emulator.tasks()] == ["mine"]


def test_a_task_is_cancelled_once_and_deleted_when_it_is_over(
    emulator: Emulator, system: SystemApi, bell: str
) -> None:
    emulator.set_backend("ibm_fez", "paused")
    task = system.submit(bell)
    assert refusal(system.send("DELETE", f"/jobs/{task}")) == (409, "1337")
    assert system.send("POST", f"/jobs/{task}/cancel").status_code == 204
    assert system.task(task)["status"] == "Cancelled"
    assert refusal(system.send("POST", f"/jobs/{task}/cancel")) == (409, "1306")
    assert system.send("DELETE", f"/jobs/{task}").status_code == 204
    for method, path in (("GET", ""), ("POST", "/cancel"), ("DELETE", "")):
        assert refusal(system.send(method, f"/jobs/{task}{path}")) == (404, "1291")


def test_a_task_that_runs_longer_than_it_may_is_cancelled(slow_emulator: Emulator, bell: str) -> None:
    slow_emulator.reset()
    system = SystemApi(slow_emulator)
    task = system.submit(bell, timeout_secs=30)
    slow_emulator.wait_for(lambda emulator: emulator.tasks()[0].status == "Running")
    slow_emulator.advance(31)
    assert (system.task(task)["status"], system.task(task)["reason_code"]) == ("Cancelled", 1305)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"backend": "ibm_nowhere"}, (404, "1216")),
        ({"program_id": "executor"}, (400, "1337")),
        ({"id": ""}, (400, "1208")),
        ({"timeout_secs": 0}, (400, "1208")),
        ({"storage": {}}, (400, "1208")),
    ],
    ids=["backend", "program", "id", "timeout", "storage"],
)
def test_a_submission_that_is_wrong_is_refused(
    system: SystemApi, fields: dict[str, object], expected: tuple[int, str]
) -> None:
    assert refusal(system.send("POST", "/jobs", json=system.request("1") | fields)) == expected
    assert system.send("GET", "/jobs").json() == {"jobs": []}


def test_a_credential_is_asked_for(emulator: Emulator, system: SystemApi) -> None:
    response = requests.get(f"{emulator.url}/system/v1/jobs", timeout=SECONDS)
    assert refusal(response) == (401, "1200")
    system.headers["Service-CRN"] = "crn:v1:of:somebody:else"
    assert refusal(system.send("GET", "/jobs")) == (403, "1200")


def test_accounts_do_not_see_each_others_tasks(emulator: Emulator, system: SystemApi, bell: str) -> None:
    task = system.submit(bell)
    other = SystemApi(emulator, emulator.accounts[1])
    assert other.send("GET", "/jobs").json() == {"jobs": []}
    assert refusal(other.send("GET", f"/jobs/{task}")) == (404, "1291")


def test_faults_come_in_the_shape_of_what_they_happen_to(emulator: Emulator, system: SystemApi) -> None:
    emulator.inject(Fault(path="/system/v1/backends", status=503))
    assert refusal(system.send("GET", "/backends")) == (503, "1000")
    emulator.inject(Fault(path="/s3/*", status=503))
    response = system.object("nothing")
    assert (response.status_code, "<Code>InternalError</Code>" in response.text) == (503, True)
    records = [(request.path, request.status, request.fault) for request in emulator.requests()][-2:]
    assert records == [
        ("/system/v1/backends", 503, "status 503"),
        ("/s3/premium/nothing", 503, "status 503"),
    ]


def test_a_result_that_cannot_be_stored_fails_its_task(
    emulator: Emulator, system: SystemApi, bell: str
) -> None:
    emulator.inject(Fault(method="PUT", path="/s3/premium/results_*", status=500))
    task = system.end_of(system.submit(bell))
    assert task["reason_message"].endswith("does not take the result: 500.")


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        ({"secret": "another"}, "SignatureDoesNotMatch"),
        ({"bucket": "open"}, "AccessDenied"),
        ({"expires": -1}, "AccessDenied"),
    ],
    ids=["secret", "bucket", "expired"],
)
def test_the_storage_checks_signatures(system: SystemApi, wrong: dict[str, Any], code: str) -> None:
    response = requests.put(system.presign("PUT", "a", **wrong), data=b"1", timeout=SECONDS)
    assert (response.status_code, f"<Code>{code}</Code>" in response.text) == (403, True)


def test_a_url_is_good_for_what_was_signed(emulator: Emulator, system: SystemApi) -> None:
    assert requests.put(system.presign("PUT", "a b:c"), data=b"1", timeout=SECONDS).status_code == 200
    assert system.object("a b:c").content == b"1"
    url = system.presign("GET", "a b:c")
    assert requests.get(url.replace("a%20b%3Ac", "%61%20b:c"), timeout=SECONDS).content == b"1"
    statuses = [
        requests.request(method, altered, timeout=SECONDS).status_code
        for method, altered in (
            ("DELETE", url),
            ("GET", url.replace("/a", "/b")),
            ("GET", url.partition("?")[0]),
            ("GET", f"{url}&versionId=1"),
        )
    ]
    assert statuses == [403, 403, 403, 403]
    emulator.advance(601)
    assert requests.get(url, timeout=SECONDS).status_code == 403


def test_the_storage_takes_signatures_in_a_header(emulator: Emulator, system: SystemApi) -> None:
    storage = system.account.storage
    url = f"{emulator.url}/s3/{storage.bucket}"

    def get(secret: str, timestamp_off: int = 0) -> requests.Response:
        request = AWSRequest("GET", f"{url}?list-type=2&prefix=a")
        S3SigV4Auth(Credentials(storage.access_key_id, secret), "s3", "us-east-1").add_auth(request)
        headers = dict(request.headers)
        if timestamp_off:
            headers["X-Amz-Date"] = "20200101T000000Z"
        return requests.get(request.url, headers=headers, timeout=SECONDS)

    requests.put(system.presign("PUT", "a/1"), data=b"1", timeout=SECONDS)
    assert "<Key>a/1</Key>" in get(storage.secret).text
    assert get("another").status_code == 403
    assert "<Code>RequestTimeTooSkewed</Code>" in get(storage.secret, 1).text


def test_a_reset_forgets_tasks_and_objects(emulator: Emulator, system: SystemApi, bell: str) -> None:
    task = system.submit(bell)
    system.end_of(task)
    emulator.reset()
    assert system.send("GET", "/jobs").json() == {"jobs": []}
    assert system.object(f"input_{task}.json").status_code == 404
