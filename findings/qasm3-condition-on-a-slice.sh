#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Packages: qiskit 2.6.2, qiskit-qasm3-import 0.6.0.
#
# One would guess that a condition reads bits and leaves the results alone. Comparing a part of a register
# adds a classical register to the circuit, and so another field to what a sampler returns. Its name is made
# of the word None. Source: `_resolve_condition` in the importer, which wraps the bits in a new register.
#
# Seen: the program declares the register c; the result has the fields c and esc_None_0.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check qiskit==2.6.2 qiskit-qasm3-import==0.6.0
"$folder/venv/bin/python" - <<'EOF'
from qiskit import qasm3

circuit = qasm3.loads(
    'OPENQASM 3.0;\ninclude "stdgates.inc";\nbit[3] c;\nqubit[1] q;\n'
    "c[0] = measure q[0];\nif (c[0:1] == 2) { x q[0]; }\n"
)
names = [register.name for register in circuit.cregs]
print("declared: c; in the circuit:", names)
assert names == ["c", "esc_None_0"]
EOF
