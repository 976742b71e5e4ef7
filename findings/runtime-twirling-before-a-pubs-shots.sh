#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Packages: qiskit 2.6.2, qiskit-ibm-runtime 0.51.0 (and ibm-quantum-schemas as it requires it).
#
# One would guess that a pub which asks for 100 shots gets 100, or a few more where they do not divide: the
# options of the first Sampler, and IBM's published schema of its inputs, say of num_randomizations and
# shots_per_randomization that the shots of a pub are always obeyed, and that their product only comes before
# default_shots. The executor-based Sampler beside it, which is to take its place, prepares the product.
# Source: qiskit_ibm_runtime/options/twirling_options.py, ibm_quantum_schemas/sampler/version_0_1/twirling_options.py,
# qiskit_ibm_runtime/executor/calculate_twirling_shots.py.
#
# Seen: a pub with 100 shots, 7 randomizations of 11 shots: 77 shots are prepared.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check qiskit==2.6.2 qiskit-ibm-runtime==0.51.0
"$folder/venv/bin/python" - <<'EOF'
import inspect

from ibm_quantum_schemas.sampler.version_0_1 import twirling_options
from qiskit import QuantumCircuit
from qiskit_ibm_runtime.executor_sampler.prepare import prepare
from qiskit_ibm_runtime.options_models.sampler import SamplerOptions

circuit = QuantumCircuit(2, 2)
circuit.cz(0, 1)
circuit.measure([0, 1], [0, 1])
twirling = {"enable_gates": True, "num_randomizations": 7, "shots_per_randomization": 11}
program, _ = prepare([(circuit, None, 100)], SamplerOptions(twirling=twirling))
shots = program.shots * program.items[0].size()
promise = " ".join(inspect.getsource(twirling_options).split())
print(f"the pub asks for 100 shots; prepared: {program.items[0].size()} x {program.shots} = {shots}")
assert "therefore is always obeyed" in promise
assert shots == 77
EOF
