# SPDX-License-Identifier: Apache-2.0
"""A job's batch script, and what it asks of sbatch.

Only sbatch reads `#SBATCH` lines. A job that is submitted in another way, such as through slurmrestd, runs
without what they ask for.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from qpu_slurm.slurm._commands import Commands

if TYPE_CHECKING:
    from qpu_slurm.config import SlurmConfig

_OPTION = re.compile(r"#SBATCH\s+(?:.*\s)?--qpu[=\s]\s*[\"']?([\w,-]+)")


def batch_script(config: SlurmConfig, job_id: int) -> str:
    """Ask Slurm for a job's batch script; only its user, root and SlurmUser may.

    Args:
        config: Where Slurm's commands are.
        job_id: The job.

    Raises:
        SlurmError: Slurm did not answer, or the job has no script.
    """
    script = Commands(config).run("scontrol", "write", "batch_script", str(job_id), "-")
    return script.decode(errors="replace")


def asked_of_sbatch(script: str) -> str | None:
    """Return the value of `--qpu` in a script's #SBATCH lines; None without one.

    sbatch reads these lines up to the first command.
    """
    for line in script.splitlines():
        if found := _OPTION.match(line):
            return found[1]
        if line.strip() and not line.startswith("#"):
            return None
    return None
