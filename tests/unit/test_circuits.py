# SPDX-License-Identifier: Apache-2.0
"""Circuits that load and then break what reads them do not break a dry run."""

from __future__ import annotations

import base64
import io
import zlib
from typing import Any

import msgspec
import pytest
from msgspec import Raw
from qiskit import QuantumCircuit, qpy

from qpu_slurm.runner.circuits import Findings, sets


def encoded(circuit: QuantumCircuit) -> Raw:
    with io.BytesIO() as file:
        qpy.dump(circuit, file)
        value = base64.b64encode(zlib.compress(file.getvalue())).decode()
    return Raw(msgspec.json.encode({"__type__": "QuantumCircuit", "__value__": value}))


def breaking(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> Findings:
    """Go through a circuit of which Qiskit gives one operation, and breaks at the next."""

    class Broken:
        name = "x"
        qubits = ()

        @property
        def operation(self) -> Any:  # noqa: ANN401 - Qiskit's
            raise error

    def load(_: object) -> list[Any]:
        circuit = type("Circuit", (), {"num_qubits": 1, "cregs": [], "data": [Broken()]})
        return [circuit()]

    monkeypatch.setattr(qpy, "load", load)
    found = Findings()
    for _ in found.operations(encoded(QuantumCircuit(1)), Raw(b"null")):
        pass
    return found


class PanicException(BaseException):
    pass


@pytest.mark.parametrize("error", [PanicException("index out of bounds"), KeyError("x"), RecursionError()])
def test_whatever_qiskit_raises_the_circuit_is_not_checked(
    monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    found = breaking(monkeypatch, error)

    [unchecked] = found.unchecked
    assert unchecked.startswith(f"the circuit: this Qiskit cannot read it ({type(error).__name__}: ")


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit()])
def test_what_ends_the_program_ends_it(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    with pytest.raises(type(error)):
        breaking(monkeypatch, error)


@pytest.mark.parametrize("value", ['"AAAA"', '"!"', "5", "null"])
def test_what_is_no_qpy_is_not_checked(value: str) -> None:
    found = Findings()

    assert list(found.operations(Raw(f'{{"__value__": {value}}}'.encode()), Raw(b"null"))) == []
    assert len(found.unchecked) == 1


def test_a_loops_break_is_on_no_qubits() -> None:
    circuit = QuantumCircuit(2, 1)
    with circuit.while_loop((circuit.clbits[0], 1)):
        circuit.x(0)
        circuit.x(1)
        circuit.break_loop()
    found = Findings()

    assert list(found.walk(circuit)) == [("while_loop", ()), ("x", (0,)), ("x", (1,)), ("break_loop", ())]


@pytest.mark.parametrize(
    ("values", "count"),
    [("null", 1), ("[1, 2]", 1), ("[[1], [2]]", 2), ('{"__type__": "x"}', None), ('{"a": 1}', None)],
)
def test_sets_of_values_are_counted(values: str, count: int | None) -> None:
    assert sets(Raw(values.encode())) == count
