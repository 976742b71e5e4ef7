#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Packages: qiskit 2.6.2, qiskit-qasm3-import 0.6.0.
#
# One would guess that the exporter refuses what OpenQASM 3 cannot say, as it does elsewhere
# (QASM3ExporterError), or writes `delay[t * 1ns]`. For a delay of t nanoseconds, t a Parameter, it writes
# `delay[tns]`, which reads as a name that is declared nowhere.
#
# Seen: `input float[64] t_0;` and `delay[tns] q[0];`; the importer: Undefined symbol 'tns'.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check qiskit==2.6.2 qiskit-qasm3-import==0.6.0
"$folder/venv/bin/python" - <<'EOF'
from qiskit import QuantumCircuit, qasm3
from qiskit.circuit import Parameter

circuit = QuantumCircuit(1)
circuit.delay(Parameter("t"), 0, "ns")
text = qasm3.dumps(circuit)
print(text)
assert "delay[tns] q[0];" in text
try:
    qasm3.loads(text)
except qasm3.QASM3ImporterError as error:
    print(error)
    assert "Undefined symbol 'tns'" in str(error)
else:
    raise SystemExit("the importer takes it")
EOF
