# SPDX-License-Identifier: Apache-2.0
"""A process that asks the broker for something, as a hook does; tests run and kill it.

    python broker_process.py CONFIG acquire JOB QPU[,QPU]     python broker_process.py CONFIG release JOB

It prints the leases as JSON, or an error's class and sentence. The user's key is in QPU_SLURM_API_KEY.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import msgspec

from qpu_slurm import config
from qpu_slurm.errors import QpuSlurmError
from qpu_slurm.journal.journal import Journal
from qpu_slurm.journal.model import LeaseRequest
from qpu_slurm.leases.broker import Broker
from qpu_slurm.system import logs
from qpu_slurm.system.secret import Secret


def main(path: str, action: str, job: str, qpus: str = "") -> int:
    settings = config.load(Path(path))
    logs.configure("debug", settings.log)
    try:
        with Journal(settings.journal) as journal:
            broker = Broker(settings, journal, settle=2)
            if action == "release":
                leases = broker.release(int(job), "The job ended.")
            else:
                request = LeaseRequest(
                    job_id=int(job),
                    user_id=os.getuid(),
                    qpus=tuple(qpus.split(",")),
                    seconds_left=900,
                    api_key=Secret(os.environ["QPU_SLURM_API_KEY"]),
                )
                leases = broker.acquire(request)
    except QpuSlurmError as error:
        sys.stdout.write(f"{type(error).__name__}: {error}\n")
        return 1
    sys.stdout.write(msgspec.json.encode(leases).decode() + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
