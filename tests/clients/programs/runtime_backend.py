# SPDX-License-Identifier: Apache-2.0
"""IBM's getting started, in short: the least busy QPU, an estimator and a sampler on it, and no session."""

from qiskit import QuantumCircuit
from qiskit.quantum_info import SparsePauliOp
from qiskit.transpiler import generate_preset_pass_manager
from qiskit_ibm_runtime import EstimatorV2 as Estimator
from qiskit_ibm_runtime import QiskitRuntimeService
from qiskit_ibm_runtime import SamplerV2 as Sampler

service = QiskitRuntimeService()
backend = service.least_busy(simulator=False, operational=True)

circuit = QuantumCircuit(3)
circuit.x([0, 2])
pass_manager = generate_preset_pass_manager(optimization_level=1, backend=backend)
isa = pass_manager.run(circuit)
observable = SparsePauliOp("IIZ").apply_layout(isa.layout)
estimator = Estimator(mode=backend)
estimator.options.default_precision = 0.02
print(round(float(estimator.run([(isa, observable)]).result()[0].data.evs)))

measured = pass_manager.run(circuit.measure_all(inplace=False))
print(Sampler(mode=backend).run([measured], shots=100).result()[0].data.meas.get_counts())
