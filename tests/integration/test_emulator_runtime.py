# SPDX-License-Identifier: Apache-2.0
"""The unmodified qiskit-ibm-runtime client against the emulator, by environment variables alone."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING, Any

import pytest
from qiskit import QuantumCircuit
from qiskit.circuit.library import efficient_su2
from qiskit.primitives import StatevectorEstimator, StatevectorSampler
from qiskit.quantum_info import SparsePauliOp, hellinger_fidelity
from qiskit.transpiler import generate_preset_pass_manager
from qiskit_ibm_runtime import EstimatorV2, QiskitRuntimeService, SamplerV2, Session
from qiskit_ibm_runtime.exceptions import IBMRuntimeError, RuntimeInvalidStateError, RuntimeJobFailureError
from qiskit_ibm_runtime.executor_estimator import Estimator
from qiskit_ibm_runtime.executor_sampler import Sampler

from qpu_slurm_devkit.emulator import EventKind, Fault

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qpu_slurm_devkit.emulator import Account, Emulator
    from tests.integration.conftest import Api

# Deprecated in favour of a class that speaks to another program, the executor; still what most users have.
pytestmark = pytest.mark.filterwarnings(r"ignore:The (Sampler|Estimator)V2 class is deprecated")


def connect(emulator: Emulator, account: Account | None = None) -> QiskitRuntimeService:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in emulator.environ(account).items():
            patch.setenv(name, value)
        return QiskitRuntimeService()


@pytest.fixture(scope="module")
def connected(shared_emulator: Emulator) -> Iterator[QiskitRuntimeService]:
    """Connect once: it takes a second and a half. Its client asks IAM anew where the environment says."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in shared_emulator.environ().items():
            patch.setenv(name, value)
        yield QiskitRuntimeService()


@pytest.fixture
def service(emulator: Emulator, connected: QiskitRuntimeService) -> QiskitRuntimeService:
    assert emulator.tasks() == []
    return connected


@pytest.fixture(scope="module")
def circuits(connected: QiskitRuntimeService) -> dict[str, Any]:
    """Transpile, once, a Bell pair and a circuit with twelve parameters; both as they are and for the QPU."""
    bell = QuantumCircuit(2)
    bell.h(0)
    bell.cx(0, 1)
    ansatz = efficient_su2(3, reps=1)
    backend = connected.backend("ibm_fez")
    transpile = generate_preset_pass_manager(1, backend, seed_transpiler=1).run
    return {
        "bell": bell,
        "bell isa": transpile(bell),
        "measured": transpile(bell.measure_all(inplace=False)),
        "ansatz": ansatz.measure_all(inplace=False),
        "ansatz isa": transpile(ansatz.measure_all(inplace=False)),
        "values": [0.3 * n for n in range(ansatz.num_parameters)],
    }


def assert_bell(counts: dict[str, int]) -> None:
    assert set(counts) == {"00", "11"}
    assert abs(counts["00"] - counts["11"]) < 5 * sum(counts.values()) ** 0.5


def test_the_service_knows_its_instance_and_its_backends(
    emulator: Emulator, service: QiskitRuntimeService
) -> None:
    assert [(i["crn"], i["plan"]) for i in service.instances()] == [(emulator.accounts[0].crn, "premium")]
    assert {backend.name for backend in service.backends()} == {"ibm_fez", "ibm_torino"}
    backend = service.backend("ibm_torino")
    assert backend.target.num_qubits == 133
    assert backend.status().operational
    assert backend.properties().t1(0) > 0
    assert service.least_busy(min_num_qubits=150).name == "ibm_fez"


def test_tasks_run_in_a_session_until_it_is_closed(
    emulator: Emulator, service: QiskitRuntimeService, circuits: dict[str, Any]
) -> None:
    with Session(service.backend("ibm_fez"), max_time="10m") as session:
        assert session.status() == "Pending"
        sampler = SamplerV2(session)
        sampler.options.environment.job_tags = ["slurm-7"]
        job = sampler.run([circuits["measured"]], shots=1000)
        assert_bell(job.result()[0].data.meas.get_counts())
        assert session.details()["state"] == "active"
        assert session.details()["max_time"] == 600
        again = Session.from_id(session.session_id, service)
        assert again.status() == "In progress, accepting new jobs"
        assert_bell(SamplerV2(again).run([circuits["measured"]]).result()[0].data.meas.get_counts())
    assert session.status() == "Closed"
    assert session.usage() > 0
    assert job.session_id == session.session_id
    assert "2 of 156 qubits" in job.logs()
    assert job.usage() > 0
    assert list(job.metrics()["timestamps"]) == ["created", "running", "finished"]
    assert job.inputs["pubs"][0][2] == 1000
    kinds = [event.kind for event in emulator.events()]
    assert kinds.count(EventKind.SESSION_ACTIVE) == 1
    assert kinds[-1] is EventKind.SESSION_CLOSED
    assert emulator.events()[-2].tags == ()
    assert [task.tags for task in emulator.tasks()] == [("slurm-7",), ()]
    with pytest.raises(IBMRuntimeError, match="closed"):
        SamplerV2(Session.from_id(session.session_id, service)).run([circuits["measured"]])


