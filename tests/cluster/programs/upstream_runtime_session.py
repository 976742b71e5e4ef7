# SPDX-License-Identifier: Apache-2.0
"""A program of IBM's own client that opens its session itself, as it does anywhere."""

from qiskit import QuantumCircuit, generate_preset_pass_manager
from qiskit_ibm_runtime import QiskitRuntimeService, SamplerV2, Session

backend = QiskitRuntimeService().backend("ibm_fez")
circuit = QuantumCircuit(3)
circuit.x(0)
circuit.x(2)
circuit.measure_all()
isa = generate_preset_pass_manager(optimization_level=1, backend=backend).run(circuit)
with Session(backend) as session:
    job = SamplerV2(mode=session).run([isa], shots=100)
    print("runtime", job.result()[0].data.meas.get_counts(), session.session_id)
