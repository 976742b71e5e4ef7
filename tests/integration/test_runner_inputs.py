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


def test_a_result_that_holds_no_bit_has_the_same_advice(step: Step) -> None:
    done = step.run("ibm_fez", INPUTS / "scalar_bit_only.json", "output.json")

    assert 'write "bit[1] b;"' in done.stderr


def test_a_quotient_of_integers_is_warned_of_when_its_task_is_submitted(step: Step) -> None:
    step.write("input.json", sampler_input(HEAD + "bit[1] c;\nrz(1/2*pi) $0;\nc[0] = measure $0;"))

    done = step.run("ibm_fez", "input.json", "output.json")

    assert done.returncode == 0
    assert "'1/2*pi' divides integers" in done.stderr
    assert "write '1.0/2*pi'" in done.stderr
    assert step.run("-q", "ibm_fez", "input.json", "output.json").stderr == ""
