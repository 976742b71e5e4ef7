# SPDX-License-Identifier: Apache-2.0
"""Writes pennylane.qasm and pennylane_wires.qasm. Needs pennylane==0.45.1."""

from pathlib import Path

import pennylane as qml


@qml.qnode(qml.device("default.qubit", wires=3))
def circuit() -> object:
    """Flip wire 2, and entangle nothing."""
    qml.X(wires=2)
    qml.CNOT(wires=[2, 0])
    qml.RZ(0.5, wires=1)
    return qml.sample(wires=[0, 1, 2])


# Without `wires`, qubits are numbered by their first use: wire 2 is q[0].
Path("pennylane.qasm").write_text(qml.to_openqasm(circuit)(), encoding="utf-8")
Path("pennylane_wires.qasm").write_text(qml.to_openqasm(circuit, wires=range(3))(), encoding="utf-8")
