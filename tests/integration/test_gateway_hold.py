# SPDX-License-Identifier: Apache-2.0
"""Sessions that a job behind the gateway opens with its tasks, and what it sees of those that it had."""

from __future__ import annotations

import textwrap
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from qpu_slurm.journal.model import LeaseState
from qpu_slurm_devkit.emulator import Drop, Fault
from tests.integration.gateway_site import program
from tests.requests_of_jobs import requests_of_jobs

if TYPE_CHECKING:
    from collections.abc import Iterator

    import requests

    from qpu_slurm_devkit.emulator import Emulator
    from tests.integration.gateway_site import Job, Site

FEZ = {"backend": "ibm_fez"}


@pytest.fixture
def job(site: Site) -> Iterator[Job]:
    """Return a job that holds a session only from its first task on."""
    with site.job(site.later()) as job:
        yield job


def opened(job: Job) -> str:
    answer = job.send("POST", "/sessions", json=FEZ)
    assert answer.ok, answer.text
    session_id: str = answer.json()["id"]
    return session_id


def error(answer: requests.Response) -> tuple[int, int, str]:
    first = answer.json()["errors"][0]
    return answer.status_code, first["code"], first["message"]


def test_a_job_without_a_task_holds_nothing(site: Site, job: Job, emulator: Emulator) -> None:
    assert job.get("/backends/ibm_fez/configuration")["backend_name"] == "ibm_fez"
    assert job.get("/jobs")["jobs"] == []
    assert job.get("/workloads")["workloads"] == []
    for method, path, body in (
        ("POST", "/jobs", job.submission(session_id="x")),
        ("GET", "/jobs/x", None),
        ("GET", "/sessions/x", None),
    ):
        status, _, message = error(job.send(method, path, json=body))
        assert (status, message) == (403, "This job holds no session on ibm_fez yet.")
    asked = requests_of_jobs(emulator)
    site.release(job.lease)
    assert requests_of_jobs(emulator) == asked
    assert emulator.sessions() == []


def test_a_session_is_opened_when_it_is_asked_for(site: Site, job: Job, emulator: Emulator) -> None:
    session_id = opened(job)
    assert opened(job) == session_id
    (session,) = emulator.sessions()
    assert session.id == session_id
    # No longer than the job can, whatever is asked for.
    assert 880 <= session.max_ttl <= 900
    lease = site.journal.lease(job.lease.id)
    assert (lease.state, lease.session_id) == (LeaseState.HELD, session_id)
    assert [found["id"] for found in job.get("/workloads")["workloads"]] == [session_id]
    site.release(job.lease)
    assert emulator.sessions()[0].state == "closed"


def test_steps_that_ask_at_once_get_the_same(job: Job, emulator: Emulator) -> None:
    with ThreadPoolExecutor(8) as pool:
        got = set(pool.map(lambda _: opened(job), range(8)))
    assert got == {session.id for session in emulator.sessions()}
    assert len(got) == 1


@pytest.mark.parametrize("how", ["PATCH", "DELETE", "service", "idle"])
def test_another_session_follows_one_that_takes_no_more(
    site: Site, job: Job, emulator: Emulator, how: str
) -> None:
    first = opened(job)
    task = job.submit(session_id=first)
    emulator.wait_for(lambda emulator: emulator.tasks()[0].done_at)
    if how == "PATCH":
        assert job.send("PATCH", f"/sessions/{first}", json={"accepting_jobs": False}).status_code == 204
    elif how == "DELETE":
        assert job.send("DELETE", f"/sessions/{first}/close").status_code == 204
    elif how == "service":
        emulator.close_session(first)
    else:
        emulator.advance(60)  # active for a minute, then half an hour without a task
        emulator.advance(1800)
    assert error(job.send("POST", "/jobs", json=job.submission(session_id=first)))[:2] == (400, 1217)
    second = opened(job)
    assert second != first
    other = job.submit(session_id=second)
    # What the job did before is still its own.
    assert job.get(f"/jobs/{task}", exclude_params="true")["session_id"] == first
    assert job.get(f"/sessions/{first}")["state"] == "closed"
    assert [found["id"] for found in job.get("/jobs")["jobs"]] == [other, task]
    assert [found["id"] for found in job.get("/jobs", limit="1", offset="1")["jobs"]] == [task]
    assert [found["id"] for found in job.get("/jobs", sort="ASC")["jobs"]] == [task, other]
    assert [found["id"] for found in job.get("/jobs", session_id=first)["jobs"]] == [task]
    assert error(job.send("GET", "/jobs?limit=x"))[0] == 400
    assert [found["id"] for found in job.get("/workloads")["workloads"]] == [second, first]
    site.release(job.lease)
    assert [session.state for session in emulator.sessions()] == ["closed", "closed"]


