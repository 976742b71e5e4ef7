# SPDX-License-Identifier: Apache-2.0
"""task_runner --dry-run: does an input fit the QPU, and what would it cost?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from qiskit import ClassicalRegister, QuantumCircuit, QuantumRegister, transpile
from qiskit.circuit import Parameter
from qiskit.primitives.containers.sampler_pub import SamplerPub
from qiskit.quantum_info import SparsePauliOp
from qiskit_ibm_runtime import RuntimeEncoder
from qiskit_ibm_runtime.fake_provider import FakeFez

from qpu_slurm import write_estimator_input, write_sampler_input
from qpu_slurm_devkit.emulator import Fault
from tests.integration.steps import QASM, Step, sampler_input

if TYPE_CHECKING:
    import subprocess

COMPLETED, FAILED, BAD_INPUT, REFUSED, UNAVAILABLE = range(5)

HEAD = 'OPENQASM 3.0;\ninclude "stdgates.inc";\nbit[1] c;\n'


@pytest.fixture(autouse=True)
def nothing_is_submitted(step: Step) -> Any:  # noqa: ANN401 - a fixture
    yield
    assert step.tasks() == []
    assert not step.output.exists()


def report(step: Step, *arguments: object) -> tuple[subprocess.CompletedProcess[str], dict[str, Any]]:
    """Run it, and read what it found of its only input."""
    done = step.run("--dry-run", "--json", "found.json", *arguments, "ibm_fez", step.input, step.output)
    found = json.loads((step.directory / "found.json").read_text(encoding="utf-8"))
    assert found["exit_code"] == done.returncode
    assert found["tasks"] == []
    return done, found["dry_run"]


def test_an_input_that_fits(step: Step) -> None:
    environ = step.variables(session_id=None, task_timeout=300)  # no session is needed for this

    done = step.run("--dry-run", "ibm_fez", "input.json", environ=environ)

    assert (done.returncode, done.stderr) == (COMPLETED, "")
    assert done.stdout.splitlines() == [
        "input.json: sampler, 1 pub",
        "  pub 0: 1 of 156 qubits, 1 measure, 1 x",
        "    shots: 100",
        "  cost: 100 shots, 300 s of QPU time at most",
        "ibm_fez: online, 0 tasks waiting",
    ]


PROBLEMS = {
    "operation": (HEAD + "h $0;", "h is no operation of the QPU"),
    "coupling": (HEAD + "cz $0, $2;", "cz on qubits 0 and 2: the QPU has none there"),
    "qubit": (HEAD + "x $156;", "x on qubits 156: the QPU has 156"),
    "register": (HEAD + "qubit[200] q;\nx q[170];", "x on qubits 170: the QPU has 156"),
    "in a block": (HEAD + "if (c[0]) {\n  h $0;\n}", "h is no operation of the QPU"),
    "a gate of its own": (HEAD + "gate mine q { x q; }\nmine $0;", "mine is no operation of the QPU"),
    "a modifier": (HEAD + "ctrl @ x $0, $1;", "cx is no operation of the QPU"),
    "a loop's body": (HEAD + "for int i in {0, 1} h $0;", "h is no operation of the QPU"),
    "rzz": (
        HEAD + "gate rzz(a) p, q { cx p, q; rz(a) q; cx p, q; }\nrzz(2) $0, $1;",
        "rzz(2): the QPU takes angles from 0 to pi/2",
    ),
    "no OpenQASM": (HEAD + "x $0; ?;", "not OpenQASM 3: L4:C0: token recognition error at: '?'"),
}


@pytest.mark.parametrize(("circuit", "problem"), PROBLEMS.values(), ids=PROBLEMS.keys())
def test_a_circuit_that_does_not_fit(step: Step, circuit: str, problem: str) -> None:
    step.write("input.json", sampler_input(circuit))

    done, found = report(step)

    assert done.returncode == BAD_INPUT
    assert found["inputs"][0]["pubs"][0]["problems"] == [problem]
    assert f"    problem: {problem}\n" in done.stdout


def test_a_circuit_in_qpy_is_read_with_qiskit(step: Step) -> None:
    angle = Parameter("a")
    circuit = QuantumCircuit(2)
    circuit.ry(angle, 0)
    circuit.cx(0, 1)
    circuit.measure_all()
    isa = transpile(circuit, FakeFez(), optimization_level=1)
    write_sampler_input(step.input, [(isa, np.zeros((3, 2, 1)), 50), (circuit, [0.1])], shots=10)

    done, found = report(step)

    fits, does_not = found["inputs"][0]["pubs"]
    assert done.returncode == BAD_INPUT
    assert (fits["problems"], fits["unchecked"], fits["qubits"]) == ([], [], 2)
    assert fits["operations"]["cz"] == 1
    assert (fits["shots"], fits["total_shots"]) == (50, 300)
    assert does_not["problems"] == ["ry is no operation of the QPU", "cx is no operation of the QPU"]
    assert found["inputs"][0]["total_shots"] == 310


def test_without_qiskit_a_circuit_in_qpy_is_said_not_to_be_checked(step: Step, tmp_path: Path) -> None:
    circuit = QuantumCircuit(1, 1)
    circuit.h(0)
    write_sampler_input(step.input, [circuit], shots=10)
    library = tmp_path / "library"
    library.mkdir()
    (library / "sitecustomize.py").write_text("import sys\nsys.modules['qiskit'] = None\n", encoding="utf-8")

    done = step.run("--dry-run", "ibm_fez", step.input, environ=step.environ | {"PYTHONPATH": str(library)})

    assert done.returncode == COMPLETED
    assert "    not checked: the circuit, which is QPY: that needs Qiskit" in done.stdout


@pytest.mark.parametrize(
    ("observable", "problem"),
    [
        ("Z" * 156, None),
        ("Z" * 155, "observables on 155 qubits: the circuit has 156"),
        ("Q" + "I" * 155, "has 'Q': it may have I, X, Y and Z"),
    ],
)
def test_an_estimators_observables(step: Step, observable: str, problem: str | None) -> None:
    circuit = transpile(QuantumCircuit(2), FakeFez())
    write_estimator_input(step.input, [(circuit, SparsePauliOp("Z" * 156))])
    document = json.loads(step.input.read_text(encoding="utf-8"))
    document["parameters"]["pubs"][0][1] = {observable: 1.0}
    step.write("input.json", json.dumps(document))

    done, found = report(step)

    problems = found["inputs"][0]["problems"] + [
        each for pub in found["inputs"][0]["pubs"] for each in pub["problems"]
    ]
    assert done.returncode == (BAD_INPUT if problem else COMPLETED)
    assert [problem in each for each in problems if problem] == ([True] if problem else [])
    assert found["inputs"][0]["total_shots"] is None


def test_an_executors_program_is_said_not_to_be_checked(step: Step) -> None:
    document = {"program_id": "executor", "parameters": {"schema_version": "v2.0", "quantum_program": {}}}
    step.write("input.json", json.dumps(document))

    done, found = report(step)

    assert done.returncode == COMPLETED
    assert found["inputs"][0]["unchecked"][0].startswith("the quantum program")


def test_what_is_not_understood_is_reported(step: Step) -> None:
    step.write("input.json", sampler_input(HEAD + "let both = $0 ++ $1;\nint i = 1;\nx $0;"))

    done, found = report(step)

    assert done.returncode == COMPLETED
    assert found["inputs"][0]["pubs"][0]["unchecked"] == [
        (
            "2 statements that Qiskit's importer does not take: "
            "an alias of a single qubit, a variable of type int"
        )
    ]


INPUTS = Path(__file__).parents[1] / "inputs"


def dry_run_of(step: Step, name: str) -> tuple[int, dict[str, Any]]:
    """Check one of the small inputs that went wrong once, and one behind it that is right."""
    right = step.write("right.json", sampler_input())
    summary = step.directory / "found.json"
    done = step.run("--dry-run", "--json", summary, "ibm_fez", "--output-dir", "out", INPUTS / name, right)
    assert done.stderr == ""
    first, second = json.loads(summary.read_text(encoding="utf-8"))["dry_run"]["inputs"]
    assert (second["problems"], second["pubs"][0]["problems"], second["total_shots"]) == ([], [], 100)
    return done.returncode, first


def test_the_body_of_a_box_is_read(step: Step) -> None:
    code, found = dry_run_of(step, "dry_run_box.json")

    assert code == BAD_INPUT
    assert found["pubs"][0]["problems"] == [
        "h is no operation of the QPU",
        "cz on qubits 0 and 77: the QPU has none there",
    ]


def test_a_circuit_that_breaks_qiskit_is_not_checked_and_the_others_are(step: Step) -> None:
    code, found = dry_run_of(step, "dry_run_delay_parameter.json")

    assert code == COMPLETED
    [unchecked] = found["pubs"][0]["unchecked"]
    assert unchecked.startswith("the circuit: this Qiskit cannot read it (CircuitError: ")


def test_a_missing_include_is_a_problem(step: Step) -> None:
    code, found = dry_run_of(step, "dry_run_no_include.json")

    assert code == BAD_INPUT
    assert found["pubs"][0]["problems"] == [
        "gate 'x' is not defined: add include \"stdgates.inc\"; behind the version"
    ]


def test_a_register_that_no_result_can_hold_is_a_problem(step: Step) -> None:
    code, found = dry_run_of(step, "register_named_keys.json")

    assert code == BAD_INPUT
    assert (
        "the classical register 'keys' has a name that Qiskit's results cannot hold" in found["problems"][0]
    )


@pytest.mark.parametrize("name", ["scalar_bit.json", "scalar_bit_only.json"])
def test_a_bit_in_no_register_is_warned_of(step: Step, name: str) -> None:
    code, found = dry_run_of(step, name)

    assert code == COMPLETED
    assert found["pubs"][0]["warnings"][0] == (
        "the bit 'b' is in no register, so the result will not have it: write \"bit[1] b;\""
    )


def test_registers_angles_and_decoupling_of_a_circuit_in_qpy(step: Step) -> None:
    circuit = QuantumCircuit(QuantumRegister(2), ClassicalRegister(1, "items"), ClassicalRegister(0, "none"))
    circuit.rzz(2, 0, 1)
    circuit.rzz(Parameter("a") * 2, 0, 1)
    with circuit.if_test((circuit.clbits[0], 1)):
        circuit.x(0)
    # As the client writes it: our own writer refuses it.
    parameters = {
        "pubs": [SamplerPub.coerce((circuit, [1.0], 5))],
        "options": {"dynamical_decoupling": {"enable": True}},
        "version": 2,
    }
    step.write(
        "input.json", json.dumps({"program_id": "sampler", "parameters": parameters}, cls=RuntimeEncoder)
    )

    done, found = report(step)

    assert done.returncode == BAD_INPUT
    problems = "\n".join(found["inputs"][0]["pubs"][0]["problems"])
    assert "rzz(2): the QPU takes angles from 0 to pi/2\n" in problems
    assert "rzz(2): the QPU takes angles from 0 to pi/2; this one comes of 2*a" in problems
    assert "dynamical decoupling does not go with control flow" in problems
    assert "the classical register 'items'" in problems
    assert "the classical register 'none' has no bits" in problems


def test_twirlings_shots_come_before_the_default(step: Step) -> None:
    twirling = {"enable_gates": True, "num_randomizations": 7, "shots_per_randomization": 11}
    options = {"default_shots": 1000, "twirling": twirling}
    step.write("input.json", sampler_input(QASM, pubs=[[QASM], [QASM, None, 5]], options=options))

    _, found = report(step)

    assert [pub["total_shots"] for pub in found["inputs"][0]["pubs"]] == [77, 5]


@pytest.mark.parametrize(
    ("parameters", "options", "shots"),
    [
        ({"pubs": [[QASM]], "shots": 7}, [], 7),
        ({"pubs": [[QASM]], "options": {"default_shots": 8}}, [], 8),
        ({"pubs": [[QASM]]}, [], None),
        ({"pubs": [[QASM, None, 9]], "shots": 7}, [], 9),
        ({"pubs": [[QASM, None, 9]]}, ["--shots", "5"], 5),
        ({"pubs": [[QASM, [[], []], 9]]}, [], 18),
    ],
)
def test_the_cost_in_shots(step: Step, parameters: dict[str, object], options: list[str], shots: int) -> None:
    step.write("input.json", sampler_input(QASM, **parameters))

    _, found = report(step, *options)

    assert found["inputs"][0]["total_shots"] == shots


def test_more_shots_than_the_qpu_takes(step: Step) -> None:
    done, found = report(step, "--shots", "100001")

    assert done.returncode == BAD_INPUT
    assert found["inputs"][0]["pubs"][0]["problems"] == ["100001 shots: the QPU takes 100000 at most"]


def test_several_inputs(step: Step) -> None:
    step.write("bad.json", "{")

    done = step.run("--dry-run", "ibm_fez", "--output-dir", "out", "bad.json", "input.json")

    assert done.returncode == BAD_INPUT
    assert "bad.json: cannot be executed\n  problem: this is not JSON" in done.stdout
    assert "input.json: sampler" in done.stdout
    assert not (step.directory / "out").exists()


def test_a_qpu_that_is_not_up_is_said(step: Step) -> None:
    step.emulator.set_backend("ibm_fez", "paused", "calibration")

    done, found = report(step)

    assert done.returncode == COMPLETED
    assert (found["online"], found["reason"]) == (False, "calibration")
    assert done.stdout.endswith("ibm_fez: not online (calibration), 0 tasks waiting\n")


def test_a_service_that_is_away(step: Step) -> None:
    step.emulator.inject(Fault(path="/backends/*", status=503, retry_after="3600", times=None))

    assert step.run("--dry-run", "ibm_fez", step.input).returncode == UNAVAILABLE
