# SPDX-License-Identifier: Apache-2.0
"""Jobs on a node that has no slurm.conf: its slurmd asks slurmctld for it (configless Slurm)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from qpu_slurm_devkit.cluster import Node
from qpu_slurm_devkit.lab import Lab
from tests.cluster.conftest import CHECKOUT, OUTAGE, check_nothing_left

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="a node with a /run of its own takes root")

NODES = (Node("c1", "normal"), Node("c2", "configless", configless=True))


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab(CHECKOUT, nodes=NODES, tables=OUTAGE) as lab:
        yield lab
        check_nothing_left(lab)


def test_a_job_has_its_session(lab: Lab) -> None:
    job = lab.submit(
        "#!/bin/sh\n#SBATCH --qpu=ibm_fez --partition=configless\n"
        "echo $ibm_fez_QRMI_JOB_ACQUISITION_TOKEN\n"
        f"[ ! -e {lab.cluster.conf} ] || echo it has a slurm.conf\n"
        "exec srun sh -c 'echo $ibm_fez_QRMI_JOB_ACQUISITION_TOKEN'\n"
    )
    assert lab.wait(job) == "COMPLETED"
    [session] = lab.emulator.sessions()
    assert lab.cluster.output(job) == f"{session.id}\n{session.id}\n"