@pytest.mark.parametrize("size", [10, 400_000])
def test_a_task_that_names_no_session_has_one_opened(
    site: Site, job: Job, emulator: Emulator, size: int
) -> None:
    nameless = job.submission({"pubs": [["?"]], "x": "y" * size})
    del nameless["session_id"]
    first = job.send("POST", "/jobs", json=nameless).json()["id"]
    assert job.send("POST", "/jobs", json=nameless).ok
    (session,) = emulator.sessions()
    assert site.journal.lease(job.lease.id).session_id == session.id

    emulator.close_session(session.id)
    assert job.send("POST", "/jobs", json=nameless).ok

    closed, second = emulator.sessions()
    assert [task.session_id for task in emulator.tasks()] == [closed.id, closed.id, second.id]
    assert job.get(f"/jobs/{first}", exclude_params="true")["session_id"] == closed.id
    site.release(job.lease)
    assert [session.state for session in emulator.sessions()] == ["closed", "closed"]


@pytest.mark.parametrize("size", [10, 400_000])
def test_a_task_for_which_no_session_is_to_be_had_is_told_why(
    job: Job, emulator: Emulator, size: int
) -> None:
    nameless = job.submission({"pubs": [["?"]], "x": "y" * size})
    del nameless["session_id"]
    emulator.inject(Fault(method="POST", path="/sessions", status=403, times=9))
    assert job.send("POST", "/jobs", json=nameless).status_code == 403
    assert emulator.tasks() == []
    emulator.clear_faults()
    assert job.send("POST", "/jobs", json=nameless).ok


def test_a_session_that_was_closed_is_not_opened_again_behind_the_journals_back(job: Job) -> None:
    first = opened(job)
    assert job.send("PATCH", f"/sessions/{first}", json={"accepting_jobs": False}).status_code == 204
    again = job.send("PATCH", f"/sessions/{first}", json={"accepting_jobs": True})
    assert error(again)[:2] == (400, 1217)


def test_a_last_task_that_still_runs_ends_with_the_job(site: Site, job: Job, emulator: Emulator) -> None:
    session_id = opened(job)
    emulator.set_backend("ibm_fez", "paused")
    job.submit(session_id=session_id)
    job.send("PATCH", f"/sessions/{session_id}", json={"accepting_jobs": False})
    assert site.journal.lease(job.lease.id).state is LeaseState.BOUND
    assert emulator.tasks()[0].done_at is None
    site.release(job.lease)
    assert emulator.tasks()[0].done_at is not None
    assert emulator.sessions()[0].state == "closed"


def test_another_jobs_sessions_are_none_of_its_own(site: Site, job: Job, emulator: Emulator) -> None:
    opened(job)
    with site.job(site.later()) as other:
        theirs = opened(other)
        assert error(job.send("GET", f"/sessions/{theirs}"))[0] == 403
        assert error(job.send("POST", "/jobs", json=job.submission(session_id=theirs)))[0] == 403
        assert job.get("/jobs", session_id=theirs)["jobs"] == []
    assert len(emulator.sessions()) == 2


