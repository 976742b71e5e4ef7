# SPDX-License-Identifier: Apache-2.0
"""Map and optimize: transpile a circuit for the job's QPU with iqm-client, write task_runner's input."""

import json
from math import pi
from pathlib import Path

from iqm.qiskit_iqm import IQMProvider
from qiskit import QuantumCircuit, transpile

QUBITS = 5
SHOTS = 10_000

# sin²(π/3) = 3/4: three quarters of the shots read 11111, the others 00000, but for the QPU's noise.
circuit = QuantumCircuit(QUBITS)
circuit.ry(2 * pi / 3, 0)
for qubit in range(QUBITS - 1):
    circuit.cx(qubit, qubit + 1)
circuit.measure_all()

backend = IQMProvider().get_backend()
isa = transpile(circuit, backend, optimization_level=3)
request = backend.create_circuit_job_definition(isa, shots=SHOTS)
task = {
    "iqmjson": json.loads(request.model_dump_json()),
    "job_type": "circuit",
    "use_timeslot": False,
    "tag": None,
}
Path("iqm_input_garnet.json").write_text(json.dumps(task))
