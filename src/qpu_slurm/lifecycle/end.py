# SPDX-License-Identifier: Apache-2.0
"""The end of a job, or of a component: what is released then."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import structlog

from qpu_slurm.lifecycle.start import STARTED

if TYPE_CHECKING:
    from collections.abc import Callable

    from qpu_slurm.journal.model import Lease
    from qpu_slurm.slurm.job import HookJob, JobRecord

_REASON = "The job ended."

_log = structlog.get_logger(__name__)


class End(NamedTuple):
    """What is to be released; see `Broker.release`.

    Attributes:
        job_id: The job, or the component, that has ended.
        leader: The job; of a heterogeneous job, the leader.
        run: The run that has ended; empty is all of them.
        others: Rather all runs but this one.
    """

    job_id: int
    leader: int
    run: str
    others: bool

    @classmethod
    def of(cls, job: HookJob, leader: JobRecord | None) -> End | None:
        """Decide what the end of a job, or of a component, ends.

        Args:
            job: What Slurm tells its hooks of the job.
            leader: Slurm's record of the leader; None if Slurm does not know it any more, or does not answer.

        Returns:
            None if the job goes on, or runs again.
        """
        if leader is not None and (leader.state in STARTED or leader.user_id != job.user_id):
            # A component ended; or this hook comes late, and the number is a later run's by now.
            _log.info(
                "the job goes on, or runs again", job_id=job.job_id, leader=job.leader, state=leader.state
            )
            return None
        # Until a job's own epilogs are done, it is COMPLETING: a job that is PENDING is the next run.
        others = leader is not None and leader.state == "PENDING"
        return cls(job.job_id, job.leader, leader.run if leader else "", others)

    def release(self, release: Callable[..., tuple[Lease, ...]]) -> tuple[Lease, ...]:
        """Release it with a broker's `release`.

        Raises:
            UnavailableError: The broker is behind a gateway, which is away.
            JournalError: The journal cannot be written.
        """
        leases = release(self.leader, _REASON, run=self.run, others=self.others)
        states = {lease.qpu: lease.state for lease in leases}
        _log.info("released", job_id=self.job_id, leader=self.leader, leases=states)
        return leases
