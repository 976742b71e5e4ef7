# SPDX-License-Identifier: Apache-2.0
"""Sessions that a job's steps have opened by themselves, where there is no gateway that does it for them.

They are in no journal. What tells them is the tag that task_runner writes on each of a job's tasks; one that
got no task yet is told by its time to live, which task_runner never makes longer than the job's.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from qpu_slurm.journal.model import Hold
from qpu_slurm.names import JOB_TAG

if TYPE_CHECKING:
    from qpu_slurm.journal.journal import Journal
    from qpu_slurm.journal.model import Lease
    from qpu_slurm.providers.base import Provider, Session

_SLACK = timedelta(seconds=30)
"""The prolog and the step learn of the job's end at different times, and Slurm tells it to a second."""


def opened_by_steps(lease: Lease, provider: Provider, journal: Journal) -> list[str]:
    """List what a job's steps may have opened and left, besides what the journal knows.

    Args:
        lease: The job's lease.
        provider: The service, with the job's credential.
        journal: Where sessions of others are known from.

    Raises:
        ServiceError: It cannot be told.
    """
    since = lease.created_at
    found = list(provider.sessions_of_tasks(f"{JOB_TAG}{lease.job_id}", since=since))
    if not found and lease.hold is not Hold.TASK:
        return []
    known = journal.known_sessions(since)
    found = [session_id for session_id in found if session_id not in known]
    # A step that holds a session gets another one only if that takes no more tasks: then a task is in it.
    if lease.hold is Hold.TASK or found:
        unclaimed = provider.unclaimed_sessions(since, known={*known, *found})
        found += [session.id for session in unclaimed if _ends_with(lease, session)]
    return found


def _ends_with(lease: Lease, session: Session) -> bool:
    """Tell whether a session ends by itself when the job does: somebody's who works without Slurm may not."""
    if lease.job_ends_at is None or session.ends_at is None:
        return True
    return session.ends_at <= lease.job_ends_at + _SLACK
