# SPDX-License-Identifier: Apache-2.0
"""The Python API in a job, and contrib's example jobs made of it."""

from __future__ import annotations

import ast
import copy
import os
import re
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from qiskit_ibm_runtime import IBMBackend, QiskitRuntimeService
from qiskit_ibm_runtime.exceptions import IBMInputValueError

from qpu_slurm import Qpu, Session, job_qpus
from qpu_slurm.errors import NoLeaseError
from qpu_slurm.job import variables
from qpu_slurm.job.variables import JobQpu
from qpu_slurm.system.secret import Secret
from qpu_slurm_devkit.emulator import Emulator
from tests.integration.steps import Step

if TYPE_CHECKING:
    from collections.abc import Iterator


SEED = Path(__file__).parents[2] / "contrib" / "seed"


@pytest.fixture
def step(emulator: Emulator, tmp_path: Path) -> Iterator[Step]:
    with Step(emulator, tmp_path) as step:
        yield step


@pytest.fixture
def in_job(step: Step, monkeypatch: pytest.MonkeyPatch) -> Step:
    """Make this process a step of the job."""
    for name, value in step.environ.items():
        monkeypatch.setenv(name, value)
    return step


def run(step: Step, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(
        command, env=step.environ, cwd=step.directory, capture_output=True, encoding="utf-8", check=False
    )


def test_the_seeds_three_tasks(step: Step) -> None:
    optimized = run(step, SEED / "map_optimize.py")
    assert (optimized.returncode, optimized.stdout, optimized.stderr) == (0, "", "")
    assert step.tasks() == []

    executed = step.run("ibm_fez", "sampler_input_ibm_fez.json", "sampler_output_ibm_fez.json")
    assert executed.returncode == 0, executed.stderr

    printed = run(step, SEED / "result.py", "sampler_output_ibm_fez.json")
    assert (printed.returncode, printed.stderr) == (0, "")
    counts = ast.literal_eval(printed.stdout.removeprefix("pub 0, register meas: "))
    assert sum(counts.values()) == 10_000
    assert counts.keys() == {"00000", "11111"}
    # sin²(π/3) = 3/4, and the standard deviation is 43: six of them are never seen.
    assert counts["11111"] == pytest.approx(7500, abs=6 * 43)


def test_the_seeds_scripts_have_its_directives_and_steps() -> None:
    script = (SEED / "job_split_hetjob.sh").read_text(encoding="utf-8")
    lines = [line for line in script.splitlines() if re.match(r"#SBATCH|srun", line)]

    assert lines == [
        "#SBATCH --qpu=ibm_fez",
        "#SBATCH --job-name=job_split_hetjob",
        "#SBATCH --ntasks=1",
        "#SBATCH --cpus-per-task=1",
        "#SBATCH --partition normal",
        "#SBATCH hetjob",
        "#SBATCH --gres=qpu:1",
        "#SBATCH --qpu=ibm_fez",
        "#SBATCH --partition quantum",
        "srun --het-group=0 python map_optimize.py",
        "srun --het-group=1 task_runner ibm_fez sampler_input_ibm_fez.json sampler_output_ibm_fez.json",
        "srun --het-group=0 python result.py sampler_output_ibm_fez.json",
    ]


def test_the_scripts_are_good_shell() -> None:
    for script in SEED.glob("*.sh"):
        subprocess.run(["/bin/bash", "-n", script], check=True)
        assert os.access(script, os.X_OK)


def test_the_jobs_qpu_is_a_qiskit_backend(in_job: Step) -> None:
    qpu = Qpu.of_job()

    backend = qpu.backend()

    assert (qpu.name, qpu.session_id) == ("ibm_fez", in_job.session_id)
    assert isinstance(backend, IBMBackend)
    assert backend.name == "ibm_fez"
    assert qpu.target.num_qubits == 156
    assert "rzz" not in backend.target.operation_names
    assert "rzz" in qpu.backend(use_fractional_gates=True).target.operation_names
    assert repr(qpu) == f"Qpu('ibm_fez', session_id='{in_job.session_id}')"


def test_a_qpu_without_fractional_gates_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Emulator(backends=("ibm_brisbane",)) as emulator:
        account, environ = emulator.accounts[0], emulator.environ()
        for name, value in environ.items():
            monkeypatch.setenv(name, value)
        binding = JobQpu(
            name="ibm_brisbane",
            backend="ibm_brisbane",
            endpoint=environ["QISKIT_IBM_URL"],
            iam_endpoint=environ["IAM_URL"],
            search_endpoint=environ["GLOBAL_SEARCH_URL"],
            catalog_endpoint=environ["GLOBAL_CATALOG_URL"],
            instance=account.crn,
            api_key=Secret(account.api_key),
        )
        qpu = Qpu(binding, {"SLURM_JOB_ID": "42", "TMPDIR": str(tmp_path)})
        with pytest.raises(IBMInputValueError, match="does not support fractional gates"):
            qpu.backend(use_fractional_gates=True)


def test_ibms_public_service_is_addressed_as_its_client_expects(
    step: Step, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {}

    class AskedError(Exception):
        pass

    def connect(_self: object, **named: object) -> None:
        asked.update(named)
        raise AskedError

    monkeypatch.setattr("qiskit_ibm_runtime.QiskitRuntimeService.__init__", connect)
    endpoint = "https://eu-de.quantum.cloud.ibm.com/api/v1"
    public = msgspec.structs.replace(step.qpu, endpoint=endpoint, iam_endpoint="https://iam.cloud.ibm.com")

    service = Qpu.of_job(environ=variables.to_environ([public])).service
    with pytest.raises(AskedError):
        _ = service.channel

    assert asked["url"] == "https://cloud.ibm.com"
    assert asked["url_resolver"](asked["url"], asked["instance"]) == endpoint
    assert asked["token"] == step.qpu.api_key.reveal()


def test_the_jobs_session_is_a_qiskit_session(in_job: Step) -> None:
    session = Session(Qpu.of_job("ibm_fez"))

    assert session.session_id == in_job.session_id
    assert session.backend() == "ibm_fez"


def requests_of(step: Step, program: str, **environ: str) -> list[str]:
    """Run a program in the job; return what it asked the service."""
    before = len(step.emulator.requests())
    command = [sys.executable, "-c", program]
    done = subprocess.run(
        command, env=step.environ | environ, cwd=step.directory, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    return [f"{request.method} {request.path}" for request in step.emulator.requests()[before:]]


TRANSPILE = "from qpu_slurm import Qpu; assert Qpu.of_job().target.num_qubits == 156"
FETCHED = [
    "POST /identity/token",
    "GET /backends/ibm_fez/configuration",
    "GET /backends/ibm_fez/properties",
]


def test_the_first_step_fetches_the_backend_for_all(step: Step) -> None:
    assert requests_of(step, TRANSPILE) == FETCHED
    assert requests_of(step, TRANSPILE) == []
    assert requests_of(step, TRANSPILE, SLURM_JOB_ID="43") == FETCHED


def test_nothing_is_kept_outside_of_a_job(step: Step) -> None:
    assert requests_of(step, TRANSPILE, SLURM_JOB_ID="") == FETCHED
    assert requests_of(step, TRANSPILE, SLURM_JOB_ID="") == FETCHED


def test_a_program_makes_its_backend_once(in_job: Step) -> None:
    qpu = Qpu.of_job()
    before = len(in_job.emulator.requests())

    assert qpu.target is qpu.backend().target
    assert copy.deepcopy(qpu.backend()).target.num_qubits == 156
    assert len(in_job.emulator.requests()) - before == len(FETCHED)


def test_a_backend_that_is_refreshed_is_so_for_the_whole_job(in_job: Step) -> None:
    backend = Qpu.of_job().backend()
    taken = backend.properties().last_update_date
    later = taken + timedelta(hours=1)
    in_job.emulator.calibrate("ibm_fez", later)

    assert Qpu.of_job().backend().properties().last_update_date == taken
    backend.refresh()

    assert backend.properties().last_update_date == later
    assert Qpu.of_job().backend().properties().last_update_date == later


def test_a_release_of_qiskits_client_that_is_made_otherwise(
    in_job: Step, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "qpu_slurm.api.backend", raising=False)
    monkeypatch.setitem(sys.modules, "qiskit_ibm_runtime.utils.backend_decoder", None)

    backend = Qpu.of_job().backend()

    assert type(backend) is IBMBackend
    assert backend.target.num_qubits == 156
    assert in_job.tasks() == []


def test_the_service_connects_when_something_is_asked_of_it(in_job: Step) -> None:
    before = len(in_job.emulator.requests())
    service = Qpu.of_job().service

    assert isinstance(service, QiskitRuntimeService)
    assert len(in_job.emulator.requests()) == before
    assert service.jobs() == []
    paths = [request.path for request in in_job.emulator.requests()[before:]]
    assert paths == ["/identity/token", "/backends", "/jobs"]
    assert [instance["crn"] for instance in service.instances()] == [in_job.emulator.accounts[0].crn]


def test_a_job_that_is_only_bound_may_transpile(in_job: Step, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in set(in_job.environ) - set(in_job.variables()):
        monkeypatch.delenv(name)
    qpu = Qpu.of_job()

    assert qpu.session_id is None
    assert qpu.backend().num_qubits == 156
    with pytest.raises(NoLeaseError, match="holds no session to execute in"):
        Session(qpu)


def test_the_qpus_of_a_job_come_in_its_order(step: Step) -> None:
    torino = msgspec.structs.replace(step.qpu, name="torino", backend="ibm_torino")
    environ = variables.to_environ([torino, step.qpu])

    assert list(job_qpus(environ=environ)) == ["torino", "ibm_fez"]
    assert Qpu.of_job(environ=environ).name == "torino"
    assert Qpu.of_job("ibm_fez", environ=environ).name == "ibm_fez"


def test_a_qpu_that_the_job_does_not_have(step: Step) -> None:
    with pytest.raises(NoLeaseError, match=r"^This job has no QPU 'ibm_torino', only ibm_fez\.$"):
        Qpu.of_job("ibm_torino", environ=step.environ)
    with pytest.raises(NoLeaseError, match=r"^This is not in a Slurm job\."):
        Qpu.of_job(environ={})


def test_the_backend_may_be_another_than_the_name(in_job: Step, monkeypatch: pytest.MonkeyPatch) -> None:
    renamed = msgspec.structs.replace(in_job.qpu, name="fast", backend="ibm_torino")
    for name, value in variables.to_environ([renamed]).items():
        monkeypatch.setenv(name, value)

    assert Qpu.of_job("fast").backend().name == "ibm_torino"


def test_a_primitive_in_the_jobs_session(step: Step) -> None:
    program = step.write(
        "program.py",
        "from qiskit import QuantumCircuit, transpile\n"
        "from qiskit_ibm_runtime import SamplerV2\n"
        "from qpu_slurm import Qpu, Session\n"
        "qpu = Qpu.of_job()\n"
        "circuit = QuantumCircuit(1)\n"
        "circuit.x(0)\n"
        "circuit.measure_all()\n"
        "sampler = SamplerV2(mode=Session(qpu))\n"
        "result = sampler.run([transpile(circuit, qpu.backend())], shots=10).result()\n"
        "print(result[0].data.meas.get_counts())\n",
    )

    done = run(step, program)

    assert done.stdout == "{'1': 10}\n", done.stderr
    assert [task.session_id for task in step.tasks()] == [step.session_id]
