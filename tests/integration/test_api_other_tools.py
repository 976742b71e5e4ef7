# SPDX-License-Identifier: Apache-2.0
"""docs/inputs-from-other-tools.md: each recipe brings a file that the real tool wrote to the right counts."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.integration.steps import Step

ROOT = Path(__file__).parents[2]
FILES = ROOT / "tests" / "inputs" / "other_tools"
SECTIONS = {
    section.split("\n", 1)[0]: section
    for section in (ROOT / "docs" / "inputs-from-other-tools.md").read_text(encoding="utf-8").split("\n## ")
}

COUNTS = {
    # X on q[0], CX to q[1], which Rx(1.0), half a turn, puts back: `second` has q[0], `first` has q[1].
    "pytket": "{'1': 100} {'0': 100}",
    # `flag` is 1, so the first qubit of `pair` is flipped, and that is Cirq's most significant bit.
    "Cirq": "{2: 100}",
    # beta flips qubit 0, which flips qubit 1, which gamma had flipped.
    "Amazon Braket": "{'10': 100}",
    # X on qubit 2, CNOT to qubit 0; Qiskit's strings begin with qubit 2.
    "BQSKit": "{'101': 100}",
    # X on wire 2, CNOT to wire 0; PennyLane's strings begin with wire 0.
    "PennyLane": "{'101': 100}",
}


def run(step: Step, script: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", script],
        env=step.environ,
        cwd=step.directory,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.strip()


@pytest.mark.parametrize("tool", COUNTS)
def test_a_recipe_comes_to_the_tools_own_counts(step: Step, tool: str) -> None:
    for file in FILES.glob("*.qasm"):
        shutil.copy(file, step.directory)
    make, read = re.findall(r"^```python\n(.*?)^```", SECTIONS[tool], re.DOTALL | re.MULTILINE)

    run(step, make)
    checked = step.run("--dry-run", "ibm_fez", "input.json")
    assert (checked.returncode, "problem" in checked.stdout) == (0, False), checked.stdout
    assert step.run("ibm_fez", "input.json", "output.json").returncode == 0

    assert run(step, read) == COUNTS[tool]


def test_pennylanes_numbering_without_wires_is_the_trap_that_it_is_said_to_be(step: Step) -> None:
    shutil.copy(FILES / "pennylane.qasm", step.directory / "pennylane_wires.qasm")
    make, read = re.findall(r"^```python\n(.*?)^```", SECTIONS["PennyLane"], re.DOTALL | re.MULTILINE)

    run(step, make)
    assert step.run("ibm_fez", "input.json", "output.json").returncode == 0

    assert run(step, read) != COUNTS["PennyLane"]


def test_the_releases_are_those_that_wrote_the_files() -> None:
    table = dict(
        re.findall(r"^\| ([A-Z]?[\w ]+?) \| ([\d.]+) \|", SECTIONS["# Inputs from other tools"], re.MULTILINE)
    )
    for tool, release in table.items():
        script = (FILES / f"make_{tool.lower().removeprefix('amazon ')}.py").read_text(encoding="utf-8")
        assert f"=={release}." in script


@pytest.mark.parametrize(
    ("file", "hint"),
    [
        ("braket.qasm", "Amazon Braket declares inputs in another order in each run"),
        ("cirq.qasm", "Cirq's first qubit of a measurement is its most significant bit"),
    ],
)
def test_a_dry_run_recognizes_a_file_whose_order_is_a_trap(step: Step, file: str, hint: str) -> None:
    from tests.integration.steps import sampler_input  # noqa: PLC0415 - beside what it is for

    step.write("input.json", sampler_input((FILES / file).read_text(encoding="utf-8")))

    assert hint in step.run("--dry-run", "ibm_fez", "input.json").stdout


@pytest.mark.parametrize("file", ["pytket.qasm", "bqskit.qasm", "pennylane.qasm"])
def test_openqasm_2_is_refused_with_the_recipes(step: Step, file: str) -> None:
    from tests.integration.steps import sampler_input  # noqa: PLC0415 - likewise

    step.write("input.json", sampler_input((FILES / file).read_text(encoding="utf-8")))

    done = step.run("ibm_fez", "input.json")

    assert done.returncode == 2
    assert "docs/inputs-from-other-tools.md" in done.stderr
