# SPDX-License-Identifier: Apache-2.0
"""The first task of upstream's tutorial on splitting a job, at today's names: write task_runner's input."""

import json
from pathlib import Path

from qiskit import QuantumCircuit, qasm3
from qiskit.transpiler import generate_preset_pass_manager
from qiskit_ibm_runtime import RuntimeEncoder
from qrmi.primitives import QRMIService
from qrmi.primitives.ibm import get_backend

resource = QRMIService().resources()[0]
backend = get_backend(resource)
circuit = QuantumCircuit(3)
circuit.x([0, 2])
circuit.measure_all()
isa = generate_preset_pass_manager(optimization_level=1, backend=backend).run(circuit)
parameters = {"pubs": [[qasm3.dumps(isa)]], "version": 2, "support_qiskit": True, "shots": 100}
with Path(f"published_input_{resource.resource_id()}.json").open("w") as file:
    json.dump({"program_id": "sampler", "parameters": parameters}, file, cls=RuntimeEncoder)
