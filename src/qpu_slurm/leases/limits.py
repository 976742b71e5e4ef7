# SPDX-License-Identifier: Apache-2.0
"""Whether a job may have a QPU: how many may at once, and what and whom an admin has closed out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qpu_slurm.errors import MustWaitError, QpuFullError, RequestError, about

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from qpu_slurm.config import QpuConfig
    from qpu_slurm.journal.journal import Journal

_NAMED = 4


def refuse_if_full(journal: Journal, qpus: Iterable[QpuConfig], job_id: int) -> None:
    """Make sure that there is room for a job on all QPUs that it wants.

    Args:
        journal: The leases, and what is closed.
        qpus: What the job wants.
        job_id: The job: what it has already, it keeps.

    Raises:
        MustWaitError: The admin has closed one.
        QpuFullError: As many other jobs as may have one.
    """
    closed = journal.closings.all()
    for qpu in qpus:
        if qpu.name not in closed and qpu.limit is None:
            continue
        jobs = journal.jobs_on(qpu.name)
        if job_id in jobs:
            continue
        if qpu.name in closed:
            with about(qpu.name):
                raise MustWaitError(f"{qpu.name} is closed: {closed[qpu.name].reason.rstrip('.')}.")
        if qpu.limit is not None and len(jobs) >= qpu.limit:
            with about(qpu.name):
                raise QpuFullError(
                    f"{qpu.name} is in use by {named_jobs(jobs)}, the most that may use it at once."
                )


def refuse_blocked(journal: Journal, user_id: int) -> None:
    """Make sure that a user may have a QPU.

    Raises:
        RequestError: An admin has blocked the user.
    """
    blocked = journal.blocked_users.find(user_id)
    if blocked is not None:
        raise RequestError(f"You may not use QPUs on this cluster now: {blocked.reason.rstrip('.')}.")


def named_jobs(jobs: Collection[int]) -> str:
    """Name jobs, a few of them."""
    first = [str(job_id) for job_id in sorted(jobs)[:_NAMED]]
    more = len(jobs) - len(first)
    return f"job{'s' if len(jobs) > 1 else ''} {', '.join(first)}" + (f" and {more} more" if more else "")
