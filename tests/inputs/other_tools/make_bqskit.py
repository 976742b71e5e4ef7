# SPDX-License-Identifier: Apache-2.0
"""Writes bqskit.qasm. Needs bqskit==1.2.1."""

from bqskit import Circuit
from bqskit.ir.gates import CNOTGate, RZGate, XGate

circuit = Circuit(3)
circuit.append_gate(XGate(), 2)
circuit.append_gate(CNOTGate(), (2, 0))
circuit.append_gate(RZGate(), 1, [0.5])
circuit.save("bqskit.qasm")  # without measurements
