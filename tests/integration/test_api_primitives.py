# SPDX-License-Identifier: Apache-2.0
"""Qiskit's session and primitives, in the job's session without being told."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import msgspec
import pytest
import qiskit_ibm_runtime
from qiskit import QuantumCircuit, transpile
from qiskit.primitives import BaseEstimatorV2, BaseSamplerV2
from qiskit.quantum_info import SparsePauliOp
from qiskit_ibm_runtime import Batch
from qiskit_ibm_runtime.exceptions import IBMRuntimeError
from qiskit_ibm_runtime.fake_provider import FakeFez

from qpu_slurm import Estimator, EstimatorV2, Qpu, Sampler, SamplerV2, Session
from qpu_slurm.errors import NoLeaseError
from qpu_slurm.job import variables

if TYPE_CHECKING:
    from tests.integration.steps import Step


@pytest.fixture
def in_job(step: Step, monkeypatch: pytest.MonkeyPatch) -> Step:
    """Make this process a step of the job."""
    for name, value in step.environ.items():
        monkeypatch.setenv(name, value)
    return step


def ones(_step: Step) -> QuantumCircuit:
    circuit = QuantumCircuit(1)
    circuit.x(0)
    circuit.measure_all()
    return transpile(circuit, Qpu.of_job().backend())


def test_primitives_run_in_the_jobs_session(in_job: Step) -> None:
    circuit = ones(in_job)
    observable = SparsePauliOp("Z").apply_layout(circuit.layout)
    sampler, estimator = SamplerV2(), EstimatorV2()

    counts = sampler.run([circuit], shots=10).result()[0].data.meas.get_counts()
    estimated = estimator.run([(circuit.remove_final_measurements(inplace=False), observable)]).result()

    assert isinstance(sampler, qiskit_ibm_runtime.SamplerV2)
    assert isinstance(sampler, BaseSamplerV2)
    assert isinstance(estimator, qiskit_ibm_runtime.EstimatorV2)
    assert isinstance(estimator, BaseEstimatorV2)
    assert counts == {"1": 10}
    assert estimated[0].data.evs == pytest.approx(-1, abs=0.1)
    assert [task.session_id for task in in_job.tasks()] == [in_job.session_id] * 2


def test_the_executors_primitives_run_in_the_jobs_session(in_job: Step) -> None:
    circuit = ones(in_job)
    observable = SparsePauliOp("Z").apply_layout(circuit.layout)

    counts = Sampler().run([circuit], shots=10).result()[0].data.meas.get_counts()
    with Session():
        job = Estimator().run([(circuit.remove_final_measurements(inplace=False), observable)])

    assert counts == {"1": 10}
    assert job.result()[0].data.evs == pytest.approx(-1, abs=0.1)
    assert [task.session_id for task in in_job.tasks()] == [in_job.session_id] * 2
    assert {task.program_id for task in in_job.tasks()} == {"executor"}


WITHOUT_DEPRECATED = """
import qiskit_ibm_runtime

del qiskit_ibm_runtime.SamplerV2, qiskit_ibm_runtime.EstimatorV2

from qiskit import QuantumCircuit, transpile
from qpu_slurm import EstimatorV2, Qpu, SamplerV2

