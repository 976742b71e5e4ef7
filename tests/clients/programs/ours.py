# SPDX-License-Identifier: Apache-2.0
"""A program of qpu_slurm's own API, with whatever client is installed."""

from qiskit import QuantumCircuit
from qiskit.quantum_info import SparsePauliOp
from qiskit.transpiler import generate_preset_pass_manager

from qpu_slurm import EstimatorV2, Qpu, SamplerV2, Session, execute, write_sampler_input

backend = Qpu.of_job().backend()
circuit = QuantumCircuit(3)
circuit.x([0, 2])
pass_manager = generate_preset_pass_manager(optimization_level=1, backend=backend)
isa = pass_manager.run(circuit)
measured = pass_manager.run(circuit.measure_all(inplace=False))
observable = SparsePauliOp("IIZ").apply_layout(isa.layout)
with Session():
    print(round(float(EstimatorV2().run([(isa, observable)]).result()[0].data.evs)))
    print(SamplerV2().run([measured], shots=100).result()[0].data.meas.get_counts())
print(SamplerV2(mode=backend).run([measured], shots=100).result()[0].data.meas.get_counts())
write_sampler_input("input.json", [measured], shots=100)
print(execute("input.json")[0].data.meas.get_counts())
