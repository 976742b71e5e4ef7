# SPDX-License-Identifier: Apache-2.0
"""What a batch script asks of sbatch, for jobs that sbatch did not submit."""

from __future__ import annotations

import pytest

from qpu_slurm.slurm.script import asked_of_sbatch

ASKS = {
    "with =": "#SBATCH --qpu=ibm_fez\n",
    "with a blank": "#SBATCH --qpu ibm_fez\n",
    "quoted": '#SBATCH --qpu="ibm_fez"\n',
    "behind others": "#SBATCH --time=5 -n 4   --qpu=ibm_fez --qpu-session=task\n",
    "behind comments": "# what it is\n\n#SBATCH --time=5\n#SBATCH\t--qpu=ibm_fez\n",
    "a component of a heterogeneous job": "#SBATCH --time=5\n#SBATCH hetjob\n#SBATCH --qpu=ibm_fez\n",
}
ASKS_NOT = {
    "nothing": "true\n",
    "behind a command": "true\n#SBATCH --qpu=ibm_fez\n",
    "commented": "##SBATCH --qpu=ibm_fez\n#SBATCHES --qpu=ibm_fez\n",
    "another option": "#SBATCH --qpus=4 --my-qpu=ibm_fez\n#SBATCH --comment=--qpu\n",
    "another command": "srun --qpu=ibm_fez true\n",
}


@pytest.mark.parametrize("lines", ASKS.values(), ids=ASKS)
def test_a_script_asks_for_a_qpu(lines: str) -> None:
    assert asked_of_sbatch(f"#!/bin/sh\n{lines}echo\n") == "ibm_fez"


@pytest.mark.parametrize("lines", ASKS_NOT.values(), ids=ASKS_NOT)
def test_a_script_does_not(lines: str) -> None:
    assert asked_of_sbatch(f"#!/bin/sh\n{lines}echo\n") is None


def test_several_qpus_are_named_as_they_were_written() -> None:
    assert asked_of_sbatch("#!/bin/sh\n#SBATCH --qpu=ibm_fez,ibm_torino\n") == "ibm_fez,ibm_torino"
