# SPDX-License-Identifier: Apache-2.0
"""What is wrong with an input is reported before its task costs anything, what is odd as it is submitted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.steps import QASM, sampler_input

if TYPE_CHECKING:
    from tests.integration.steps import Step

INPUTS = Path(__file__).parents[1] / "inputs"
HEAD = 'OPENQASM 3.0;\ninclude "stdgates.inc";\n'
BAD_INPUT = 2


def estimator_input(observables: object) -> str:
    parameters = {"pubs": [[QASM, observables, None, 0.1]], "version": 2}
    return json.dumps({"program_id": "estimator", "parameters": parameters})


DECOUPLED: dict[str, Any] = {"options": {"dynamical_decoupling": {"enable": True}}}
IF = "bit[1] c;\nif (c[0]) { x $0; }\nc[0] = measure $0;"

REFUSED = {
    "a register named keys": (
        (INPUTS / "register_named_keys.json").read_text(encoding="utf-8"),
        "the classical register 'keys' has a name that Qiskit's results cannot hold",
    ),
    "a keyword": (sampler_input(HEAD + "bit[1] class;"), "'class' has one of Python's keywords for a name"),
    "no bits": (sampler_input(HEAD + "bit[0] none; bit[1] c;"), "'none' has no bits"),
    "decoupling and control flow": (sampler_input(HEAD + IF, **DECOUPLED), "does not go with control flow"),
    "another letter": (estimator_input([{"IZ": 1}, "I+"]), "the observable 'I+' has '+'"),
    "no observables": (estimator_input([]), "there are no observables"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_the_client_refuses_is_refused_before_anything_is_submitted(step: Step, what: str) -> None:
    text, words = REFUSED[what]
    step.write("input.json", text)

    done = step.run("ibm_fez", "input.json", "output.json")

    assert done.returncode == BAD_INPUT
    assert words in done.stderr
    assert step.tasks() == []


def test_what_goes_with_control_flow_alone_is_taken(step: Step) -> None:
    step.write("input.json", sampler_input(HEAD + "// bit[0] none;\n" + IF))

    assert step.run("ibm_fez", "input.json", "output.json").returncode == 0


def test_a_bit_in_no_register_is_warned_of_when_its_task_is_submitted(step: Step) -> None:
    done = step.run("ibm_fez", INPUTS / "scalar_bit.json", "output.json")

    assert done.returncode == 0
    assert (
        "parameters.pubs[0][0]: the bit 'b' is in no register, so the result will not have it: "
        'write "bit[1] b;".'
    ) in done.stderr


@pytest.mark.parametrize("quiet", [["-q"], []], ids=["-q", "srun -Q"])
def test_that_a_bit_will_be_missing_is_printed_in_any_case(step: Step, quiet: list[str]) -> None:
    environ = step.environ | {"SRUN_DEBUG": "2"}
    done = step.run(*quiet, "ibm_fez", INPUTS / "scalar_bit.json", "output.json", environ=environ)

    assert done.returncode == 0
    [line] = done.stderr.splitlines()
    assert line.endswith('the result will not have it: write "bit[1] b;".')


def test_a_program_in_the_place_of_an_input_is_told_what_an_input_is(step: Step) -> None:
    step.write("q.py", "from qiskit import QuantumCircuit\n")

    done = step.run("ibm_fez", "q.py", "output.json")

    assert done.returncode == BAD_INPUT
    assert (
        "q.py: this is not JSON: invalid character near byte 5. An input is a JSON file in UTF-8, such as "
        '{"program_id": "sampler", "parameters": {…}}'
    ) in done.stderr


def test_a_result_that_holds_no_bit_has_the_same_advice(step: Step) -> None:
    done = step.run("ibm_fez", INPUTS / "scalar_bit_only.json", "output.json")

    assert 'write "bit[1] b;"' in done.stderr


def test_a_quotient_of_integers_is_warned_of_when_its_task_is_submitted(step: Step) -> None:
    step.write("input.json", sampler_input(HEAD + "bit[1] c;\nrz(1/2*pi) $0;\nc[0] = measure $0;"))

    done = step.run("ibm_fez", "input.json", "output.json")

    assert done.returncode == 0
    assert "'1/2*pi' divides integers" in done.stderr
    assert "write '1.0/2*pi'" in done.stderr
    # The result will not be what its writer means, so -q prints it, too.
    assert "'1/2*pi' divides integers" in step.run("-q", "ibm_fez", "input.json", "output.json").stderr


def test_an_output_that_is_an_input_is_not_replaced(step: Step) -> None:
    other = step.write("other.json", sampler_input())
    kept = other.read_bytes()

    done = step.run("ibm_fez", "input.json", "other.json")

    assert done.returncode == BAD_INPUT
    assert "other.json holds an input, which the result would replace" in done.stderr
    assert "--output-dir" in done.stderr
    assert (other.read_bytes(), step.tasks()) == (kept, [])


def test_an_input_in_the_output_directory_is_not_replaced(step: Step) -> None:
    (step.directory / "results").mkdir()
    other = step.write("results/input.json", ' {\n"parameters": {}, "program_id": "sampler"}')
    kept = other.read_bytes()

    done = step.run("ibm_fez", "--output-dir", "results", "input.json")

    assert done.returncode == BAD_INPUT
    assert "results/input.json holds an input" in done.stderr
    assert (other.read_bytes(), step.tasks()) == (kept, [])


@pytest.mark.parametrize("old", ['{"results": []}', "", "no JSON", "{}"])
def test_an_output_that_is_no_input_is_replaced(step: Step, old: str) -> None:
    step.write("output.json", old)

    assert step.run("ibm_fez", "input.json", "output.json").returncode == 0
    assert '"results"' in step.output.read_text(encoding="utf-8")


def for_torino(**needs: object) -> str:
    known = {"backend": "ibm_torino", "calibrated_at": "2026-03-05T06:00:00Z"}
    return json.dumps(json.loads(sampler_input()) | {"qpu_slurm": known | needs})


MISFITS: dict[str, tuple[dict[str, object], str]] = {
    "qubits": ({"qubits": 157}, "157 qubits, where ibm_fez has 156"),
    "gates": ({"gates": ["barrier", "ecr", "measure", "sx"]}, "uses ecr, which ibm_fez has not"),
}


@pytest.mark.parametrize("what", MISFITS)
def test_what_was_transpiled_for_another_qpu_and_does_not_fit_is_refused(step: Step, what: str) -> None:
    needs, words = MISFITS[what]
    step.write("input.json", for_torino(**needs))

    done = step.run("ibm_fez", "input.json", "output.json")
    dry = step.run("--dry-run", "ibm_fez", "input.json")

    assert (done.returncode, dry.returncode) == (BAD_INPUT, BAD_INPUT)
    assert "input.json: it was transpiled for ibm_torino, and " in done.stderr
    assert words in done.stderr
    assert words in dry.stdout
    assert "--any-backend" in done.stderr
    assert step.tasks() == []


def test_its_user_may_insist(step: Step) -> None:
    step.write("input.json", for_torino(qubits=157))

    done = step.run("--any-backend", "ibm_fez", "input.json", "output.json")

    assert done.returncode == 0
    assert "was transpiled for ibm_torino, and is executed on ibm_fez" in done.stderr


def test_what_was_transpiled_for_another_qpu_and_may_fit_is_warned_of(step: Step) -> None:
    step.write("input.json", for_torino(qubits=133, gates=["cz", "measure", "rz", "x"]))

    done = step.run("ibm_fez", "input.json", "output.json")

    assert done.returncode == 0
    assert "was transpiled for ibm_torino, and is executed on ibm_fez" in done.stderr
