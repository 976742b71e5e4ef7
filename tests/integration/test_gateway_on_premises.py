# SPDX-License-Identifier: Apache-2.0
"""A QPU behind the IBM Quantum System API, as jobs see it: programs for the cloud run on it, with no key."""

from __future__ import annotations

import json
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from typing import TYPE_CHECKING, Any

import pytest
from qiskit_ibm_runtime import RuntimeDecoder

from qpu_slurm import providers, read_result
from qpu_slurm.config.budgets import Budget, Period, Scope
from qpu_slurm.errors import RefusedError
from qpu_slurm.job.variables import from_environ
from qpu_slurm.journal.model import LeaseState
from qpu_slurm_devkit.emulator import Drop, Emulator, Fault
from tests.integration.gateway_site import FROM_UPSTREAM, ON_PREMISES, Job, Site, program, run
from tests.integration.steps import TASK_RUNNER, sampler_input

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from qpu_slurm.journal.model import Lease

SECONDS = 90

QPUS = ON_PREMISES


@pytest.fixture
def site(module_site: Site) -> Iterator[Site]:
    module_site.emulator.reset()
    yield module_site
    module_site.forget()


@pytest.fixture
def job(site: Site) -> Iterator[Job]:
    with site.job(site.acquire("ibm_torino")) as job:
        yield job


def end_of(job: Job, task_id: str) -> dict[str, Any]:
    deadline = time.monotonic() + SECONDS
    while (task := job.get(f"/jobs/{task_id}", exclude_params="true"))["status"] == "Running":
        assert time.monotonic() < deadline
        time.sleep(0.02)
    found: dict[str, Any] = task
    return found


def until_retired(site: Site) -> None:
    site.emulator.wait_for(lambda emulator: emulator.tasks() == [])


def test_a_job_sees_no_key_and_no_storage(job: Job) -> None:
    text = json.dumps(job.environ)
    account = job.site.account
    for secret in (account.api_key, account.storage.secret, account.storage.access_key_id, "/s3", "/system"):
        assert secret not in text
    assert job.session_id.startswith("gate-")


def test_ibms_own_client_runs_in_the_jobs_gate(job: Job) -> None:
    done = program(
        job,
        """
        import os
        from qiskit import QuantumCircuit, generate_preset_pass_manager
        from qiskit_ibm_runtime import QiskitRuntimeService, SamplerV2, Session

        service = QiskitRuntimeService()
        (backend,) = service.backends()
        session = Session.from_id(os.environ["ibm_torino_QRMI_JOB_ACQUISITION_TOKEN"], service=service)
        circuit = QuantumCircuit(3)
        circuit.x([0, 2])
        circuit.measure_all()
        isa = generate_preset_pass_manager(optimization_level=1, backend=backend).run(circuit)
        job = SamplerV2(session).run([isa], shots=100)
        print(job.result()[0].data.meas.get_counts(), backend.name, session.status())
        print(job.usage() > 0, str(job.status()), "2 of" in (job.logs() or "") or "qubits" in job.logs())
        again = Session(backend)
        print(again.session_id == session.session_id)
        print([found.job_id() for found in service.jobs()] == [job.job_id()])
        again.close()
        print(session.status())
        """,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "{'101': 100} ibm_torino In progress, accepting new jobs",
        "True DONE True",
        "True",
        "True",
        "Closed",
    ]
    assert job.site.emulator.sessions() == []


