# SPDX-License-Identifier: Apache-2.0
"""Writes cirq.qasm. Needs cirq-core==1.7.0."""

from pathlib import Path

import cirq

a, b, c = cirq.LineQubit.range(3)
circuit = cirq.Circuit(
    cirq.X(a),
    cirq.measure(a, key="flag"),
    cirq.X(b).with_classical_controls("flag"),  # written as `if (m_flag!=0)`
    cirq.measure(b, c, key="pair"),  # 2 for Cirq: its first qubit is the most significant bit
)
Path("cirq.qasm").write_text(circuit.to_qasm(version="3.0"), encoding="utf-8")
