# SPDX-License-Identifier: Apache-2.0
"""Circuits made ready for simulation: checked against the QPU, cut down to the qubits that they use."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

from qiskit.circuit import BoxOp, ControlFlowOp, ParameterExpression, QuantumCircuit, Qubit
from qiskit.circuit.library import IGate, SdgGate, SGate, ZGate
from qiskit.converters import circuit_to_dag, dag_to_circuit

from qpu_slurm_devkit.emulator.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from qiskit.primitives.containers.bindings_array import BindingsArray
    from qiskit.primitives.containers.estimator_pub import EstimatorPub
    from qiskit.primitives.containers.sampler_pub import SamplerPub

# A statevector of 26 qubits takes 1 GiB.
_STATEVECTOR_QUBITS = 26

_NOT_AN_INSTRUCTION = 1517

# The service takes a little more than pi/2, as its client does: angles are rounded on the way.
_RZZ_MOST = math.pi / 2 + 1e-10

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
        InvalidInputError: It uses more qubits than there are, or instructions, control flow or pairs of
            qubits that the QPU does not have.
    """
    if configuration is None:
        return
    if circuit.num_qubits > configuration["n_qubits"]:
        raise InvalidInputError(
            f"The circuit has {circuit.num_qubits} qubits, {configuration['backend_name']} has "
            f"{configuration['n_qubits']}."
        )
    names = _ALWAYS | set(configuration["basis_gates"])
    pairs = {frozenset(pair) for pair in configuration["coupling_map"]}
    flow = configuration.get("supported_instructions")
    qpu = _Qpu(names, pairs, None if flow is None else frozenset(flow) | {"box"})
    _check_block(circuit, list(range(circuit.num_qubits)), qpu)


class _Qpu(NamedTuple):
    """What a QPU can do: its instructions, its pairs of qubits, its control flow (None: any)."""

    names: frozenset[str]
    pairs: set[frozenset[int]]
    flow: frozenset[str] | None


def _check_block(circuit: QuantumCircuit, qubits: list[int], qpu: _Qpu) -> None:
    """Check a circuit, or a block of control flow within one, that acts on certain qubits of the QPU."""
    for instruction in circuit.data:
        operation = instruction.operation
        acts_on = [qubits[circuit.find_bit(qubit).index] for qubit in instruction.qubits]
        if isinstance(operation, ControlFlowOp):
            if qpu.flow is not None and operation.name not in qpu.flow:
                raise InvalidInputError(
                    f"The instruction {operation.name} is not supported by the target system.",
                    _NOT_AN_INSTRUCTION,
                )
            for block in operation.blocks:
                _check_block(block, acts_on, qpu)
            continue
        fits = operation.name in qpu.names
        if fits and len(acts_on) == 2 and operation.name not in _TIMING:  # noqa: PLR2004 (a pair is two)
            fits = frozenset(acts_on) in qpu.pairs
        if not fits and operation.name not in {"store", "break_loop", "continue_loop"}:
            raise InvalidInputError(
                f"The instruction {operation.name} on qubits {tuple(acts_on)} is not supported by the target "
                "system. Transpile the circuit for the backend.",
                _NOT_AN_INSTRUCTION,
            )


def check_angles(pub: SamplerPub | EstimatorPub) -> None:
    """Check that every rzz has an angle from 0 to pi/2, for all values of the pub's parameters.

    Raises:
        InvalidInputError: One has not.
    """
    for angle in _rzz_angles(pub.circuit):
        for value in _values(angle, pub.parameter_values):
            if not 0 <= value <= _RZZ_MOST:
                raise InvalidInputError(
                    f"The instruction rzz is supported only for angles in [0, pi/2], not for {value}.",
                    _NOT_AN_INSTRUCTION,
                )


def _rzz_angles(circuit: QuantumCircuit) -> Iterator[float | ParameterExpression]:
    for instruction in circuit.data:
        if isinstance(instruction.operation, ControlFlowOp):
            for block in instruction.operation.blocks:
                yield from _rzz_angles(block)
        elif instruction.operation.name == "rzz":
            yield instruction.operation.params[0]


def _values(angle: float | ParameterExpression, bindings: BindingsArray) -> Iterator[float]:
    """Go through what an angle is for each set of values."""
    if not isinstance(angle, ParameterExpression):
        yield float(angle)
        return
    flat = bindings.ravel()
    table = flat.as_array([parameter.name for parameter in angle.parameters])
    for row in table:
        yield float(angle.bind(dict(zip(angle.parameters, map(float, row), strict=True))))


def unboxed(circuit: QuantumCircuit) -> QuantumCircuit:
    """Write the bodies of boxes where the boxes stand: a box is about timing, which is not simulated."""
    if not any(isinstance(instruction.operation, ControlFlowOp) for instruction in circuit.data):
        return circuit
    flat = circuit.copy_empty_like()
    for instruction in circuit.data:
        if isinstance(instruction.operation, BoxOp):
            body = unboxed(instruction.operation.blocks[0])
            flat.compose(body, instruction.qubits, instruction.clbits, inplace=True)
        elif isinstance(instruction.operation, ControlFlowOp):
            blocks = [unboxed(block) for block in instruction.operation.blocks]
            flat.append(instruction.replace(operation=instruction.operation.replace_blocks(blocks)))
        else:
            flat.append(instruction)
    return flat


def reduce(circuit: QuantumCircuit) -> tuple[QuantumCircuit, list[int]]:
    """Cut a circuit down to the qubits that it uses.

    Returns:
        The smaller circuit, and which qubits of the old one its qubits are.
    """
    dag = circuit_to_dag(unboxed(circuit))
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
