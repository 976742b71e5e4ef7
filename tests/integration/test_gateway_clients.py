# SPDX-License-Identifier: Apache-2.0
"""The unmodified clients in a job behind the gateway, by the job's environment alone."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import pytest
from qiskit_ibm_runtime import RuntimeDecoder

from qpu_slurm import providers, read_result
from qpu_slurm.errors import RefusedError
from qpu_slurm.job.variables import from_environ
from tests.integration.gateway_site import program, run
from tests.integration.steps import TASK_RUNNER, sampler_input

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from qpu_slurm_devkit.emulator import Emulator
    from tests.integration.gateway_site import Job, Site


@pytest.fixture
def job(site: Site) -> Iterator[Job]:
    with site.job(site.acquire()) as job:
        yield job


def the_task_was_the_jobs(job: Job, emulator: Emulator) -> bool:
    return {task.session_id for task in emulator.tasks()} == {job.session_id} and [
        session.id for session in emulator.sessions()
    ] == [job.session_id]


def test_ibms_own_client_runs_in_the_jobs_session(job: Job, emulator: Emulator) -> None:
    done = program(
        job,
        """
        import os, time
        from qiskit import QuantumCircuit, generate_preset_pass_manager
        from qiskit_ibm_runtime import QiskitRuntimeService, SamplerV2, Session

        service = QiskitRuntimeService()
        (backend,) = service.backends()
        session = Session.from_id(os.environ["ibm_fez_QRMI_JOB_ACQUISITION_TOKEN"], service=service)
        circuit = QuantumCircuit(3)
        circuit.x([0, 2])
        circuit.measure_all()
        isa = generate_preset_pass_manager(optimization_level=1, backend=backend).run(circuit)
        job = SamplerV2(session).run([isa], shots=100)
        print(job.result()[0].data.meas.get_counts(), backend.name, session.status())
        begin = time.monotonic()
        while not service.usage()["usage_consumed_seconds"] and time.monotonic() < begin + 60:
            time.sleep(0.5)  # what the instance has used may be some seconds old
        print(job.usage() > 0, service.usage()["usage_consumed_seconds"] > 0)
        again = Session(backend)
        print(again.session_id == session.session_id)
        print([found.job_id() for found in service.jobs()] == [job.job_id()])
        again.close()
        print(session.status())
        """,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "{'101': 100} ibm_fez In progress, accepting new jobs",
        "True True",
        "True",
        "True",
        "Closed",
    ]
    assert the_task_was_the_jobs(job, emulator)


def test_ibms_own_client_sees_a_new_calibration(job: Job, emulator: Emulator) -> None:
    done = program(
        job,
        f"""
        import json, urllib.request
        from qiskit_ibm_runtime import QiskitRuntimeService

        backend = QiskitRuntimeService().backend("ibm_fez")
        before = backend.properties().last_update_date
        urllib.request.urlopen(
            urllib.request.Request(
                "{emulator.url}/emulator/backends/ibm_fez/calibrate",
                json.dumps({{"at": "2031-05-06T07:08:09+00:00"}}).encode(),
                method="POST",
            )
        )
        print(backend.properties().last_update_date == before)
        backend.refresh()
        print(backend.properties(refresh=True).last_update_date.year)
        """,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["True", "2031"]


PUBLISHED = """
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
for _ in range(2):
    job = sampler.run([isa], shots=100)
    print(job.result()[0].data.meas.get_counts(), job.session_id)
