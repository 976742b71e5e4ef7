# SPDX-License-Identifier: Apache-2.0
"""The installed command task_runner, against the emulator: inputs, results, and what it says."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import time

import pytest
from qiskit import QuantumCircuit, qasm3, transpile
from qiskit.circuit.library import efficient_su2
from qiskit.quantum_info import SparsePauliOp
from qiskit_ibm_runtime.decoders.executor.decoder import ExecutorResultDecoder
from qiskit_ibm_runtime.fake_provider import FakeFez
from qiskit_ibm_runtime.options_models.executor import ExecutorOptions
from qiskit_ibm_runtime.quantum_program import QuantumProgram
from qiskit_ibm_runtime.quantum_program.converters.converters_2_0 import quantum_program_to_2_0

from qpu_slurm import read_result, write_estimator_input, write_sampler_input
from qpu_slurm_devkit.emulator import Drop, Fault
from tests.integration.steps import TASK_RUNNER, Step, sampler_input


@pytest.fixture(scope="module")
def pair() -> QuantumCircuit:
    circuit = QuantumCircuit(2)
    circuit.h(0)
    circuit.cx(0, 1)
    return transpile(circuit, FakeFez(), optimization_level=1)


def test_the_result_of_the_seeds_call_is_in_the_file_and_nowhere_else(step: Step) -> None:
    done = step.run("ibm_fez", "input.json", "output.json")

    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert read_result(step.output)[0].data.c.get_counts() == {"1": 100}
    assert step.files() == {"input.json", "output.json"}


def test_the_task_runs_in_the_jobs_session_and_is_tagged(step: Step) -> None:
    environ = step.variables(session_id=step.session_id, task_timeout=77)

    done = step.run("ibm_fez", step.input, step.output, environ=environ)

    (task,) = step.tasks()
    assert done.returncode == 0, done.stderr
    assert (task.session_id, task.backend, task.cost) == (step.session_id, "ibm_fez", 77)
    assert task.tags[0] == "slurm-job:42"
    assert task.tags[1].startswith("qpu-slurm-task:")


def test_what_happens_is_said_in_plain_lines(step: Step) -> None:
    done = step.run("ibm_fez", step.input, step.output)

    (task,) = step.tasks()
    lines = done.stderr.splitlines()
    assert lines[0] == f"task_runner: submitted task {task.id}"
    assert lines[-1].startswith("task_runner: completed in ")
    assert lines[-1].endswith(f" s, result in {step.output}")
    assert set(lines[1:-1]) <= {"task_runner: queued", "task_runner: running"}


@pytest.mark.parametrize(
    ("arguments", "variables"),
    [(["-q"], {}), (["--quiet"], {}), ([], {"SRUN_DEBUG": "2"})],
    ids=["-q", "--quiet", "srun -Q"],
)
def test_it_can_be_silent(step: Step, arguments: list[str], variables: dict[str, str]) -> None:
    done = step.run(*arguments, "ibm_fez", step.input, step.output, environ=step.environ | variables)

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("arguments", "variables"),
    [(["-v"], {}), (["--verbose"], {}), ([], {"SRUN_DEBUG": "4"})],
    ids=["-v", "--verbose", "srun -v"],
)
def test_it_can_say_more_but_no_credential(
    step: Step, arguments: list[str], variables: dict[str, str]
) -> None:
    done = step.run(*arguments, "ibm_fez", step.input, step.output, environ=step.environ | variables)

    assert done.returncode == 0
    assert step.session_id in done.stderr
    assert "slurm-job:42" in done.stderr
    assert step.qpu.api_key.reveal() not in done.stderr


@pytest.mark.parametrize("arguments", [[], ["-"], ["/dev/stdout"]])
def test_without_an_output_the_result_is_on_stdout_alone(step: Step, arguments: list[str]) -> None:
    done = step.run("ibm_fez", step.input, *arguments)

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["results"][0]["data"]["c"]["num_bits"] == 1
    assert "completed" in done.stderr


def test_the_input_may_come_from_stdin(step: Step) -> None:
    done = step.run("ibm_fez", "-", step.output, stdin=sampler_input())

    assert done.returncode == 0, done.stderr
    assert read_result(step.output)[0].data.c.get_counts() == {"1": 100}


def test_a_sampler_input_of_the_python_api(step: Step, pair: QuantumCircuit) -> None:
    measured = pair.copy()
    measured.measure_active()
    write_sampler_input(step.input, [measured], shots=1000, options={"default_shots": 5})

    done = step.run("ibm_fez", step.input, step.output)

    assert done.returncode == 0, done.stderr
    counts = read_result(step.output)[0].join_data().get_counts()
    assert counts.keys() == {"00", "11"}
    assert sum(counts.values()) == 1000


def test_an_estimator_input_of_the_python_api(step: Step, pair: QuantumCircuit) -> None:
    observables = [SparsePauliOp(pauli).apply_layout(pair.layout) for pauli in ("ZZ", "XX", "ZI")]
    write_estimator_input(step.input, [(pair, observables)], precision=0.01, resilience_level=0)

    done = step.run("ibm_fez", step.input, step.output)

    assert done.returncode == 0, done.stderr
    assert read_result(step.output)[0].data.evs == pytest.approx([1, 1, 0], abs=0.1)


def test_an_executor_input_of_the_runtime_client(step: Step) -> None:
    circuit = QuantumCircuit(1, 1)
    circuit.x(0)
    circuit.measure(0, 0)
    program = QuantumProgram(shots=20)
    program.append_circuit_item(circuit)
    parameters = quantum_program_to_2_0(program, ExecutorOptions()).model_dump(mode="json")
    step.write("input.json", json.dumps({"program_id": "executor", "parameters": parameters}))

    done = step.run("ibm_fez", step.input, step.output)

    assert done.returncode == 0, done.stderr
    (item,) = ExecutorResultDecoder.decode(step.output.read_text(encoding="utf-8"))
    assert item["c"].shape == (20, 1)
    assert item["c"].all()


@pytest.mark.parametrize("support_qiskit", [True, False])
def test_upstreams_sampler_example(step: Step, support_qiskit: bool) -> None:  # noqa: FBT001 - a parameter
    ansatz = efficient_su2(3, entanglement="linear", reps=1)
    ansatz.measure_all()
    isa = transpile(ansatz, FakeFez(), optimization_level=1)
    # All angles are 0, but for the last layer's RY of the highest qubit: more than ten parameters tell
    # whether they are bound by their place.
    values = [0.0] * isa.num_parameters
    values[8] = 3.141592653589793
    parameters = {
        "pubs": [[qasm3.dumps(isa, disable_constants=True, allow_aliasing=True), values]],
        "version": 2,
        "support_qiskit": support_qiskit,
        "shots": 500,
    }
    step.write("input.json", json.dumps({"parameters": parameters, "program_id": "sampler"}, indent=2))

    done = step.run("ibm_fez", step.input, step.output)

    assert done.returncode == 0, done.stderr
    assert read_result(step.output)[0].data.meas.get_counts() == {"100": 500}


@pytest.mark.parametrize("support_qiskit", [True, False])
def test_upstreams_estimator_example(step: Step, pair: QuantumCircuit, support_qiskit: bool) -> None:  # noqa: FBT001 - a parameter
    observable = SparsePauliOp.from_list([("ZZ", 2), ("XX", 1)]).apply_layout(pair.layout)
    parameters = {
        "pubs": [[qasm3.dumps(pair), dict(observable.to_list()), []]],
        "version": 2,
        "support_qiskit": support_qiskit,
        "resilience_level": 1,
        "options": {"default_shots": 5000},
    }
    text = json.dumps({"parameters": parameters, "program_id": "estimator"}, default=lambda value: value.real)
    step.write("input.json", text)

    done = step.run("ibm_fez", step.input, step.output)

    assert done.returncode == 0, done.stderr
    assert float(read_result(step.output)[0].data.evs) == pytest.approx(3, abs=0.2)


def test_an_old_result_is_replaced_as_a_whole(step: Step) -> None:
    step.write("output.json", "x" * 100_000)
    step.output.chmod(0o600)

    done = step.run("ibm_fez", step.input, step.output, umask=0o027)

    assert done.returncode == 0, done.stderr
    assert read_result(step.output)[0].data.c.num_shots == 100
    assert stat.S_IMODE(step.output.stat().st_mode) == 0o640


def test_a_link_stays_a_link(step: Step) -> None:
    target = step.write("elsewhere.json", "old")
    step.output.symlink_to("elsewhere.json")

    done = step.run("ibm_fez", step.input, step.output)

    assert done.returncode == 0, done.stderr
    assert step.output.is_symlink()
    assert read_result(target)[0].data.c.num_shots == 100


def test_what_is_no_regular_file_is_written_and_not_replaced(step: Step) -> None:
    os.mkfifo(step.output)
    process = step.start("ibm_fez", step.input, step.output)

    text = step.output.read_text(encoding="utf-8")

    process.communicate(timeout=240)
    assert process.returncode == 0
    assert "results" in json.loads(text)
    assert stat.S_ISFIFO(step.output.stat().st_mode)


LOST = {
    "token": Fault(method="POST", path="/identity/token", drop=Drop.BEFORE),
    "submission, before it took effect": Fault(method="POST", path="/jobs", drop=Drop.BEFORE),
    "submission, after it took effect": Fault(method="POST", path="/jobs", drop=Drop.AFTER),
    "submission, overloaded": Fault(method="POST", path="/jobs", status=429, retry_after="1"),
    "state": Fault(method="GET", path="/jobs/*", drop=Drop.BEFORE),
    "state, several times": Fault(method="GET", path="/jobs/*", status=503, times=4),
    "result": Fault(method="GET", path="/jobs/*/results", drop=Drop.BEFORE),
}


@pytest.mark.parametrize("fault", LOST.values(), ids=LOST.keys())
def test_a_fault_that_passes_costs_neither_the_task_nor_a_second_one(step: Step, fault: Fault) -> None:
    step.emulator.inject(fault)

    done = step.run("ibm_fez", step.input, step.output)

    assert done.returncode == 0, done.stderr
    assert read_result(step.output)[0].data.c.num_shots == 100
    assert len(step.tasks()) == 1


def test_a_service_that_is_gone_while_the_task_runs_is_asked_again(slow_step: Step) -> None:
    step = slow_step
    process = step.start("ibm_fez", step.input, step.output)
    step.wait_until_it_runs()
    step.emulator.refuse(3)
    time.sleep(3.5)
    step.emulator.advance(200)

    _, errors = process.communicate(timeout=240)

    assert process.returncode == 0, errors
    assert len(step.tasks()) == 1
    assert step.output.exists()


def test_it_says_how_it_is_used() -> None:
    shown = subprocess.run([TASK_RUNNER, "--help"], check=True, capture_output=True, text=True).stdout

    assert "NAME" in shown
    assert "exit codes:" in shown
    version = subprocess.run([TASK_RUNNER, "--version"], check=True, capture_output=True, text=True).stdout
    assert version.startswith("task_runner (qpu_slurm) ")
