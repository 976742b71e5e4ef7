# SPDX-License-Identifier: Apache-2.0
"""Sessions that a job's steps opened themselves, on clusters without a gateway.

The journal does not have them. They are found by the tag that task_runner gives all tasks of a job. No other
job has this tag, although other clusters, and users without a cluster, may share the account.

A session without a task is left alone, since nothing proves that it is ours. It never locked the QPU, so it
costs nothing, and the service closes it by itself. `qpu-slurm reap --sessions` lists it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from qpu_slurm.journal.journal import Journal
    from qpu_slurm.journal.model import Lease
    from qpu_slurm.providers.base import Provider

_log = structlog.get_logger(__name__)


def opened_by_steps(lease: Lease, provider: Provider, journal: Journal) -> list[str]:
    """List the sessions that a job's steps opened, without those in the journal.

    Args:
        lease: The job's lease.
        provider: The service, with the job's credential.
        journal: The journal.

    Raises:
        ServiceError: The service does not answer.
    """
    if not lease.tag:
        return []
    since = lease.created_at
    known = journal.known_sessions(since)
    found = [
        session_id
        for session_id in provider.sessions_of_tasks(lease.tag, since=since)
        if session_id not in known
    ]
    if found:
        _log.info(
            "stray sessions found",
            job_id=lease.job_id,
            qpu=lease.qpu,
            session_ids=found,
            why=f"the job's steps opened them: their tasks have the tag {lease.tag}",
        )
    return found