@pytest.mark.parametrize(("status", "told"), [(500, 503), (403, 403), (400, 400)])
def test_a_session_that_is_not_to_be_had(
    site: Site, job: Job, emulator: Emulator, status: int, told: int
) -> None:
    emulator.inject(Fault(method="POST", path="/sessions", status=status, times=9))
    assert job.send("POST", "/sessions", json=FEZ).status_code == told
    emulator.clear_faults()
    # The lease is still the job's.
    assert opened(job) == emulator.sessions()[-1].id
    site.release(job.lease)
    assert all(session.state == "closed" for session in emulator.sessions())


@pytest.mark.parametrize("drop", [Drop.BEFORE, Drop.AFTER])
def test_a_session_whose_answer_was_lost_is_opened_once(
    site: Site, job: Job, emulator: Emulator, drop: Drop
) -> None:
    emulator.inject(Fault(method="POST", path="/sessions", drop=drop))
    answer = job.send("POST", "/sessions", json=FEZ)
    if answer.status_code == 503:  # it took long to find out that there is none, and clients ask again
        assert "Retry-After" in answer.headers
        answer = job.send("POST", "/sessions", json=FEZ)
    assert answer.ok, answer.text
    assert [session.id for session in emulator.sessions()] == [answer.json()["id"]]
    site.release(job.lease)
    assert emulator.sessions()[0].state == "closed"


# The unmodified clients.


def test_ibms_own_client_opens_the_session_of_the_job(site: Site, job: Job, emulator: Emulator) -> None:
    assert "ibm_fez_QRMI_JOB_ACQUISITION_TOKEN" not in job.environ
    done = program(
        job,
        """
        from qiskit import QuantumCircuit, generate_preset_pass_manager
        from qiskit_ibm_runtime import QiskitRuntimeService, SamplerV2, Session

        service = QiskitRuntimeService()
        backend = service.backend("ibm_fez")
        circuit = QuantumCircuit(3)
        circuit.x([0, 2])
        circuit.measure_all()
        isa = generate_preset_pass_manager(optimization_level=1, backend=backend).run(circuit)
        seen = []
        for _ in range(2):
            with Session(backend) as session:
                print(SamplerV2(session).run([isa], shots=100).result()[0].data.meas.get_counts())
                seen.append(session.session_id)
        print(len(set(seen)), len(service.jobs()))
        """,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["{'101': 100}", "{'101': 100}", "2 2"]
    assert [session.state for session in emulator.sessions()] == ["closed", "closed"]
    assert [task.session_id for task in emulator.tasks()] == [s.id for s in emulator.sessions()]
    lease = site.journal.lease(job.lease.id)
    assert (lease.state, lease.session_id) == (LeaseState.BOUND, None)


def test_upstreams_library_opens_the_session_of_the_job(job: Job, emulator: Emulator, bell: str) -> None:
    done = program(
        job,
        f"""
        import json, os, time
        from qrmi import Payload, QuantumResource, ResourceType, TaskStatus

        resource = QuantumResource("ibm_fez", ResourceType.IBMQuantumComputeService)
        session = resource.acquire()
        print(resource.acquire() == session)
        os.environ["ibm_fez_QRMI_JOB_ACQUISITION_TOKEN"] = session
        user = QuantumResource("ibm_fez", ResourceType.IBMQuantumComputeService)
        text = json.dumps({{"pubs": [[{textwrap.dedent(bell)!r}, [], 100]], "version": 2}})
        task = user.task_start(Payload.QiskitPrimitive(input=text, program_id="sampler"))
        while user.task_status(task) in (TaskStatus.Queued, TaskStatus.Running):
            time.sleep(0.05)
        print(user.task_status(task) == TaskStatus.Completed)
        resource.release(session)
        print(resource.acquire() == session)
        """,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["True", "True", "False"]
    first, second = emulator.sessions()
    assert (first.state, second.state) == ("closed", "open")
    assert [task.session_id for task in emulator.tasks()] == [first.id]
