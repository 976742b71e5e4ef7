# SPDX-License-Identifier: Apache-2.0
"""Map and optimize: make a circuit, transpile it for the job's QPU, write task_runner's input."""

from math import pi

from qiskit import QuantumCircuit, generate_preset_pass_manager
from qiskit.circuit import Parameter

from qpu_slurm import Qpu, write_sampler_input

QUBITS = 5
SHOTS = 10_000


def chain(qubits: int) -> QuantumCircuit:
    """Rotate one qubit and copy it along a chain: all are 1 with probability sin²(θ/2), else all are 0."""
    circuit = QuantumCircuit(qubits)
    circuit.ry(Parameter("θ"), 0)
    for qubit in range(qubits - 1):
        circuit.cx(qubit, qubit + 1)
    circuit.measure_all()
    return circuit


qpu = Qpu.of_job()
optimize = generate_preset_pass_manager(optimization_level=1, backend=qpu.backend())
# sin²(π/3) = 3/4: three quarters of the shots read 11111, the others 00000.
pub = (optimize.run(chain(QUBITS)), [2 * pi / 3])
write_sampler_input(f"sampler_input_{qpu.name}.json", [pub], shots=SHOTS)
