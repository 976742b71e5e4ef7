# SPDX-License-Identifier: Apache-2.0
"""A program of IBM's own client, in the job's session, with the job's environment alone."""

import os

from qiskit import QuantumCircuit, generate_preset_pass_manager
from qiskit_ibm_runtime import QiskitRuntimeService, SamplerV2, Session

service = QiskitRuntimeService()
backend = service.backend("ibm_fez")
session = Session.from_id(os.environ[f"{backend.name}_QRMI_JOB_ACQUISITION_TOKEN"], service=service)

circuit = QuantumCircuit(3)
circuit.x(0)
circuit.x(2)
circuit.measure_all()
isa = generate_preset_pass_manager(optimization_level=1, backend=backend).run(circuit)
job = SamplerV2(mode=session).run([isa], shots=100)
print("runtime", job.result()[0].data.meas.get_counts(), job.session_id == session.session_id)
