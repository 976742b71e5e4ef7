# SPDX-License-Identifier: Apache-2.0
"""Primitive inputs, in every form that their writers use, made into Qiskit's pubs.

A circuit comes as QPY (the runtime client) or as OpenQASM 3 (qrmi, upstream's examples); parameters as an
ndarray, as nested lists, as null or not at all; shots in the pub, at the top or in the options.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
from qiskit import QuantumCircuit, QuantumRegister
from qiskit.primitives.containers.bindings_array import BindingsArray
from qiskit.primitives.containers.estimator_pub import EstimatorPub
from qiskit.primitives.containers.observables_array import ObservablesArray
from qiskit.primitives.containers.sampler_pub import SamplerPub
from qiskit_ibm_runtime import RuntimeDecoder

from qpu_slurm_devkit.emulator import options, qasm3
from qpu_slurm_devkit.emulator.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def load(path: Path) -> dict[str, Any]:
    """Read an input; its circuits in QPY and its arrays are decoded on the way."""
    with path.open(encoding="utf-8") as file:
        parameters = json.load(file, cls=RuntimeDecoder)
    if not isinstance(parameters, dict):
        raise InvalidInputError("The params are not an object.")
    return parameters


def sampler_pubs(parameters: dict[str, Any]) -> list[SamplerPub]:
    """Make a sampler's input into pubs."""
    default = options.shots(parameters)
    pubs = []
    for fields in _pubs(parameters):
        circuit, order = _circuit(fields[0])
        bindings = _bindings(circuit, order, _field(fields, 1))
        pubs.append(SamplerPub(circuit, bindings, int(_field(fields, 2) or default)))
    return pubs


def estimator_pubs(parameters: dict[str, Any]) -> list[EstimatorPub]:
    """Make an estimator's input into pubs; an observable may be longer than its circuit."""
    default = options.precision(parameters)
    pubs = []
    for fields in _pubs(parameters):
        circuit, order = _circuit(fields[0])
        observables = ObservablesArray.coerce(_field(fields, 1))
        # A program with physical qubits is as long as the last one that it names.
        missing = observables.num_qubits - circuit.num_qubits
        if missing > 0:
            circuit = circuit.copy()
            circuit.add_register(QuantumRegister(missing))
        bindings = _bindings(circuit, order, _field(fields, 2))
        precision = _field(fields, 3)
        pubs.append(EstimatorPub(circuit, observables, bindings, float(precision or default)))
    return pubs


def _pubs(parameters: dict[str, Any]) -> list[Sequence[Any]]:
    """List the pubs; a pub of a circuit alone may come without its brackets."""
    pubs = parameters.get("pubs")
    if not isinstance(pubs, list) or not pubs:
        raise InvalidInputError("The params hold no pubs.")
    return [pub if isinstance(pub, list | tuple) and pub else [pub] for pub in pubs]


def _field(fields: Sequence[Any], index: int) -> Any:  # noqa: ANN401 (what it is depends on the writer)
    """Take a field of a pub that may be shorter."""
    return fields[index] if index < len(fields) else None


def _circuit(field: object) -> tuple[QuantumCircuit, list[str]]:
    """Return a circuit, and its parameters' names in the order in which values are given."""
    if isinstance(field, QuantumCircuit):
        return field, [parameter.name for parameter in field.parameters]
    if not isinstance(field, str):
        raise InvalidInputError("A circuit is neither QPY nor OpenQASM 3.")
    return qasm3.read(field)


def _bindings(circuit: QuantumCircuit, order: list[str], values: object) -> BindingsArray:
    """Bind values to parameters, by place or by name."""
    if isinstance(values, dict):
        return BindingsArray.coerce(values)
    array = np.asarray([] if values is None else values, dtype=float)
    if array.size == 0 and not order:
        # No parameters: whatever axes there are, besides the one of the parameters, are the pub's.
        return BindingsArray(shape=array.shape[:-1])
    if array.ndim == 0:
        array = array.reshape(1)
    if array.shape[-1] != len(order):
        raise InvalidInputError(
            f"A circuit with {len(order)} parameters ({circuit.name}) was given {array.shape[-1]} values."
        )
    return BindingsArray({tuple(order): array}) if order else BindingsArray()
