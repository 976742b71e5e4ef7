# SPDX-License-Identifier: Apache-2.0
"""What a user's program may import, and what importing it costs."""

from __future__ import annotations

import subprocess
import sys

import pytest

import qpu_slurm

PUBLIC = {
    "Qpu",
    "QpuSlurmError",
    "__version__",
    "job_qpus",
    "read_result",
    "write_estimator_input",
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
    ["import qpu_slurm.tasks.runner", "from qpu_slurm import Qpu, read_result, write_sampler_input"],
)
def test_qiskit_is_loaded_only_when_it_is_used(statement: str) -> None:
    assert not imported_by(statement) & {"qiskit", "qiskit_ibm_runtime", "numpy", "rich", "structlog"}
