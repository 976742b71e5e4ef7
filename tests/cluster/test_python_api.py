# SPDX-License-Identifier: Apache-2.0
"""The Python API in a job of a real Slurm."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from qpu_slurm_devkit.lab import Lab


@pytest.mark.credentials("gateway", "user")
def test_a_job_of_python_programs(lab: Lab) -> None:
    job = lab.submit(
        "#!/bin/sh\n#SBATCH --qpu=ibm_fez\n"
        "srun python -W ignore python_api.py write\n"
        "srun python -W ignore python_api.py run\n"
    )

    state, output = lab.wait(job, timeout=240), lab.cluster.output(job)

    assert state == "COMPLETED", output
    # What srun says while a node is busy with the last step's end is no program's.
    assert [line for line in output.splitlines() if not line.startswith("srun: ")] == [
        "sampler {'101': 100}",
        "submit {'101': 10}",
        "submit {'101': 20}",
        "execute {'101': 30}",
    ]
    (session,) = lab.emulator.sessions()
    tasks = lab.emulator.tasks()
    assert [task.session_id for task in tasks] == [session.id] * 4
    assert all(task.tags[0].startswith(f"slurm-job:lab:{job}:") for task in tasks[1:])
    # The second step knows from the first what the QPU is like.
    asked = [request.path for request in lab.emulator.requests()]
    assert asked.count("/backends/ibm_fez/configuration") == 1