def test_a_program_that_names_no_session_may_run_more_tasks_than_there_are_lanes(job: Job) -> None:
    done = program(
        job,
        """
        from qiskit import QuantumCircuit
        from qiskit.transpiler import generate_preset_pass_manager
        from qiskit_ibm_runtime import QiskitRuntimeService, SamplerV2 as Sampler

        service = QiskitRuntimeService()
        backend = service.least_busy(simulator=False, operational=True)
        circuit = QuantumCircuit(3)
        circuit.x([0, 2])
        circuit.measure_all()
        isa = generate_preset_pass_manager(optimization_level=1, backend=backend).run(circuit)
        sampler = Sampler(mode=backend)
        for _ in range(7):
            job = sampler.run([isa], shots=100)
            print(job.result()[0].data.meas.get_counts(), job.session_id)
        """,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [f"{{'101': 100}} {job.session_id}"] * 7


def test_upstreams_library_acquires_uses_and_releases_what_the_job_holds(job: Job, bell: str) -> None:
    done = program(
        job,
        f"""
        import json, os, time
        from qrmi import Payload, QuantumResource, ResourceType, TaskStatus

        resource = QuantumResource("ibm_torino", ResourceType.IBMQuantumComputeService)
        session = resource.acquire()
        print(session == os.environ["ibm_torino_QRMI_JOB_ACQUISITION_TOKEN"])
        text = json.dumps({{"pubs": [[{bell!r}, [], 100]], "version": 2, "support_qiskit": False}})
        task = resource.task_start(Payload.QiskitPrimitive(input=text, program_id="sampler"))
        while resource.task_status(task) in (TaskStatus.Queued, TaskStatus.Running):
            time.sleep(0.05)
        print(len(json.loads(resource.task_result(task).value)["results"][0]["data"]["meas"]["samples"]))
        print("2 of 2 qubits" in resource.task_logs(task))
        resource.task_stop(task)
        resource.release(session)
        """,
    )
    assert (done.stdout, done.returncode) == ("True\n100\nTrue\n", 0), done.stderr


def test_a_user_sees_what_the_service_does_not_do(job: Job) -> None:
    limits = {report.qpu: report.limits for report in job.site.hooks().qpus()}
    assert limits == {
        "ibm_fez": (),
        "torino": (),
        "own": (),
        "ibm_torino": ("no sessions", "sampler and estimator only", "tasks that wait count as running"),
    }


def test_upstreams_primitives_run_in_the_jobs_gate(job: Job) -> None:
    done = program(
        job,
        """
        from qiskit import QuantumCircuit
        from qiskit.quantum_info import SparsePauliOp
        from qiskit.transpiler import generate_preset_pass_manager
        from qrmi.primitives import QRMIService
        from qrmi.primitives.ibm import EstimatorV2, SamplerV2, get_backend

        (resource,) = QRMIService().resources()
        status = resource.status()
        print(status.status, resource.metadata()["backend_name"])
        circuit = QuantumCircuit(2)
        circuit.x(1)
        manager = generate_preset_pass_manager(1, get_backend(resource))
        isa = manager.run(circuit)
        observable = SparsePauliOp("ZZ").apply_layout(isa.layout)
        print(round(float(EstimatorV2(resource).run([(isa, observable)]).result()[0].data.evs)))
        circuit.measure_all()
        print(SamplerV2(resource).run([manager.run(circuit)], shots=10).result()[0].data.meas.get_counts())
        """,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["ResourceStatusCode.Online ibm_torino", "-1", "{'10': 10}"]
    tasks = {task["session_id"] for task in job.get("/jobs")["jobs"]}
    assert tasks == {job.session_id}


def test_our_task_runner_runs_an_input(job: Job, tmp_path: Path) -> None:
    (tmp_path / "in.json").write_text(sampler_input())
    done = run(job, TASK_RUNNER, "ibm_torino", "in.json", "out.json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert read_result(tmp_path / "out.json")[0].data.c.get_counts() == {"1": 100}


def test_a_qpu_of_upstreams_configuration_has_its_keys_in_the_gateway_alone(
    emulator: Emulator, tmp_path: Path
) -> None:
    with Site(emulator, text=FROM_UPSTREAM) as site:
        site.start()
        with site.job(site.acquire("ibm_torino")) as job:
            (tmp_path / "in.json").write_text(sampler_input())
            done = run(job, TASK_RUNNER, "ibm_torino", "in.json", "out.json", cwd=tmp_path)
            assert done.returncode == 0, done.stderr
            assert site.account.storage.secret not in json.dumps(job.environ)
        assert read_result(tmp_path / "out.json")[0].data.c.get_counts() == {"1": 100}


def test_a_result_that_is_too_large_to_keep_goes_to_the_client_in_pieces(tmp_path: Path) -> None:
    size = 3 << 20
    with Emulator(result_bytes=size, task_seconds=0.3) as emulator, Site(emulator, qpus=ON_PREMISES) as site:
        site.start()
        with site.job(site.acquire("ibm_torino")) as job:
            for number in range(3):
                (tmp_path / f"{number}.json").write_text(sampler_input())
                sink = tmp_path / f"result-{number}.json"
                done = run(job, TASK_RUNNER, "ibm_torino", f"{number}.json", sink.name, cwd=tmp_path)
                assert done.returncode == 0, done.stderr
                assert sink.stat().st_size > size - 100
        assert site.events("a task could not be watched") == []


def test_our_task_runner_runs_many_inputs_at_once(job: Job, tmp_path: Path) -> None:
    for number in range(8):
        (tmp_path / f"{number}.json").write_text(sampler_input())
    inputs = [f"{number}.json" for number in range(8)]
    (tmp_path / "out").mkdir()
    done = run(job, TASK_RUNNER, "ibm_torino", *inputs, "--jobs", "8", "--output-dir", "out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "out").iterdir())) >= 8


def test_the_python_api_transpiles_and_executes(job: Job, tmp_path: Path) -> None:
    done = run(
        job,
        sys.executable,
        "-W",
        "ignore",
        "-c",
        textwrap.dedent(
            """
            from qiskit import QuantumCircuit, generate_preset_pass_manager
            from qpu_slurm import Qpu, execute, write_sampler_input

            qpu = Qpu.of_job()
            circuit = QuantumCircuit(2)
            circuit.x(1)
            circuit.measure_all()
            isa = generate_preset_pass_manager(1, qpu.backend()).run(circuit)
            write_sampler_input("in.json", [isa], shots=20)
            print(execute("in.json")[0].data.meas.get_counts())
            """
        ),
        cwd=tmp_path,
    )
    assert (done.stdout, done.returncode) == ("{'10': 20}\n", 0), done.stderr


def test_a_task_that_is_over_is_retired_and_its_result_stays(job: Job, bell: str) -> None:
    task_id = job.submit(params={"pubs": [[bell, None, 20]], "version": 2, "support_qiskit": False})
    task = end_of(job, task_id)
    until_retired(job.site)

    assert end_of(job, task_id) == task
    assert (task["status"], task["session_id"], task["program"]) == (
        "Completed",
        job.session_id,
        {"id": "sampler"},
    )
    result = job.send("GET", f"/jobs/{task_id}/results")
    assert result.headers["Content-Type"].startswith("text/plain")
    assert len(result.json()["results"]) == 1
    assert "qubits" in job.send("GET", f"/jobs/{task_id}/logs").text
    assert job.get(f"/jobs/{task_id}/metrics")["usage"]["quantum_seconds"] > 0
    assert [found["id"] for found in job.get("/jobs")["jobs"]] == [task_id]


def test_a_gateway_that_starts_again_knows_tasks_that_were_retired(site: Site, bell: str) -> None:
    with site.job(site.acquire("ibm_torino")) as job:
        task_id = job.submit(params={"pubs": [[bell, None, 20]], "version": 2, "support_qiskit": False})
        end_of(job, task_id)
        until_retired(site)
        site.kill()
        site.start()
        assert end_of(job, task_id)["status"] == "Completed"
        assert job.send("GET", f"/jobs/{task_id}/results").json()["results"]


def test_a_task_that_fails_says_why(job: Job) -> None:
    task = end_of(job, job.submit())
    assert task["status"] == "Failed"
    assert task["state"]["reason"]


def test_a_task_is_cancelled_and_deleted(job: Job, bell: str) -> None:
    job.site.emulator.set_backend("ibm_torino", "paused", "Calibrating.")
    task_id = job.submit(params={"pubs": [[bell]], "version": 2, "support_qiskit": False})
    assert job.get("/backends/ibm_torino/status")["message"] == "Calibrating."
    assert job.send("DELETE", f"/jobs/{task_id}").status_code == 400
    assert job.send("POST", f"/jobs/{task_id}/cancel").status_code == 204
    assert end_of(job, task_id)["status"] == "Cancelled"
    assert job.send("POST", f"/jobs/{task_id}/cancel").status_code == 409


def test_a_job_sees_its_own_tasks_alone(site: Site, bell: str) -> None:
    with site.job(site.acquire("ibm_torino")) as first, site.job(site.acquire("ibm_torino")) as second:
        task_id = first.submit(params={"pubs": [[bell]], "version": 2, "support_qiskit": False})
        for method, path in (
            ("GET", f"/jobs/{task_id}"),
            ("GET", f"/jobs/{task_id}/results"),
            ("GET", f"/jobs/{task_id}/logs"),
            ("POST", f"/jobs/{task_id}/cancel"),
            ("DELETE", f"/jobs/{task_id}"),
            ("GET", f"/sessions/{first.session_id}"),
            ("DELETE", f"/sessions/{first.session_id}/close"),
        ):
            assert second.send(method, path).status_code == 403, path
        assert second.get("/jobs")["jobs"] == []
        answer = second.send("POST", "/jobs", json=first.submission())
        assert answer.status_code == 403


def test_nothing_is_submitted_into_a_gate_that_the_job_has_closed(job: Job, bell: str) -> None:
    closed = job.session_id
    assert job.send("PATCH", f"/sessions/{closed}", json={"accepting_jobs": False}).status_code == 204
    assert job.get(f"/sessions/{closed}")["state"] == "closed"
    answer = job.send("POST", "/jobs", json=job.submission(session_id=closed))
    assert (answer.status_code, answer.json()["errors"][0]["code"]) == (400, 1217)
    # Without a session, it runs in a new one.
    document = job.submission(params={"pubs": [[bell, None, 20]], "version": 2, "support_qiskit": False})
    del document["session_id"]
    answer = job.send("POST", "/jobs", json=document)
    assert answer.ok, answer.text
    assert answer.json()["session_id"] != closed


def test_a_large_input_arrives_as_it_is(job: Job, bell: str) -> None:
    params = {"pubs": [[bell, None, 20]] * 2000, "version": 2, "support_qiskit": False}
    assert len(json.dumps(params)) > 400_000
    job.site.emulator.set_backend("ibm_torino", "paused")
    task_id = job.submit(params=params, tags=["a", "b"], cost=42)
    (record,) = job.site.emulator.tasks()
    assert (record.id, record.cost) == (task_id, 42)
    (stored,) = [
        request
        for request in job.site.emulator.requests()
        if request.method == "PUT" and task_id in request.path
    ]
    assert stored.path.startswith(f"/s3/premium/qpu_slurm/{job.session_id}/a/b/input_")
    task = job.get(f"/jobs/{task_id}")
    assert (task["tags"], task["cost"]) == (["a", "b"], 42)
    job.send("POST", f"/jobs/{task_id}/cancel")


def test_what_a_job_left_is_cancelled_accounted_for_and_deleted(site: Site, bell: str) -> None:
    lease = site.acquire("ibm_torino")
    with site.job(lease) as job:
        done = job.submit(params={"pubs": [[bell, None, 20]], "version": 2, "support_qiskit": False})
        end_of(job, done)
        until_retired(site)
        site.emulator.set_backend("ibm_torino", "paused")
        left = job.submit(params={"pubs": [[bell]], "version": 2, "support_qiskit": False})
        (released,) = site.hooks().release(lease.job_id, "The job ended.")
        assert released.state is LeaseState.RELEASED
        assert job.send("GET", f"/jobs/{done}").status_code == 401
    deadline = time.monotonic() + SECONDS
    while site.journal.history.unaccounted():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    [session] = site.journal.history.sessions(lease.id)
    assert session.executed_seconds is not None
    assert session.executed_seconds > 0
    tasks = {task.task_id: task.status for task in site.journal.history.tasks(session.session_id)}
    assert tasks == {done: "completed", left: "cancelled"}
    assert site.emulator.tasks() == []
    written = {request.path for request in site.emulator.requests() if request.method == "PUT"}
    deleted = {request.path for request in site.emulator.requests() if request.method == "DELETE"}
    assert {path for path in written if path.startswith("/s3/")} <= deleted


def test_a_tag_lets_no_task_count_in_another_jobs_gate(site: Site, bell: str) -> None:
    """Who writes another job's gate on a task would have it paid, and then forgotten, by that job."""
    lease = site.acquire("ibm_torino")
    with site.job(site.acquire("ibm_torino")) as job, site.job(lease) as other:
        site.emulator.set_backend("ibm_torino", "paused")
        params = {"pubs": [[bell]], "version": 2, "support_qiskit": False}
        task_id = job.submit(params=params, tags=[other.session_id, "mine"])
        assert other.get("/jobs")["jobs"] == []
        assert [task["id"] for task in job.get("/jobs")["jobs"]] == [task_id]
        site.release(lease)
        accounted(site, lease)
        assert site.journal.history.tasks(other.session_id) == []
        assert job.get(f"/jobs/{task_id}")["status"] == "Running"


def test_a_budget_ends_a_gate_while_its_job_runs(bell: str) -> None:
    with Emulator(task_seconds=1.5) as emulator, Site(emulator, qpus=ON_PREMISES) as site:
        budget = Budget(scope=Scope(), period=Period.PROJECT, ends=date(2999, 1, 1), limit=1)
        site.journal.budgets.put(budget, by=0, reason="a test")
        with site.start().job(site.acquire("ibm_torino")) as job:
            document = job.submission(params={"pubs": [[bell]], "version": 2, "support_qiskit": False})
            end_of(job, job.send("POST", "/jobs", json=document).json()["id"])  # it overspends the budget
            answers = [job.send("POST", "/jobs", json=document)]
            del document["session_id"]
            answers.append(job.send("POST", "/jobs", json=document))
        for answer in answers:
            assert answer.status_code == 403, answer.text
            assert "is used up: " in answer.json()["errors"][0]["message"]


@pytest.fixture
def reaped() -> Iterator[Site]:
    """Return a site whose reaper looks every second."""
    with Emulator() as emulator, Site(emulator, 'reap_every = "1s"', qpus=ON_PREMISES) as site:
        yield site.start()


def ended_and_accounted(site: Site, lease: Lease) -> str:
    """End a job; return its gate."""
    (released,) = site.hooks().release(lease.job_id, "The job ended.")
    assert released.state is LeaseState.RELEASED
    return accounted(site, lease)


def accounted(site: Site, lease: Lease) -> str:
    deadline = time.monotonic() + SECONDS
    while site.journal.history.unaccounted():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    [session] = site.journal.history.sessions(lease.id)
    assert session.locked_seconds is not None
    return session.session_id


def test_a_task_that_comes_after_the_account_is_ended_and_added_to_it(reaped: Site, bell: str) -> None:
    lease = reaped.acquire("ibm_torino")
    gate = ended_and_accounted(reaped, lease)
    reaped.emulator.set_backend("ibm_torino", "paused")
    provider = providers.connect(reaped.config.qpu("ibm_torino").access())
    parameters = json.dumps({"pubs": [[bell]], "version": 2, "support_qiskit": False}).encode()
    late = provider.submit("sampler", parameters, session_id=gate, tags=())
    not_ours = provider.submit("sampler", parameters, session_id=f"gate-{32 * '0'}", tags=())

    reaped.emulator.wait_for(lambda emulator: [task.id for task in emulator.tasks()] == [not_ours])

    deadline = time.monotonic() + SECONDS
    while {task.task_id: task.status for task in reaped.journal.history.tasks(gate)} != {late: "cancelled"}:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert accounted(reaped, lease) == gate
    assert reaped.emulator.tasks()[0].status == "Queued"


def test_a_submission_that_is_under_way_as_the_job_ends_leaves_no_task(reaped: Site, bell: str) -> None:
    lease = reaped.acquire("ibm_torino")
    reaped.emulator.set_backend("ibm_torino", "paused")
    reaped.emulator.inject(Fault(method="POST", path="/system/v1/jobs", delay=4))
    with reaped.job(lease) as job, ThreadPoolExecutor(1) as pool:
        params = {"pubs": [[bell]], "version": 2, "support_qiskit": False}
        submission = pool.submit(job.send, "POST", "/jobs", json=job.submission(params=params))
        reaped.emulator.wait_for(lambda emulator: emulator.faults() == [])
        gate = ended_and_accounted(reaped, lease)
        answer = submission.result()

    assert answer.status_code == 400
    assert answer.json()["errors"][0]["code"] == 1217
    reaped.emulator.wait_for(lambda emulator: emulator.tasks() == [])
    deadline = time.monotonic() + SECONDS
    while [task.status for task in reaped.journal.history.tasks(gate)] != ["cancelled"]:
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.parametrize(("method", "path"), [("PUT", "/s3/*"), ("POST", "/system/v1/jobs")])
def test_a_slow_storage_or_service_gets_its_time(job: Job, bell: str, method: str, path: str) -> None:
    job.site.emulator.set_backend("ibm_torino", "paused")
    job.site.emulator.inject(Fault(method=method, path=path, delay=4))
    task_id = job.submit(params={"pubs": [[bell]], "version": 2, "support_qiskit": False})
    assert [task.id for task in job.site.emulator.tasks()] == [task_id]


def test_a_service_that_is_away_is_unavailable(job: Job) -> None:
    job.site.emulator.inject(Fault(path="/s3/*", times=None, status=503))
    answer = job.send("POST", "/jobs", json=job.submission())
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "2")
    job.site.emulator.clear_faults()
    assert job.site.emulator.tasks() == []


def test_a_wrong_key_of_the_storage_is_explained_to_the_admin(site: Site) -> None:
    with site.job(site.acquire("ibm_torino")) as job:
        key = site.directory / "s3.key"
        right = key.read_text()
        key.write_text("another")
        answer = job.send("POST", "/jobs", json=job.submission())
        key.write_text(right)
        assert answer.status_code == 403
        assert "The object storage refuses PUT" in answer.text
        assert "another" not in answer.text
        assert "clocks agree" in site.events("refused")[-1]["advice"]
        job.submit()


def test_a_submission_whose_answer_is_lost_is_there_once(job: Job, bell: str) -> None:
    job.site.emulator.set_backend("ibm_torino", "paused")
    job.site.emulator.inject(Fault(method="POST", path="/system/v1/jobs", drop=Drop.AFTER))
    task_id = job.submit(params={"pubs": [[bell]], "version": 2, "support_qiskit": False})
    assert [task.id for task in job.site.emulator.tasks()] == [task_id]


def test_our_own_provider_does_what_its_protocol_says(job: Job) -> None:
    provider = providers.connect(from_environ(job.environ)["ibm_torino"].access())
    assert provider.status().online
    session = provider.open_session(60)
    assert (session.id, provider.session(session.id).accepting_tasks) == (job.session_id, True)
    task = provider.submit("sampler", b'{"pubs": [["?"]]}', session_id=session.id, tags=["one"])
    deadline = time.monotonic() + SECONDS
    while not (found := provider.task(task)).status.final:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert found.tags == ("one",)
    assert provider.times(task).quantum is not None
    provider.cancel_session(session.id)
    with pytest.raises(RefusedError):
        provider.submit("sampler", b'{"pubs": [["?"]]}', session_id=session.id, tags=["two"])


def test_upstreams_task_runner_runs_an_input(job: Job, bell: str, tmp_path: Path) -> None:
    source, sink = tmp_path / "in.json", tmp_path / "out.json"
    source.write_text(sampler_input(bell, support_qiskit=True))
    done = run(
        job, sys.executable, "-W", "ignore", "-m", "qrmi.tools.task_runner.main", "ibm_torino", source, sink
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(sink.read_text(), cls=RuntimeDecoder)[0].data.meas.num_shots == 100
    until_retired(job.site)
