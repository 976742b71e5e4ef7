# SPDX-License-Identifier: Apache-2.0
"""A circuit transpiled and run as in IQM's user guide; the metrics choose the qubits."""

from iqm.qiskit_iqm import IQMProvider
from qiskit import QuantumCircuit, transpile

backend = IQMProvider().get_backend(use_metrics=True)
circuit = QuantumCircuit(3)
circuit.x(0)
circuit.x(2)
circuit.measure_all()
job = backend.run(transpile(circuit, backend, optimization_level=3), shots=200)
counts = job.result().get_counts()
print(max(counts, key=counts.get), sum(counts.values()), job.status().name)
