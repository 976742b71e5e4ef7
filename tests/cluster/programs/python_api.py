# SPDX-License-Identifier: Apache-2.0
"""A program of qpu_slurm's own Python API, in two steps of a job: `python_api.py write`, then `… run`."""

import asyncio
import sys

from qiskit import QuantumCircuit, generate_preset_pass_manager

from qpu_slurm import Qpu, SamplerV2, execute, submit, write_sampler_input

backend = Qpu.of_job().backend()
circuit = QuantumCircuit(3)
circuit.x(0)
circuit.x(2)
circuit.measure_all()
isa = generate_preset_pass_manager(optimization_level=1, backend=backend).run(circuit)


async def both() -> None:
    for result in await asyncio.gather(submit("python_api.json"), submit([isa], shots=20)):
        print("submit", result[0].data.meas.get_counts())


if sys.argv[1] == "write":
    write_sampler_input("python_api.json", [isa], shots=10)
else:
    print("sampler", SamplerV2().run([isa], shots=100).result()[0].data.meas.get_counts())
    asyncio.run(both())
    print("execute", execute("python_api.json", shots=30, close_session=True)[0].data.meas.get_counts())
