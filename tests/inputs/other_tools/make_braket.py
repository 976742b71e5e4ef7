# SPDX-License-Identifier: Apache-2.0
"""Writes braket.qasm. Needs amazon-braket-sdk==1.127.5."""

from pathlib import Path

from braket.circuits import Circuit, FreeParameter

alpha, beta, gamma = (FreeParameter(name) for name in ("alpha", "beta", "gamma"))
circuit = Circuit().rx(0, beta).ry(0, alpha).rx(1, gamma).cnot(0, 1).measure(0).measure(1)
# The order of the `input` lines differs from run to run.
Path("braket.qasm").write_text(circuit.to_ir("OPENQASM").source + "\n", encoding="utf-8")
