# SPDX-License-Identifier: Apache-2.0
r"""A throw-away Slurm cluster on this machine, for tests and for the demo.

    with Cluster() as cluster:
        job = cluster.submit("#!/bin/sh\nhostname\n")
        assert cluster.wait(job) == "COMPLETED"
        print(cluster.output(job))

Several slurmd, a slurmctld and a munged run out of one private directory, on free ports of the loopback
interface; Slurm as the machine may have it configured is neither read nor touched.
"""

from __future__ import annotations

from qpu_slurm_devkit.cluster._cluster import Cluster
from qpu_slurm_devkit.cluster._configuration import SEED_LAYOUT, Node, free_port

__all__ = ["SEED_LAYOUT", "Cluster", "Node", "free_port"]
