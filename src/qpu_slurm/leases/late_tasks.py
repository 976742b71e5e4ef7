# SPDX-License-Identifier: Apache-2.0
"""Tasks that reach a service without sessions after their gate was closed.

A session that is closed takes no task. A gate is closed in the journal alone, and a submission may be under
way to the service just then. Such a task comes after all others of its gate were cancelled, accounted for and
deleted. So the reaper looks at what the services keep: a task of a gate that the journal knows as ended is
cancelled, added to the gate's account, and deleted.

Gates that the journal does not know are left alone: another cluster may use the same system.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from qpu_slurm.errors import ConfigError, RequestError, ServiceError
from qpu_slurm.leases.accountant import NotYetError, account
from qpu_slurm.providers.gates import Gates

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qpu_slurm.config import Config
    from qpu_slurm.journal.history import SessionUse
    from qpu_slurm.journal.journal import Journal
    from qpu_slurm.journal.model import Lease
    from qpu_slurm.leases.broker import Broker
    from qpu_slurm.providers.base import Provider
    from qpu_slurm.system.deadline import Deadline

WHY = "Its task came after it was over."

_ANSWER_SECONDS = 10.0

_log = structlog.get_logger(__name__)


def end_late_tasks(config: Config, broker: Broker, journal: Journal, deadline: Deadline) -> Iterator[Lease]:
    """End the tasks that came after their gate was closed.

    Args:
        config: The configuration.
        broker: Returns the provider of a QPU.
        journal: The broker's journal.
        deadline: When to leave the rest to the next run.

    Yields:
        The leases of such tasks, once their account is right again.
    """
    for qpu in config.qpus.values():
        if qpu.has_sessions or deadline.passed:
            continue
        try:
            provider = broker.provider_of(qpu, deadline=deadline.sooner(_ANSWER_SECONDS))
            gates = provider.kept_gates() if isinstance(provider, Gates) else set()
            for gate in sorted(gates):
                use = journal.history.session(gate)
                if use is not None and use.ended_at is not None:
                    yield from _end(config, journal, use, provider)
        except (ServiceError, ConfigError, RequestError) as error:
            _log.info("the service does not say which tasks it keeps", qpu=qpu.name, why=str(error))


def _end(config: Config, journal: Journal, use: SessionUse, provider: Provider) -> Iterator[Lease]:
    """End what is left of one gate; the accountant does the rest unless it has been there already."""
    provider.cancel_session(use.session_id)
    if use.locked_seconds is None and not use.unknown:
        return
    lease = journal.lease(use.lease_id)
    try:
        account(config.budgets, journal, lease, use.session_id, provider)
    except NotYetError:  # it is about to end: the next run finds it
        return
    yield lease
