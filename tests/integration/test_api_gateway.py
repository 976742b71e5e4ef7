# SPDX-License-Identifier: Apache-2.0
"""The Python API in a job behind the gateway: the same program, and no credential of the service's."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.integration.gateway_site import Job, Site

PROGRAM = """
import asyncio

from qiskit import QuantumCircuit, generate_preset_pass_manager

from qpu_slurm import Qpu, SamplerV2, Session, execute, submit, write_sampler_input

qpu = Qpu.of_job()
circuit = QuantumCircuit(3)
circuit.x([0, 2])
circuit.measure_all()
isa = generate_preset_pass_manager(optimization_level=1, backend=qpu.backend()).run(circuit)


async def both():
    return await asyncio.gather(submit("input.json"), submit([isa], shots=6))


with Session() as session:
    print(SamplerV2().run([isa], shots=5).result()[0].data.meas.get_counts())
write_sampler_input("input.json", [isa], shots=7, format="qasm3")
for result in asyncio.run(both()):
    print(result[0].data.meas.get_counts())
print(execute("input.json", output="output.json", close_session=True))
print(session.status())
"""


BOUND = """
import qpu_slurm

print(qpu_slurm.Qpu.of_job().target.num_qubits)
try:
    qpu_slurm.Session()
except qpu_slurm.QpuSlurmError as error:
    print(error)
"""


@pytest.fixture(params=["job", "task"])
def job(site: Site, request: pytest.FixtureRequest) -> Iterator[Job]:
    """Return a job that holds its session from its start on, or from its first task on."""
    with site.job(site.acquire() if request.param == "job" else site.later()) as job:
        yield job


def test_a_program_of_all_kinds(job: Job, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", PROGRAM],
        env=job.environ | {"TMPDIR": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "{'101': 5}",
        "{'101': 7}",
        "{'101': 6}",
        "output.json",
        "Closed",
    ]
    assert done.stderr == ""
    (session,) = job.site.emulator.sessions()
    assert [task.session_id for task in job.site.emulator.tasks()] == [session.id] * 4
    assert all(f"slurm-job:{job.lease.job_id}" in task.tags for task in job.site.emulator.tasks()[1:])


def test_a_job_that_is_bound_transpiles(site: Site, tmp_path: Path) -> None:
    with site.job(site.bind()) as job:
        done = subprocess.run(
            [sys.executable, "-c", BOUND],
            env=job.environ | {"TMPDIR": str(tmp_path)},
            capture_output=True,
            text=True,
            check=True,
            timeout=240,
        )

    transpiled, refused = done.stdout.splitlines()
    assert transpiled == "156"
    assert refused.startswith("This job may transpile for ibm_fez, but holds no session to execute in.")