"""
"""A program that never asks for a session, as most published ones."""


@pytest.mark.parametrize("hold", ["job", "task"])
def test_a_program_that_names_no_session_runs_in_the_jobs(site: Site, emulator: Emulator, hold: str) -> None:
    with site.job(site.acquire() if hold == "job" else site.later()) as job:
        done = program(job, PUBLISHED)
    assert done.returncode == 0, done.stderr
    (session,) = emulator.sessions()
    assert done.stdout.splitlines() == [f"{{'101': 100}} {session.id}"] * 2
    assert {task.session_id for task in emulator.tasks()} == {session.id}


def test_upstreams_library_acquires_uses_and_releases_what_the_job_holds(
    job: Job, emulator: Emulator, bell: str
) -> None:
    done = program(
        job,
        f"""
        import json, os, time
        from qrmi import Payload, QuantumResource, ResourceType, TaskStatus

        resource = QuantumResource("ibm_fez", ResourceType.IBMQuantumComputeService)
        print(resource.is_accessible(), str(resource.status().status), resource.status().pending_job_count)
        print(json.loads(resource.target().value)["configuration"]["backend_name"])
        held = os.environ.pop("ibm_fez_QRMI_JOB_ACQUISITION_TOKEN")
        session = resource.acquire()
        print(session == held)
        os.environ["ibm_fez_QRMI_JOB_ACQUISITION_TOKEN"] = session
        user = QuantumResource("ibm_fez", ResourceType.IBMQiskitRuntimeService)
        text = json.dumps({{"pubs": [[{bell!r}, [], 100]], "version": 2, "support_qiskit": False}})
        task = user.task_start(Payload.QiskitPrimitive(input=text, program_id="sampler"))
        while user.task_status(task) in (TaskStatus.Queued, TaskStatus.Running):
            time.sleep(0.05)
        print(set(json.loads(user.task_result(task).value)["results"][0]["data"]["meas"]["samples"]))
        print("2 of 2 qubits" in user.task_logs(task))
        user.task_stop(task)
        resource.release(session)
        """,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[:3] == ["True ResourceStatusCode.Online 0", "ibm_fez", "True"]
    assert sorted(lines[3]) == sorted("{'0x0', '0x3'}")
    assert lines[4] == "True"
    assert the_task_was_the_jobs(job, emulator)
    assert emulator.sessions()[0].state == "closed"


def test_upstreams_primitives_run_in_the_jobs_session(job: Job, emulator: Emulator) -> None:
    done = program(
        job,
        """
        from qiskit import QuantumCircuit
        from qiskit.transpiler import generate_preset_pass_manager
        from qrmi.primitives import QRMIService
        from qrmi.primitives.ibm import SamplerV2, get_backend

        (resource,) = QRMIService().resources()
        circuit = QuantumCircuit(2)
        circuit.x(1)
        circuit.measure_all()
        isa = generate_preset_pass_manager(1, get_backend(resource)).run(circuit)
        print(SamplerV2(resource).run([isa], shots=10).result()[0].data.meas.get_counts())
        """,
    )
    assert (done.stdout, done.returncode) == ("{'10': 10}\n", 0), done.stderr
    assert the_task_was_the_jobs(job, emulator)


def test_upstreams_task_runner_runs_an_input(job: Job, emulator: Emulator, bell: str, tmp_path: Path) -> None:
    source, sink = tmp_path / "in.json", tmp_path / "out.json"
    source.write_text(sampler_input(bell, support_qiskit=True))
    done = run(
        job, sys.executable, "-W", "ignore", "-m", "qrmi.tools.task_runner.main", "ibm_fez", source, sink
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(sink.read_text(), cls=RuntimeDecoder)[0].data.meas.num_shots == 100
    assert the_task_was_the_jobs(job, emulator)


def test_our_task_runner_runs_an_input(job: Job, emulator: Emulator, tmp_path: Path) -> None:
    (tmp_path / "in.json").write_text(sampler_input())
    done = run(job, TASK_RUNNER, "ibm_fez", "in.json", "out.json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert read_result(tmp_path / "out.json")[0].data.c.get_counts() == {"1": 100}
    assert the_task_was_the_jobs(job, emulator)
    assert emulator.tasks()[0].tags[0] == f"slurm-job:{job.lease.job_id}"


def test_our_own_provider_does_what_its_protocol_says(job: Job, emulator: Emulator) -> None:
    provider = providers.connect(from_environ(job.environ)["ibm_fez"].access())
    assert provider.status().online
    session = provider.open_session(60)
    assert (session.id, provider.session(session.id).accepting_tasks) == (job.session_id, True)
    task = provider.submit("sampler", b'{"pubs": [["?"]]}', session_id=session.id, tags=["one"])
    emulator.wait_for(lambda emulator: emulator.tasks()[0].done_at)
    assert provider.task(task).tags == ("one",)
    assert provider.times(task).quantum is not None
    provider.cancel_session(session.id)
    assert emulator.sessions()[0].state == "closed"


def test_a_key_that_is_worth_nothing_any_more_says_so(site: Site, job: Job) -> None:
    environ = job.environ
    site.release(job.lease)
    provider = providers.connect(from_environ(environ)["ibm_fez"].access())
    with pytest.raises(RefusedError, match=f"Job {job.lease.job_id} no longer holds ibm_fez"):
        provider.status()
