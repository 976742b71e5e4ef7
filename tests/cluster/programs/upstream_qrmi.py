# SPDX-License-Identifier: Apache-2.0
"""A program as upstream's documentation writes it: qrmi.primitives, with the job's environment alone."""

from qiskit import QuantumCircuit, generate_preset_pass_manager
from qrmi.primitives import QRMIService
from qrmi.primitives.ibm import SamplerV2, get_backend

resources = QRMIService().resources()
backend = get_backend(resources[0])

circuit = QuantumCircuit(3)
circuit.x(0)
circuit.x(2)
circuit.measure_all()
isa = generate_preset_pass_manager(optimization_level=1, backend=backend).run(circuit)
job = SamplerV2(resources[0]).run([isa], shots=100)
print("qrmi", job.result()[0].data.meas.get_counts())
