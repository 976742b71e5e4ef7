# SPDX-License-Identifier: Apache-2.0
"""Sessions that a job's steps have opened by themselves, where there is no gateway that does it for them.

They are in no journal. The tag tells them that task_runner writes on each of a job's tasks, and that nobody
else has: other clusters, and people without one, may use the same account.

A session that got no task is left alone. Nothing proves whose it is. It never locked the QPU, so nothing is
paid for it, and the service closes it by itself. `qpu-slurm reap --sessions` lists it.
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
    """List what a job's steps have opened and left, besides what the journal knows.

    Args:
        lease: The job's lease.
        provider: The service, with the job's credential.
        journal: Where sessions of others are known from.

    Raises:
        ServiceError: It cannot be told.
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