def test_a_parametric_circuit_has_the_distribution_that_it_should(
    service: QiskitRuntimeService, circuits: dict[str, Any]
) -> None:
    pub = (circuits["ansatz isa"], circuits["values"], 4000)
    counts = SamplerV2(service.backend("ibm_fez")).run([pub]).result()[0].data.meas.get_counts()
    pub = (circuits["ansatz"], circuits["values"], 4000)
    expected = StatevectorSampler(seed=1).run([pub]).result()[0].data.meas.get_counts()
    assert hellinger_fidelity(counts, expected) > 0.98


@pytest.mark.parametrize("estimator", [EstimatorV2, Estimator], ids=["service-side", "client-side"])
def test_an_estimator_estimates(
    service: QiskitRuntimeService, circuits: dict[str, Any], estimator: type[Any]
) -> None:
    observable = SparsePauliOp.from_list([("ZZ", 1), ("XX", 0.5), ("YY", 0.25), ("IZ", 3)])
    (expected,) = StatevectorEstimator().run([(circuits["bell"], observable)]).result()
    layout = circuits["bell isa"].layout
    with Session(service.backend("ibm_fez")) as session:
        job = estimator(session).run([(circuits["bell isa"], [observable.apply_layout(layout)] * 2)])
        assert job.result()[0].data.evs == pytest.approx([float(expected.data.evs)] * 2, abs=0.2)


@pytest.mark.parametrize("twirl", [None, "gates"])
def test_the_client_side_sampler_samples(
    service: QiskitRuntimeService, circuits: dict[str, Any], twirl: str | None
) -> None:
    sampler = Sampler(service.backend("ibm_fez"))
    sampler.options.twirling.enable_gates = twirl == "gates"
    result = sampler.run([circuits["measured"]], shots=1024).result()
    assert_bell(result[0].data.meas.get_counts())


def test_jobs_are_found_tagged_and_deleted(
    emulator: Emulator, service: QiskitRuntimeService, circuits: dict[str, Any]
) -> None:
    sampler = SamplerV2(service.backend("ibm_fez"))
    sampler.options.environment.job_tags = ["one"]
    job = sampler.run([circuits["measured"]], shots=10)
    job.result()
    assert [found.job_id() for found in service.jobs(job_tags=["one"], pending=False)] == [job.job_id()]
    assert job.update_tags(["two"]) == ["two"]
    assert service.jobs(job_tags=["one"]) == []
    assert_bell(service.job(job.job_id()).result()[0].data.meas.get_counts() | {"00": 5, "11": 5})
    service.delete_job(job.job_id())
    assert emulator.tasks() == []


def test_a_job_is_cancelled_and_says_so(
    emulator: Emulator, service: QiskitRuntimeService, circuits: dict[str, Any]
) -> None:
    emulator.set_backend("ibm_fez", "paused", "Maintenance.")
    backend = service.backend("ibm_fez")
    with pytest.warns(UserWarning, match="currently has a status of paused"):
        job = SamplerV2(backend).run([circuits["measured"]])
    assert (job.status(), backend.status().pending_jobs) == ("QUEUED", 1)
    job.cancel()
    with pytest.raises(RuntimeInvalidStateError, match="cancelled"):
        job.result()
    with pytest.raises(RuntimeInvalidStateError, match="cannot be cancelled"):
        job.cancel()


def test_a_failed_job_says_why(service: QiskitRuntimeService, api: Api) -> None:
    job = service.job(api.submit([["not a program"]]))
    with pytest.raises(RuntimeJobFailureError, match="1002; A circuit is not valid OpenQASM 3"):
        job.result()
    assert job.errored()
    assert "not valid OpenQASM 3" in job.error_message()


def test_the_open_plan_may_not_open_sessions(emulator: Emulator) -> None:
    service = connect(emulator, emulator.accounts[1])
    with pytest.raises(Exception, match="1352"):
        Session(service.backend("ibm_fez"))


def test_the_client_repeats_a_post_after_a_5xx(emulator: Emulator, service: QiskitRuntimeService) -> None:
    emulator.inject(Fault(method="POST", path="/sessions", status=503))
    Session(service.backend("ibm_fez")).close()
    assert [r.status for r in emulator.requests() if r.path == "/sessions"] == [503, 200]


USER_PROGRAM = """
    import sys
    from qiskit import QuantumCircuit
    from qiskit.transpiler import generate_preset_pass_manager
    from qiskit_ibm_runtime import QiskitRuntimeService, SamplerV2, Session

    service = QiskitRuntimeService()
    backend = service.backend("ibm_fez")
    circuit = QuantumCircuit(2)
    circuit.x(1)
    circuit.measure_all()
    circuit = generate_preset_pass_manager(1, backend).run(circuit)
    session = Session.from_id(sys.argv[1], service)
    print(SamplerV2(session).run([circuit], shots=10).result()[0].data.meas.get_counts())
"""


def test_a_users_program_runs_in_a_session_that_somebody_else_opened(
    emulator: Emulator, service: QiskitRuntimeService
) -> None:
    session = Session(service.backend("ibm_fez"))
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(USER_PROGRAM), session.session_id],
        env={"PATH": os.defpath, **emulator.environ()},
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert (done.stdout, done.returncode) == ("{'10': 10}\n", 0), done.stderr
    assert [task.session_id for task in emulator.tasks()] == [session.session_id]
