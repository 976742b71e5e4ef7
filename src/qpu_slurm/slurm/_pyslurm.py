# SPDX-License-Identifier: Apache-2.0
"""Asking Slurm with pyslurm, which calls Slurm's own library: no process to start."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from qpu_slurm.errors import SlurmError
from qpu_slurm.slurm.job import JobRecord, parse_gres, parse_licenses

if TYPE_CHECKING:
    from types import ModuleType

    from qpu_slurm.slurm._command_line import CommandLine

_INVALID_JOB_ID = 2017  # ESLURM_INVALID_JOB_ID in slurm/slurm_errno.h

_UNREADABLE = (IndexError, ValueError)
"""How pyslurm fails at a text that it did not expect, such as `--gres=qpu`, a gres without a count."""


class Pyslurm:
    """What Slurm knows, as its library tells it.

    How long it waits for an answer is slurm.conf's MessageTimeout.

    Args:
        pyslurm: The module.
        command_line: Whom to ask about a job that pyslurm cannot read.
    """

    def __init__(self, pyslurm: ModuleType, command_line: CommandLine) -> None:
        self._pyslurm = pyslurm
        self._command_line = command_line

    def job(self, job_id: int) -> JobRecord | None:
        """Look up a job, or a component of a heterogeneous job; see `Query`."""
        try:
            found = self._pyslurm.Job.load(job_id)
        except self._pyslurm.RPCError as error:
            if error.errno == _INVALID_JOB_ID:
                return None
            raise SlurmError(f"pyslurm: {error}") from error
        if found.id != job_id:
            # The first of an array's tasks, or of a heterogeneous job's components, and not the one meant.
            return next((job for job in self.jobs() if job.job_id == job_id), None)
        try:
            return record(found)
        except _UNREADABLE:
            return self._command_line.job(job_id)

    def components(self, job_id: int) -> list[JobRecord]:
        """Look up a heterogeneous job; see `Query`."""
        job = self.job(job_id)
        if job is None or job.het_job_id is None:
            return [] if job is None else [job]
        found = (other for other in self.jobs() if other.leader == job.leader)
        return sorted(found, key=lambda other: other.job_id)

    def jobs(self) -> list[JobRecord]:
        """List all jobs; see `Query`."""
        try:
            return [record(job) for job in self._pyslurm.Jobs.load().values()]
        except self._pyslurm.RPCError as error:
            raise SlurmError(f"pyslurm: {error}") from error
        except _UNREADABLE:
            return self._command_line.jobs()


def record(job: Any) -> JobRecord:  # noqa: ANN401 - pyslurm.Job, which has no type information
    """Read a `pyslurm.Job`."""
    gres = ",".join(
        f"{name if name.startswith('gres/') else f'gres/{name}'}:{count}"
        for name, count in job.gres_per_node.items()
    )
    return JobRecord(
        job_id=job.id,
        het_job_id=job.heterogeneous_id or None,
        user_id=job.user_id,
        state=job.state,
        batch=job.is_batch_job,
        gres=parse_gres(gres),
        licenses=parse_licenses(",".join(job.licenses)),
        # Minutes, and None without a limit.
        time_left=None if job.time_limit is None else max(0, job.time_limit * 60 - job.run_time),
        submitted_at=datetime.fromtimestamp(job.submit_time, UTC),
        account=job.account or "",
        reason=job.state_reason or "None",
        admin_comment=job.admin_comment or "",
    )
