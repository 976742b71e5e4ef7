# SPDX-License-Identifier: Apache-2.0
"""What is seen of an OpenQASM 3 program without Qiskit is what Qiskit wrote into it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from qiskit import QuantumCircuit, qasm3, transpile
from qiskit.circuit import Parameter
from qiskit.circuit.library import efficient_su2
from qiskit_ibm_runtime.fake_provider import FakeFez

from qpu_slurm.runner.qasm import Program

if TYPE_CHECKING:
    from qpu_slurm.runner.qasm import Operation

HEAD = 'OPENQASM 3.0;\ninclude "stdgates.inc";\n'


def written(circuit: QuantumCircuit) -> list[Operation]:
    """List what a flat circuit does."""
    return [
        (instruction.operation.name, tuple(circuit.find_bit(qubit).index for qubit in instruction.qubits))
        for instruction in circuit.data
        if instruction.operation.name not in {"barrier", "delay"}
    ]


def circuits() -> dict[str, QuantumCircuit]:
    ansatz = efficient_su2(4, reps=1)
    ansatz.measure_all()
    parameters = QuantumCircuit(2, 2)
    parameters.rz(2 * Parameter("a") + 1, 0)
    parameters.cx(0, 1)
    parameters.barrier()
    parameters.delay(100, 0, "ns")
    parameters.reset(1)
    parameters.measure([0, 1], [1, 0])
    return {"ansatz": ansatz, "parameters": parameters}


@pytest.mark.parametrize("name", ["ansatz", "parameters"])
def test_a_transpiled_circuit_is_seen_as_it_is(name: str) -> None:
    circuit = transpile(circuits()[name], FakeFez(), optimization_level=1, seed_transpiler=1)
    program = Program(qasm3.dumps(circuit, disable_constants=True, allow_aliasing=True))

    assert list(program.operations()) == written(circuit)
    assert program.unread == 0


def test_blocks_are_looked_into() -> None:
    circuit = QuantumCircuit(2, 1)
    circuit.measure(0, 0)
    with circuit.if_test((circuit.clbits[0], 1)) as otherwise:
        circuit.x(0)
    with otherwise:
        circuit.cx(0, 1)
    with circuit.for_loop(range(3)):
        circuit.sx(1)
    program = Program(qasm3.dumps(circuit))

    assert list(program.operations()) == [
        ("measure", (0,)),
        ("if_else", ()),
        ("x", (0,)),
        ("cx", (0, 1)),
        ("for_loop", ()),
        ("sx", (1,)),
    ]
    assert program.unread == 0


@pytest.mark.parametrize(
    ("text", "operations", "unread"),
    [
        ("x $0; // y $1;\n/* z $2;\n*/ sx $3;", [("x", (0,)), ("sx", (3,))], 0),
        ("rz(pi/2 + f(1, 2)) $7;", [("rz", (7,))], 0),
        ("qubit a; qubit[3] b; cz a, b[2]; x b;", [("cz", (0, 3)), ("x", (1,)), ("x", (2,)), ("x", (3,))], 0),
        ("bit[2] c; c = measure $1; measure $2;", [("measure", (1,)), ("measure", (2,))], 0),
        ("gate mine(a) q, r { rz(a) q; cz q, r; } mine(1) $0, $1;", [("mine", (0, 1))], 0),
        ("bit c; if (c == 1) x $4;", [("if_else", ()), ("x", (4,))], 0),
        ("ctrl(2) @ inv @ x $0, $1, $2;", [("ctrl(2) @ inv @ x", (0, 1, 2))], 0),
        ("pragma something h $9;\nx $0;", [("x", (0,))], 0),
        ("let q = $0 ++ $1; x q;", [], 2),
        ("x nobody[1]; qubit[2] q; x q[5];", [], 2),
        ("qubit[2] a; qubit[3] b; cz a, b;", [], 1),
        ("for uint i in [0:2] { x $1; }", [("for_loop", ()), ("x", (1,))], 0),
        ("", [], 0),
    ],
)
def test_what_is_written_by_hand(text: str, operations: list[Operation], unread: int) -> None:
    program = Program(HEAD + text)

    assert (list(program.operations()), program.unread) == (operations, unread)


@given(st.text(alphabet="xz$012 ,;(){}[]@=>-/*qmeasure\n", max_size=60))
def test_no_text_is_too_much_for_it(text: str) -> None:
    for name, qubits in Program(HEAD + text).operations():
        assert name
        assert all(qubit >= 0 for qubit in qubits)
