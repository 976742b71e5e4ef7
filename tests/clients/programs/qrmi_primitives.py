# SPDX-License-Identifier: Apache-2.0
"""A program of QRMI's primitives, as upstream's documentation writes it."""

from qiskit import QuantumCircuit
from qiskit.transpiler import generate_preset_pass_manager
from qrmi.primitives import QRMIService
from qrmi.primitives.ibm import SamplerV2, get_backend

resource = QRMIService().resources()[0]
circuit = QuantumCircuit(3)
circuit.x([0, 2])
circuit.measure_all()
isa = generate_preset_pass_manager(optimization_level=1, backend=get_backend(resource)).run(circuit)
print(SamplerV2(resource).run([isa], shots=100).result()[0].data.meas.get_counts())
