# SPDX-License-Identifier: Apache-2.0
"""A first program as in IBM's documentation: transpile for the least busy QPU, execute, read the result."""

from qiskit import QuantumCircuit
from qiskit.quantum_info import SparsePauliOp
from qiskit.transpiler import generate_preset_pass_manager
from qiskit_ibm_runtime import EstimatorV2 as Estimator
from qiskit_ibm_runtime import QiskitRuntimeService
from qiskit_ibm_runtime import SamplerV2 as Sampler

service = QiskitRuntimeService()
backend = service.least_busy(simulator=False, operational=True)

bell = QuantumCircuit(2)
bell.h(0)
bell.cx(0, 1)
observables = [SparsePauliOp(label) for label in ("ZZ", "XX", "ZI")]

pass_manager = generate_preset_pass_manager(optimization_level=1, backend=backend)
isa = pass_manager.run(bell)

estimator = Estimator(mode=backend)
estimator.options.resilience_level = 1
estimator.options.default_shots = 5000
job = estimator.run([(isa, [observable.apply_layout(isa.layout) for observable in observables])])
print("estimator", [round(float(value)) for value in job.result()[0].data.evs])

job = Sampler(mode=backend).run([pass_manager.run(bell.measure_all(inplace=False))], shots=1000)
print("sampler", sorted(job.result()[0].data.meas.get_counts()))
