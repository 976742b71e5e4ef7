# SPDX-License-Identifier: Apache-2.0
"""Circuits made ready for simulation: checked against the QPU, cut down to the qubits that they use."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from qiskit.circuit import ControlFlowOp, QuantumCircuit, Qubit
from qiskit.circuit.library import IGate, SdgGate, SGate, ZGate
from qiskit.converters import circuit_to_dag, dag_to_circuit

from qpu_slurm_devkit.emulator.inputs import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Mapping

# A statevector of 26 qubits takes 1 GiB.
_STATEVECTOR_QUBITS = 26

_NOT_AN_INSTRUCTION = 1517

# What every QPU can do, whether its configuration lists it or not; rx and rzz are Heron's fractional gates.
_ALWAYS = frozenset({"measure", "reset", "delay", "barrier", "rx", "rzz", "measure_2"})

# Timing says nothing to an ideal simulation, and would keep idle qubits busy.
_TIMING = ("barrier", "delay")

_CLIFFORD = frozenset(
    {"id", "x", "y", "z", "h", "s", "sdg", "sx", "sxdg", "cx", "cz", "cy", "swap", "ecr", "measure", "reset"}
)
# What a rotation about z is after so many quarter turns, but for a phase that nobody can measure.
_QUARTER_TURNS = (IGate(), SGate(), ZGate(), SdgGate())
_ANGLE_TOLERANCE = 1e-9


def check(circuit: QuantumCircuit, configuration: Mapping[str, Any] | None) -> None:
    """Check that a QPU can run a circuit, as the service does.

    Args:
        circuit: The circuit.
        configuration: The QPU's configuration; None: any circuit will do.

    Raises:
        InvalidInput: It uses more qubits than there are, or instructions or pairs of qubits that the QPU
            does not have.
    """
    if configuration is None:
        return
    if circuit.num_qubits > configuration["n_qubits"]:
        raise InvalidInput(
            f"The circuit has {circuit.num_qubits} qubits, {configuration['backend_name']} has "
            f"{configuration['n_qubits']}."
        )
    names = _ALWAYS | set(configuration["basis_gates"])
    pairs = {frozenset(pair) for pair in configuration["coupling_map"]}
    _check_block(circuit, list(range(circuit.num_qubits)), names, pairs)


def _check_block(
    circuit: QuantumCircuit, qubits: list[int], names: frozenset[str], pairs: set[frozenset[int]]
) -> None:
    """Check a circuit, or a block of control flow within one, that acts on certain qubits of the QPU."""
    for instruction in circuit.data:
        operation = instruction.operation
        acts_on = [qubits[circuit.find_bit(qubit).index] for qubit in instruction.qubits]
        if isinstance(operation, ControlFlowOp):
            for block in operation.blocks:
                _check_block(block, acts_on, names, pairs)
            continue
        fits = operation.name in names
        if fits and len(acts_on) == 2 and operation.name not in _TIMING:  # noqa: PLR2004 (a pair is two)
            fits = frozenset(acts_on) in pairs
        if not fits and operation.name not in {"store", "break_loop", "continue_loop"}:
            raise InvalidInput(
                f"The instruction {operation.name} on qubits {tuple(acts_on)} is not supported by the target "
                "system. Transpile the circuit for the backend.",
                _NOT_AN_INSTRUCTION,
            )


def reduce(circuit: QuantumCircuit) -> tuple[QuantumCircuit, list[int]]:
    """Cut a circuit down to the qubits that it uses.

    Returns:
        The smaller circuit, and which qubits of the old one its qubits are.
    """
    dag = circuit_to_dag(circuit)
    for name in _TIMING:
        dag.remove_all_ops_named(name)
    idle = {wire for wire in dag.idle_wires() if isinstance(wire, Qubit)}
    if len(idle) == circuit.num_qubits:
        idle.remove(circuit.qubits[0])  # a circuit of no qubits cannot be run
    active = [index for index, qubit in enumerate(circuit.qubits) if qubit not in idle]
    dag.remove_qubits(*idle)
    return dag_to_circuit(dag), active


def method(circuit: QuantumCircuit) -> tuple[QuantumCircuit, str]:
    """Choose how Aer simulates a (reduced) circuit.

    Returns:
        The circuit, written so that the method takes it, and Aer's name of the method.
    """
    if circuit.num_qubits <= _STATEVECTOR_QUBITS:
        return circuit, "statevector"
    clifford = _as_clifford(circuit)
    return (circuit, "matrix_product_state") if clifford is None else (clifford, "stabilizer")


def _as_clifford(circuit: QuantumCircuit) -> QuantumCircuit | None:
    """Write a circuit with Clifford gates only; None if it is more than that.

    Aer takes a rotation for one only if its angle is exact to the last bit, which a transpiler's are not.
    """
    clifford = circuit.copy_empty_like()
    for instruction in circuit.data:
        operation = instruction.operation
        if operation.name == "rz" and isinstance(operation.params[0], int | float):
            turns = operation.params[0] / (math.pi / 2)
            if abs(turns - round(turns)) > _ANGLE_TOLERANCE:
                return None
            clifford.append(_QUARTER_TURNS[round(turns) % 4], instruction.qubits)
        elif operation.name in _CLIFFORD:
            clifford.append(instruction)
        else:
            return None
    return clifford
