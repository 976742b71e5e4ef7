# SPDX-License-Identifier: Apache-2.0
"""Writes pytket.qasm. Needs pytket==2.18.5."""

from pytket.circuit import Circuit
from pytket.qasm import circuit_to_qasm

circuit = Circuit()
qubits = circuit.add_q_register("q", 2)
second = circuit.add_c_register("second", 1)
first = circuit.add_c_register("first", 1)  # written before `second`: registers are sorted by name
circuit.X(qubits[0])
circuit.CX(qubits[0], qubits[1])
circuit.Rx(1.0, qubits[1])  # in half turns: pi
circuit.Measure(qubits[0], second[0])
circuit.Measure(qubits[1], first[0])
circuit_to_qasm(circuit, "pytket.qasm")
