# SPDX-License-Identifier: Apache-2.0
"""Writes circuits as OpenQASM 3 that is read back unchanged.

Qiskit's exporter writes more than Qiskit's importer reads, and the service uses the importer. A circuit that
would be read back as something else is refused, with the advice to write QPY.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from qpu_slurm.errors import PayloadError
from qpu_slurm.tasks import openqasm

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qiskit import QuantumCircuit
    from qiskit.circuit import CircuitInstruction

QPY_ADVICE: Final = 'Write it as QPY (format="qpy").'
_INPUT: Final = re.compile(r"^input \w+(?:\[\d+\])? (\w+);$", re.MULTILINE)
_REGISTER: Final = re.compile(r"^bit\[\d+\] (\w+);$", re.MULTILINE)


def written(circuit: QuantumCircuit) -> str:
    """Write a circuit as OpenQASM 3.

    Parameters are declared in the order of `circuit.parameters`. Some readers bind values in the order of the
    declarations, others in the order of the names. If the two differ, the parameters are renamed to `p00`,
    `p01`, …, which have one order.

    Raises:
        PayloadError: OpenQASM 3, Qiskit's exporter or its importer cannot express the circuit.
    """
    for instruction in _instructions(circuit):
        if problem := _problem(instruction):
            raise _refusal(circuit, problem)
    text = _exported(circuit)
    declared = set(_REGISTER.findall(text))
    for register in circuit.cregs:
        if register.name not in declared or openqasm.renamed(register.name):
            raise PayloadError(
                f"The classical register {register.name!r} of the circuit {circuit.name} would have another "
                'name in OpenQASM 3, and in the result. Rename it, or write QPY (format="qpy").'
            )
    names = _INPUT.findall(text)
    return text if names == sorted(names) else _exported(_with_ordered_names(circuit))


def _exported(circuit: QuantumCircuit) -> str:
    from qiskit import qasm3  # noqa: PLC0415 - half a second

    try:
        text: str = qasm3.dumps(circuit)
    except qasm3.QASM3ExporterError as error:
        raise _refusal(circuit, error.message) from error
    return text


def _with_ordered_names(circuit: QuantumCircuit) -> QuantumCircuit:
    """Return the circuit with parameters whose names are in their order."""
    from qiskit.circuit import Parameter  # noqa: PLC0415 - likewise

    width = len(str(circuit.num_parameters - 1))
    named = {parameter: Parameter(f"p{index:0{width}}") for index, parameter in enumerate(circuit.parameters)}
    return circuit.assign_parameters(named)


def _instructions(circuit: QuantumCircuit) -> Iterator[CircuitInstruction]:
    """Iterate over a circuit's instructions, in blocks as well."""
    for instruction in circuit.data:
        yield instruction
        if instruction.name in {"if_else", "for_loop", "while_loop", "switch_case", "box"}:
            for block in instruction.operation.blocks:
                yield from _instructions(block)


def _problem(instruction: CircuitInstruction) -> str | None:
    """Return why an instruction would not be read back unchanged; None if it would."""
    match instruction.name:
        case "delay" if not isinstance(instruction.params[0], int | float):
            return "its delay depends on a parameter or an expression"
        case "id":
            return "Qiskit's importer reads id as U(0, 0, 0)"
        case "switch_case" | "store":
            return f"Qiskit's importer does not read {instruction.name}"
        case "if_else" | "while_loop" if not isinstance(instruction.operation.condition, tuple):
            return "Qiskit's importer reads no condition but one of a bit, or of a register and a number"
    return None


def _refusal(circuit: QuantumCircuit, problem: str) -> PayloadError:
    return PayloadError(
        f"The circuit {circuit.name} cannot be written as OpenQASM 3: {problem}. {QPY_ADVICE}"
    )
