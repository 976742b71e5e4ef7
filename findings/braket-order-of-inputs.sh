#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Packages: amazon-braket-sdk 1.127.5.
#
# One would guess that exporting one circuit twice gives one text. The `input` lines of its parameters come in
# another order from run to run, since they are written in the order of a set of names: whoever binds values
# by the order of declaration gets other angles in another run. Source: Circuit.parameters is a set.
#
# Seen: several orders in ten runs that differ only in PYTHONHASHSEED, which Python chooses at random by default.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check amazon-braket-sdk==1.127.5
for seed in 0 1 2 3 4 5 6 7 8 9; do
    PYTHONHASHSEED=$seed "$folder/venv/bin/python" - <<'EOF'
from braket.circuits import Circuit, FreeParameter

circuit = Circuit()
for name in ("alpha", "beta", "gamma"):
    circuit.rx(0, FreeParameter(name))
print(*[line.split()[-1] for line in circuit.to_ir("OPENQASM").source.splitlines() if line.startswith("input")])
EOF
done >"$folder/orders"
sort "$folder/orders" | uniq -c
[ "$(sort -u "$folder/orders" | wc -l)" -gt 1 ]
