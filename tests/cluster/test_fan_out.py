# SPDX-License-Identifier: Apache-2.0
"""srun starts task_runner once for each task of a step, each of which would be paid for."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.cluster.matrix.stage import INPUT

if TYPE_CHECKING:
    from qpu_slurm_devkit.lab import Lab

HEAD = "#!/bin/sh\n#SBATCH --qpu=ibm_fez\n"


@pytest.fixture(autouse=True)
def _input(lab: Lab) -> None:

    path = lab.cluster.home() / "input.json"
    path.write_text(json.dumps(INPUT))
    path.chmod(0o644)


@pytest.mark.parametrize("option", ["--ntasks=2", "--exclusive"])
def test_one_output_for_all_is_refused(lab: Lab, option: str) -> None:
    cpus = "-c1" if option == "--exclusive" else ""
    job = lab.submit(f"{HEAD}#SBATCH {option}\nexec srun {cpus} task_runner ibm_fez input.json fan.json\n")
    assert lab.wait(job) == "FAILED"
    assert "srun --ntasks=1 task_runner" in lab.cluster.output(job)
    assert lab.emulator.tasks() == []


def test_each_task_has_an_output_of_its_own(lab: Lab) -> None:
    job = lab.submit(f"{HEAD}#SBATCH --ntasks=2\nexec srun task_runner ibm_fez input.json fan-%t.json\n")
    assert lab.wait(job) == "COMPLETED", lab.cluster.output(job)
    assert len(lab.emulator.tasks()) == 2
    assert {path.name for path in lab.cluster.home().glob("fan-*.json")} == {"fan-0.json", "fan-1.json"}


def test_one_task_of_several_runs_it(lab: Lab) -> None:
    job = lab.submit(
        f"{HEAD}#SBATCH --ntasks=2\n"
        "exec srun sh -c "
        "'[ $SLURM_PROCID = 1 ] || exec task_runner --each-task ibm_fez input.json one.json'\n"
    )
    assert lab.wait(job) == "COMPLETED", lab.cluster.output(job)
    assert len(lab.emulator.tasks()) == 1


def test_a_script_that_a_step_has_submitted_is_no_step(lab: Lab) -> None:
    """sbatch hands on the variables of the step that it is called in."""
    script = lab.cluster.home() / "inner.sh"
    script.write_text(f"{HEAD}echo $SLURM_STEP_NUM_TASKS\nexec task_runner ibm_fez input.json inner.json\n")
    job = lab.submit(
        "#!/bin/sh\n#SBATCH --ntasks=2\n"
        "exec srun sh -c '[ $SLURM_PROCID = 1 ] || sbatch --wait --ntasks=2 --output=inner.out inner.sh'\n"
    )
    assert lab.wait(job) == "COMPLETED", lab.cluster.output(job)
    assert (lab.cluster.home() / "inner.out").read_text().startswith("2\n")
    assert len(lab.emulator.tasks()) == 1
