# SPDX-License-Identifier: Apache-2.0
"""The history of a job: from the journal, and from Slurm as long as Slurm remembers the job."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import structlog

from qpu_slurm.errors import NotFoundError, SlurmError
from qpu_slurm.journal.history import LeaseHistory, Step
from qpu_slurm.slurm.query import connect
from qpu_slurm.slurm.reasons import why_it_waits
from qpu_slurm.slurm.times import JobTimes, job_times

if TYPE_CHECKING:
    from qpu_slurm.config import SlurmConfig
    from qpu_slurm.journal.journal import Journal

_log = structlog.get_logger(__name__)


class JobHistory(msgspec.Struct, frozen=True, kw_only=True):
    """A job's newest run.

    Attributes:
        job_id: The job; of a heterogeneous job, the leader.
        slurm: Slurm's part; None if Slurm has forgotten the job.
        leases: The job's leases with their usage; none for a job without a QPU.
        steps: Its steps.
        waits: Why it waits in the queue; empty if it does not wait.
    """

    job_id: int
    slurm: JobTimes | None
    leases: tuple[LeaseHistory, ...]
    steps: tuple[Step, ...]
    waits: str = ""

    @property
    def users(self) -> frozenset[int]:
        """The job's user; several if the number was used again for another user's job."""
        of_slurm = {self.slurm.user_id} if self.slurm else set()
        return frozenset(of_slurm | {past.lease.user_id for past in self.leases})


def read(journal: Journal, slurm: SlurmConfig, job_id: int) -> JobHistory:
    """Read the history of a job.

    Args:
        journal: The journal.
        slurm: How Slurm is run. If Slurm does not answer, its part is missing.
        job_id: The job; of a heterogeneous job, the leader.

    Raises:
        NotFoundError: Neither the journal nor Slurm knows the job.
        JournalError: The journal cannot be read.
    """
    try:
        times = job_times(slurm, job_id)
    except SlurmError as error:
        _log.warning("Slurm was asked in vain", job_id=job_id, why=str(error))
        times = None
    leases = journal.history.leases(job_id)
    chosen = journal.with_choices(past.lease for past in leases)
    leases = [msgspec.structs.replace(past, lease=lease) for past, lease in zip(leases, chosen, strict=True)]
    if times is None and not leases:
        raise NotFoundError(f"Neither the journal nor Slurm knows job {job_id}.")
    steps = journal.history.steps(job_id, leases[-1].lease.run) if leases else []
    waits = _why_it_waits(slurm, job_id) if times is not None and times.started_at is None else ""
    return JobHistory(job_id=job_id, slurm=times, leases=tuple(leases), steps=tuple(steps), waits=waits)


def _why_it_waits(slurm: SlurmConfig, job_id: int) -> str:
    try:
        job = connect(slurm).job(job_id)
    except SlurmError:
        return ""
    return "" if job is None else why_it_waits(job)