circuit = QuantumCircuit(1)
circuit.x(0)
measured = circuit.measure_all(inplace=False)
circuit, measured = transpile([circuit, measured], Qpu.of_job().backend(), initial_layout=[0])
print(float(EstimatorV2().run([(circuit, "Z".rjust(circuit.num_qubits, "I"))]).result()[0].data.evs))
print(SamplerV2().run([measured], shots=10).result()[0].data.meas.get_counts())
"""


def test_ours_are_there_in_a_release_without_the_deprecated_ones(step: Step) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error::DeprecationWarning", "-c", WITHOUT_DEPRECATED],
        env=step.environ,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["-1.0", "{'1': 10}"]
    assert {task.program_id for task in step.tasks()} == {"executor"}
    assert [task.session_id for task in step.tasks()] == [step.session_id] * 2


def test_a_client_that_is_too_old_is_named(step: Step) -> None:
    program = "import qiskit_ibm_runtime as r; r.__version__ = '0.40.1'; import qpu_slurm; "
    program += "qpu_slurm.Qpu.of_job().backend()"
    done = subprocess.run(
        [sys.executable, "-c", program], env=step.environ, capture_output=True, text=True, check=False
    )

    assert "qiskit-ibm-runtime 0.40.1 is too old for Qpu" in done.stderr.splitlines()[-1]
    assert "0.43 or newer" in done.stderr


def test_a_primitive_costs_few_requests(in_job: Step) -> None:
    circuit = ones(in_job)
    before = len(in_job.emulator.requests())

    SamplerV2().run([circuit], shots=10)

    paths = [request.path for request in in_job.emulator.requests()[before:]]
    # To connect, two; the others are what Qiskit's client asks at every submission.
    connect, each = (
        ["/identity/token", "/backends"],
        ["/instances/usage", "/backends/ibm_fez/status", "/jobs"],
    )
    assert paths == connect + each

    SamplerV2().run([circuit], shots=10)

    paths = [request.path for request in in_job.emulator.requests()[before:]]
    assert [path for path in paths if not path.startswith("/jobs/")] == connect + each + each


def test_options_are_the_primitives_own(in_job: Step) -> None:
    circuit = ones(in_job)

    result = SamplerV2(options={"default_shots": 7}).run([circuit]).result()

    assert result[0].data.meas.num_shots == 7


def test_a_qpu_is_named_as_in_the_submission(in_job: Step, monkeypatch: pytest.MonkeyPatch) -> None:
    session_id = in_job.session_id
    torino = msgspec.structs.replace(in_job.qpu, name="torino", backend="ibm_torino", session_id="other")
    fez = msgspec.structs.replace(in_job.qpu, session_id=session_id)
    for name, value in variables.to_environ([torino, fez]).items():
        monkeypatch.setenv(name, value)
    backend = Qpu.of_job("ibm_fez").backend()

    assert Session().session_id == "other"
    assert Session().backend() == "ibm_torino"
    assert Session("ibm_fez").session_id == session_id
    assert Session(backend=backend).session_id == session_id
    assert Session(Qpu.of_job("torino")).session_id == "other"
    assert SamplerV2("ibm_fez").mode.session_id == session_id
    assert SamplerV2(mode=backend).mode.session_id == session_id
    with pytest.raises(NoLeaseError, match="This job has no QPU 'ibm_kyiv', only torino, ibm_fez"):
        SamplerV2("ibm_kyiv")


def test_other_backends_are_qiskits_business(in_job: Step) -> None:
    fake = FakeFez()
    circuit = ones(in_job)

    counts = SamplerV2(mode=fake).run([circuit], shots=10).result()[0].data.meas.get_counts()

    assert sum(counts.values()) == 10
    assert in_job.tasks() == []


@pytest.mark.filterwarnings("ignore:The SamplerV2 class is deprecated")  # of Qiskit's own, in the middle
def test_a_block_leaves_the_session_open_for_other_steps(in_job: Step) -> None:
    circuit = ones(in_job)

    with Session(backend=Qpu.of_job().backend()) as session:
        assert isinstance(session, qiskit_ibm_runtime.Session)
        for sampler in (SamplerV2(), qiskit_ibm_runtime.SamplerV2(), SamplerV2(mode=session)):
            sampler.run([circuit], shots=1).result()

    assert in_job.provider.session(in_job.session_id).accepting_tasks
    SamplerV2(mode=session).run([circuit], shots=1).result()
    assert {task.session_id for task in in_job.tasks()} == {in_job.session_id}


def test_the_last_block_closes_the_session(in_job: Step) -> None:
    circuit = ones(in_job)

    with Session(close_session=True) as session:
        job = SamplerV2(mode=session).run([circuit], shots=1)

    assert not in_job.provider.session(in_job.session_id).accepting_tasks
    assert job.result()[0].data.meas.get_counts() == {"1": 1}
    with pytest.raises(IBMRuntimeError, match="The session is closed"):
        SamplerV2(mode=session).run([circuit])
    in_job.emulator.wait_for(lambda emulator: emulator.sessions()[0].state == "closed")


def test_a_session_that_is_told_to_close_does(in_job: Step) -> None:
    Session().close()

    assert not in_job.provider.session(in_job.session_id).accepting_tasks


def test_a_batch_is_a_session_as_well(in_job: Step, monkeypatch: pytest.MonkeyPatch) -> None:
    circuit = ones(in_job)
    batch = Batch(backend=Qpu.of_job().backend())
    for name, value in in_job.variables(mode="batch", session_id=batch.session_id).items():
        monkeypatch.setenv(name, value)

    result = SamplerV2().run([circuit], shots=3).result()

    assert result[0].data.meas.num_shots == 3
    assert [task.session_id for task in in_job.tasks()] == [batch.session_id]


def test_a_job_that_is_only_bound_has_no_session(in_job: Step, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in set(in_job.environ) - set(in_job.variables()):
        monkeypatch.delenv(name)

    for make in (Session, SamplerV2, EstimatorV2):
        with pytest.raises(NoLeaseError, match="holds no session to execute in"):
            make()
