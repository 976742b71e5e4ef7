#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Packages: qiskit 2.6.2, qiskit-qasm3-import 0.6.0.
#
# One would guess that a circuit which Qiskit exports as OpenQASM 3 and imports again has the same operations,
# so that it fits a backend after the round trip if it fitted before. An `id` comes back as U(0, 0, 0), which
# no QPU of IBM's has in its target. Source: the importer's table of gates, whose comment says that
# Qiskit's id "does not strictly have equal semantics".
#
# Seen: written as `id $0;`, read as `u` with the angles 0, 0, 0; the target has id, and no u.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check qiskit==2.6.2 qiskit-qasm3-import==0.6.0
"$folder/venv/bin/python" - <<'EOF'
from qiskit import QuantumCircuit, qasm3, transpile
from qiskit.providers.fake_provider import GenericBackendV2

backend = GenericBackendV2(1, basis_gates=["id", "rz", "sx", "x"])
circuit = QuantumCircuit(1)
circuit.id(0)
isa = transpile(circuit, backend, optimization_level=0)
[written] = [line for line in qasm3.dumps(isa).splitlines() if line.startswith("id")]
[read] = qasm3.loads(qasm3.dumps(isa)).data
print(f"written as {written!r}, read as {read.name}{tuple(read.params)}")
print("the target has", sorted(backend.target.operation_names))
assert [each.name for each in isa.data] == ["id"]
assert (read.name, list(read.params)) == ("u", [0, 0, 0])
assert not backend.target.instruction_supported(read.name, (0,))
EOF
