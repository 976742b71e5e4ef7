# SPDX-License-Identifier: Apache-2.0
"""A program that opens a session for itself, as it does anywhere."""

from qiskit import QuantumCircuit
from qiskit.transpiler import generate_preset_pass_manager
from qiskit_ibm_runtime import QiskitRuntimeService, Session
from qiskit_ibm_runtime import SamplerV2 as Sampler

backend = QiskitRuntimeService().backend("ibm_fez")
circuit = QuantumCircuit(3)
circuit.x([0, 2])
circuit.measure_all()
isa = generate_preset_pass_manager(optimization_level=1, backend=backend).run(circuit)
with Session(backend=backend) as session:
    print(Sampler(mode=session).run([isa], shots=100).result()[0].data.meas.get_counts())
