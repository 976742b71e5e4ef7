#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# iqm-client 36.0.0 with qiskit 2.1.2: a circuit whose classical bits belong to no register cannot be executed.
#
# Qiskit's circuits may have bits outside any register: QuantumCircuit([Qubit()], [Clbit()]). The transpiler keeps
# them so, and Aer executes the circuit. One would guess that IQM's backends do as well, or that they refuse it by
# name. What is seen: transpile() for the backend succeeds, and run() ends with "IndexError: list index out of
# range", which names neither circuit nor bit. The measurement's key, by which results are put together again, is
# made from the first register of the bit. Adding a register over the same bits makes the circuit run.
#
# Source: iqm/qiskit_iqm/qiskit_to_iqm.py, MeasurementKey.from_clbit, in iqm-client 36.0.0 on PyPI. The fake backend
# serializes as the one for a real server does.
#
# Needs python3 with venv, and pip. Exits 0 if iqm-client still does so.
set -eu
directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT INT TERM
python3 -m venv "$directory/venv"
"$directory/venv/bin/pip" install --quiet --disable-pip-version-check \
    'iqm-client[qiskit]==36.0.0' 'qiskit==2.1.2' 'qiskit-aer==0.17.2'
timeout 300 "$directory/venv/bin/python" -W ignore - <<'PYTHON'
from importlib.metadata import version

from iqm.qiskit_iqm import IQMFakeApollo
from qiskit import QuantumCircuit, transpile
from qiskit.circuit import ClassicalRegister, Clbit, Qubit
from qiskit_aer import AerSimulator


def flipped() -> QuantumCircuit:
    circuit = QuantumCircuit([Qubit()], [Clbit()])
    circuit.x(0)
    circuit.measure(0, 0)
    return circuit


backend = IQMFakeApollo()
by_aer = AerSimulator().run(flipped(), shots=3).result().get_counts()
transpiled = transpile(flipped(), backend, seed_transpiler=1)
try:
    backend.run(transpiled, shots=3)
except IndexError as error:
    seen = f"{type(error).__name__}: {error}"
else:
    seen = "it runs"
named = flipped()
named.add_register(ClassicalRegister(bits=named.clbits, name="c"))
ran = sum(backend.run(transpile(named, backend), shots=3).result().get_counts().values())

print(f"iqm-client {version('iqm-client')}, qiskit {version('qiskit')}")
print(f"Aer: {by_aer}; transpiled for IQM: {dict(transpiled.count_ops())}; run: {seen}")
print(f"with a register over the same bit: {ran} shots")
assert by_aer == {"1": 3}
assert transpiled.cregs == []
assert seen == "IndexError: list index out of range"
assert ran == 3
PYTHON
