# SPDX-License-Identifier: Apache-2.0
"""What the writers write is what IBM's published schema (ibm-quantum-schemas) wants, or is listed."""

from __future__ import annotations

import json
import re
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from ibm_quantum_schemas.estimator.version_0_1.params import ParamsModel as EstimatorParams
from ibm_quantum_schemas.executor.version_2_0.models import ParamsModel as ExecutorParams
from ibm_quantum_schemas.sampler.version_0_1.params import ParamsModel as SamplerParams
from pydantic import BaseModel, ValidationError
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter
from qiskit.primitives.containers.estimator_pub import EstimatorPub
from qiskit.primitives.containers.sampler_pub import SamplerPub
from qiskit.quantum_info import SparsePauliOp
from qiskit_ibm_runtime import QuantumProgram, RuntimeEncoder

from qpu_slurm import write_estimator_input, write_executor_input, write_sampler_input

if TYPE_CHECKING:
    from collections.abc import Callable

    from qpu_slurm.api.inputs import CircuitFormat

DOCS = Path(__file__).parents[2] / "docs" / "python-api.md"


def circuit() -> QuantumCircuit:
    made = QuantumCircuit(2, 2)
    made.rx(Parameter("a"), 0)
    made.ry(Parameter("b"), 1)
    made.measure([0, 1], [0, 1])
    return made


def parameters(path: Path) -> Any:  # noqa: ANN401 - JSON
    return json.loads(path.read_text(encoding="utf-8"))["parameters"]


@pytest.mark.parametrize("format_", ["qpy", "qasm3"])
@pytest.mark.parametrize("shape", [(2,), (3, 2), (2, 2, 2)])
def test_a_samplers_input(tmp_path: Path, format_: CircuitFormat, shape: tuple[int, ...]) -> None:
    path = tmp_path / "input.json"
    plain = QuantumCircuit(1, 1)
    options = {"default_shots": 5, "twirling": {"enable_gates": True}}

    write_sampler_input(path, [(circuit(), np.zeros(shape)), plain], shots=9, options=options, format=format_)

    SamplerParams.model_validate(parameters(path))


@pytest.mark.parametrize("format_", ["qpy", "qasm3"])
@pytest.mark.parametrize("precision", [None, 0.1])
def test_an_estimators_input(tmp_path: Path, format_: CircuitFormat, precision: float | None) -> None:
    path = tmp_path / "input.json"
    observables = [SparsePauliOp("ZZ"), SparsePauliOp(["XI", "IX"], [1, 2])]
    pubs = [(circuit(), observables, [0, 1]), (QuantumCircuit(1), "Z")]

    write_estimator_input(path, pubs, precision=precision, resilience_level=1, format=format_)

    EstimatorParams.model_validate(parameters(path))


def test_an_executors_input(tmp_path: Path) -> None:
    path = tmp_path / "input.json"
    program = QuantumProgram(shots=20)
    program.append_circuit_item(circuit(), circuit_arguments=np.zeros((3, 2)))

    write_executor_input(path, program)

    ExecutorParams.model_validate(parameters(path))


def as_the_client_writes(pubs: list[Any]) -> Any:  # noqa: ANN401 - JSON
    return json.loads(
        json.dumps({"pubs": pubs, "options": {}, "version": 2, "support_qiskit": True}, cls=RuntimeEncoder)
    )


REFUSED_OF_THE_CLIENT: dict[str, tuple[type[BaseModel], Callable[[], list[Any]]]] = {
    "unset shots are null": (SamplerParams, lambda: [SamplerPub.coerce(QuantumCircuit(1, 1))]),
    "observables of two or more dimensions": (
        EstimatorParams,
        lambda: [EstimatorPub.coerce((QuantumCircuit(1), [["Z"], ["X"]]))],
    ),
}


@pytest.mark.parametrize("what", REFUSED_OF_THE_CLIENT)
def test_what_the_schema_refuses_of_the_client_is_in_the_documentation(what: str) -> None:
    model, pubs = REFUSED_OF_THE_CLIENT[what]

    with pytest.raises(ValidationError):
        model.model_validate(as_the_client_writes(pubs()))

    assert what in DOCS.read_text(encoding="utf-8")


def test_the_schemas_release_is_in_the_documentation() -> None:
    release = re.match(r"\d+\.\d+", version("ibm-quantum-schemas"))
    assert release
    assert f"ibm-quantum-schemas {release[0]}" in DOCS.read_text(encoding="utf-8")
