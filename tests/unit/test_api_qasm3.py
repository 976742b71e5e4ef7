# SPDX-License-Identifier: Apache-2.0
"""OpenQASM 3 comes back as the circuit that was written, whoever reads it, or is not written."""

from __future__ import annotations

from math import pi
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from qiskit import ClassicalRegister, QuantumCircuit, QuantumRegister, qasm3
from qiskit.circuit import Parameter, ParameterVector
from qiskit.circuit.classical import expr
from qiskit.quantum_info import Statevector

from qpu_slurm.api.inputs import sampler_document
from qpu_slurm.api.qasm3 import written
from qpu_slurm.errors import PayloadError

if TYPE_CHECKING:
    from collections.abc import Callable

WORDS = ["a", "B", "θ", "θ2", "θ10", "x[1]", "_", "rx", "p0", "a b", "Z9", "z10"]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(WORDS), min_size=1, unique=True), st.integers(0, 13), st.data())
def test_values_bind_to_the_same_parameters_by_declaration_and_by_name(
    names: list[str], length: int, data: st.DataObject
) -> None:
    parameters = [*map(Parameter, names), *ParameterVector("v", length)]
    circuit = QuantumCircuit(1)
    for parameter in data.draw(st.permutations(parameters)):
        circuit.rx(parameter, 0)
        circuit.ry(0.3, 0)
    values = np.linspace(0.1, 3, circuit.num_parameters)

    back = qasm3.loads(written(circuit))

    # The importer sorts by name; others go by the order of declaration.
    assert [each.name for each in back.parameters] == [
        line.split()[-1][:-1] for line in written(circuit).splitlines() if line.startswith("input")
    ]
    assert Statevector(back.assign_parameters(values)).equiv(Statevector(circuit.assign_parameters(values)))


def test_names_that_have_one_order_are_kept() -> None:
    circuit = QuantumCircuit(1)
    for name in ("alpha", "beta"):
        circuit.rx(Parameter(name), 0)

    assert "input float[64] alpha;\ninput float[64] beta;" in written(circuit)


def of_register(name: str) -> QuantumCircuit:
    return QuantumCircuit(QuantumRegister(1), ClassicalRegister(1, name))


def delayed(duration: object) -> QuantumCircuit:
    circuit = QuantumCircuit(1)
    circuit.delay(duration, 0, *([] if isinstance(duration, expr.Expr) else ["ns"]))
    return circuit


def identity() -> QuantumCircuit:
    circuit = QuantumCircuit(1)
    circuit.id(0)
    return circuit


def switched() -> QuantumCircuit:
    circuit = QuantumCircuit(1, 1)
    with circuit.switch(circuit.clbits[0]) as case, case(1):
        circuit.x(0)
    return circuit


def conditioned() -> QuantumCircuit:
    circuit = QuantumCircuit(1, 2)
    with circuit.if_test(expr.bit_and(*circuit.clbits)):
        circuit.x(0)
    return circuit


@pytest.mark.parametrize(
    ("make", "words"),
    [
        *[
            (lambda name=name: of_register(name), "would have another name")
            for name in ("_c", "C", "é", "input")
        ],
        (lambda: delayed(Parameter("t")), "its delay depends on a parameter"),
        (identity, r"Qiskit's importer reads id as U\(0, 0, 0\)"),
        (switched, "does not read switch_case"),
        (conditioned, "reads no condition but one of a bit"),
    ],
)
def test_what_would_come_back_as_something_else_is_refused(
    make: Callable[[], QuantumCircuit], words: str
) -> None:
    with pytest.raises(PayloadError, match=words):
        written(make())
    circuit = make()
    sampler_document([(circuit, [0.0] * circuit.num_parameters)])


def test_values_are_written_as_the_clients_are() -> None:
    circuit = QuantumCircuit(1, 1)
    circuit.rx(Parameter("a"), 0)

    [as_text] = sampler_document([(circuit, [pi])], format="qasm3")["parameters"]["pubs"]
    [as_qpy] = sampler_document([(circuit, [pi])])["parameters"]["pubs"]

    assert isinstance(as_text[1], np.ndarray)
    assert as_text[1:] == as_qpy[1:]
