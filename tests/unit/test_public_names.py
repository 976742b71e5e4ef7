# SPDX-License-Identifier: Apache-2.0
"""What a user's program may import, and what importing it costs."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import qpu_slurm

TEXT = (Path(__file__).parents[2] / "docs" / "python-api.md").read_text(encoding="utf-8")

PUBLIC = {
    "Estimator",
    "EstimatorV2",
    "Progress",
    "Qpu",
    "QpuSlurmError",
    "Sampler",
    "SamplerV2",
    "Session",
    "Task",
    "__version__",
    "execute",
    "job_qpus",
    "read_executor_result",
    "read_result",
    "submit",
    "write_estimator_input",
    "write_executor_input",
    "write_sampler_input",
}


def imported_by(statement: str) -> set[str]:
    """Return the modules that are loaded after a statement in a fresh interpreter."""
    code = f"{statement}\nimport sys\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return set(done.stdout.split())


def test_the_public_names_are_these() -> None:
    assert set(qpu_slurm.__all__) == PUBLIC
    assert set(dir(qpu_slurm)) >= PUBLIC


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_a_public_name_is_there(name: str) -> None:
    assert getattr(qpu_slurm, name)


def test_another_name_is_not_there() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        _ = qpu_slurm.nonsense


def test_importing_the_package_loads_nothing_of_it() -> None:
    loaded = imported_by("import qpu_slurm")

    assert {name for name in loaded if name.startswith("qpu_slurm")} == {"qpu_slurm"}
    assert not loaded & {"msgspec", "requests", "qiskit", "numpy", "importlib.metadata"}


@pytest.mark.parametrize(
    "statement",
    [
        "import qpu_slurm.runner.main",
        "from qpu_slurm import Qpu, execute, job_qpus, submit",
        "from qpu_slurm import read_executor_result, read_result",
        "from qpu_slurm import write_estimator_input, write_executor_input, write_sampler_input",
    ],
)
def test_qiskit_is_loaded_only_when_it_is_used(statement: str) -> None:
    assert not imported_by(statement) & {"qiskit", "qiskit_ibm_runtime", "numpy", "rich", "structlog"}


def test_execution_loads_what_speaks_http_only_when_it_is_used() -> None:
    assert "requests" not in imported_by("from qpu_slurm import execute, submit")


def test_every_public_name_has_a_place_in_the_reference() -> None:
    headings = set(re.findall(r"^### `(\w+)`$", TEXT, re.MULTILINE))

    assert headings | {"__version__"} == PUBLIC


def members(kind: type) -> set[str]:
    """List what a class offers, but for what every class has."""
    fields = getattr(kind, "__struct_fields__", ())
    return {name for name in dir(kind) if not name.startswith("_")} | set(fields)


@pytest.mark.parametrize("name", ["Qpu", "Task", "Progress"])
def test_every_member_is_in_the_reference(name: str) -> None:
    section = TEXT.split(f"### `{name}`\n", 1)[1].split("\n#", 1)[0]
    described = set(re.findall(r"`(?:Qpu)?\.?(\w+)[`(]", section))

    assert members(getattr(qpu_slurm, name)) <= described


@pytest.mark.parametrize(
    "name", ["submit", "write_estimator_input", "write_executor_input", "write_sampler_input"]
)
def test_every_argument_is_in_the_reference(name: str) -> None:
    described = TEXT.split(f"### `{name}`\n", 1)[1].split("\n### `", 2)
    text = described[0] + "".join(described[1:2])

    for argument in inspect.signature(getattr(qpu_slurm, name)).parameters:
        assert re.search(rf"\b{argument}\b", text), argument
