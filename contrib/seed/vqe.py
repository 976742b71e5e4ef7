# SPDX-License-Identifier: Apache-2.0
"""A variational loop: the ground state of the hydrogen molecule, task by task.

It is a plain program for Qiskit Runtime. Nothing in it knows of Slurm: in a job, it uses the job's session.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from qiskit import QuantumCircuit
from qiskit.circuit import Parameter
from qiskit.quantum_info import SparsePauliOp
from qiskit.transpiler import generate_preset_pass_manager
from qiskit_ibm_runtime import EstimatorV2 as Estimator
from qiskit_ibm_runtime import QiskitRuntimeService, Session
from scipy.optimize import minimize

if TYPE_CHECKING:
    import numpy as np

TASKS = 10

# H2 at 0.735 Å on two qubits, in Hartree, without the repulsion of the nuclei.
MOLECULE = SparsePauliOp.from_list(
    [("II", -1.052373), ("ZI", -0.397937), ("IZ", 0.397937), ("ZZ", -0.011280), ("XX", 0.180931)]
)
REPULSION = 0.719969


def main() -> None:
    """Find the angle with the lowest energy."""
    theta = Parameter("θ")
    ansatz = QuantumCircuit(2)
    ansatz.x(0)
    ansatz.ry(theta, 1)
    ansatz.cx(1, 0)

    backend = QiskitRuntimeService().backend("ibm_fez")
    circuit = generate_preset_pass_manager(optimization_level=3, backend=backend).run(ansatz)
    observable = MOLECULE.apply_layout(circuit.layout)

    with Session(backend=backend) as session:
        estimator = Estimator(mode=session)

        def energy(angles: np.ndarray) -> float:
            result = estimator.run([(circuit, observable, angles)]).result()
            return float(result[0].data.evs) + REPULSION

        found = minimize(energy, x0=[0.0], method="COBYLA", options={"maxiter": TASKS, "rhobeg": 0.3})
    print(f"{found.nfev} tasks: {found.fun:.2f} Hartree at θ = {found.x[0]:.2f}")


if __name__ == "__main__":
    main()
