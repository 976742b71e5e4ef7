# SPDX-License-Identifier: Apache-2.0
"""What `qpu-slurm job-env` prints: the variables of a job's steps, for the SPANK plugin.

It runs as root on the compute node when a step starts. Which sessions the job holds stands in its
AdminComment, how the QPUs are reached in the node's own configuration; nothing that a user can write is
trusted. The plugin reads lines `NAME=value`, or one line `error: sentence`, which ends the job.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from qpu_slurm.environment import JobQpu, to_environ
from qpu_slurm.errors import QpuSlurmError, SlurmError, UserMistake
from qpu_slurm.handover import Handover
from qpu_slurm.secret import Secret
from qpu_slurm.slurm.query import connect

if TYPE_CHECKING:
    from collections.abc import Mapping

    from qpu_slurm.config import Config
    from qpu_slurm.slurm.job import JobRecord
    from qpu_slurm.slurm.query import Query

USER_KEY = "QPU_SLURM_API_KEY"
"""The variable in which the plugin hands the user's own credential over."""


def job_env(config: Config, job_id: int, environ: Mapping[str, str], *, query: Query | None = None) -> str:
    """Return the lines to print.

    Args:
        config: What the admin wrote, on this node.
        job_id: The job; of a heterogeneous job, the component.
        environ: Holds the user's own credential, where the plugin published one.
        query: How Slurm is asked; by default what `config` says.

    Returns:
        Nothing for a job that has no QPU.
    """
    try:
        record = (query or connect(config.slurm)).job(job_id)
        if record is None:
            raise SlurmError(f"Slurm does not know job {job_id}.")
        variables = _variables(config, record, environ)
    except QpuSlurmError as error:
        return error_line(error)
    return "".join(f"{name}={value}\n" for name, value in variables.items())


def error_line(error: QpuSlurmError) -> str:
    """Return the line that ends a job with a sentence."""
    return f"error: {' '.join(str(error).split())}\n"


def _variables(config: Config, record: JobRecord, environ: Mapping[str, str]) -> dict[str, str]:
    handover = Handover.from_comment(record.admin_comment)
    if handover.error:
        raise UserMistake(handover.error)
    user_key = environ.get(USER_KEY)
    qpus = []
    for name, session_id in handover.sessions.items():
        qpu = config.qpu(name)
        job_qpu = JobQpu.bind(
            qpu, api_key=qpu.key(Secret(user_key) if user_key else None), session_id=session_id
        )
        # A session that the job's own programs may create lives no longer than the job, either.
        if record.time_left is not None:
            max_ttl = max(1, min(qpu.max_ttl, record.time_left))
            job_qpu = msgspec.structs.replace(job_qpu, max_ttl=max_ttl)
        qpus.append(job_qpu)
    return to_environ(qpus)
