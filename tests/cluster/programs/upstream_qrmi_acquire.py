# SPDX-License-Identifier: Apache-2.0
"""A program as upstream's documentation writes it for QRMI itself: it acquires, executes, and releases."""

from qiskit import QuantumCircuit, generate_preset_pass_manager
from qrmi.primitives import QRMIService
from qrmi.primitives.ibm import SamplerV2, get_backend

resource = QRMIService().resources()[0]
token = resource.acquire()
try:
    circuit = QuantumCircuit(3)
    circuit.x(0)
    circuit.x(2)
    circuit.measure_all()
    isa = generate_preset_pass_manager(optimization_level=1, backend=get_backend(resource)).run(circuit)
    job = SamplerV2(resource).run([isa], shots=100)
    print("qrmi", job.result()[0].data.meas.get_counts())
finally:
    resource.release(token)
