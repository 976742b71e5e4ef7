# SPDX-License-Identifier: Apache-2.0
"""Compares the journal's sessions with those of the service.

The service closes sessions by itself: when their time to live is over (a job's limit may have been extended
since), when no task came for long, when they fail. The lease then has no session, and a later task opens
another. A process that was opening a session may also have died. Then the session may or may not exist.
"""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import structlog

from qpu_slurm.errors import ConfigError, RequestError, ServiceError
from qpu_slurm.journal.model import LeaseState
from qpu_slurm.system.deadline import Deadline

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from qpu_slurm.config import Config
    from qpu_slurm.journal.journal import Journal
    from qpu_slurm.journal.model import Lease
    from qpu_slurm.leases.broker import Broker

_ANSWER_SECONDS = 10.0
_SLACK = timedelta(minutes=1)

CLOSED = "The service had closed the session."
LATE = "Its session came after it was over."

_log = structlog.get_logger(__name__)


class Sessions:
    """Compares the leases of running jobs with the service.

    Args:
        config: The configuration.
        broker: Returns the provider of each lease.
        journal: The broker's journal.
    """

    def __init__(self, config: Config, broker: Broker, journal: Journal) -> None:
        self._config = config
        self._broker = broker
        self._journal = journal

    def part(self, leases: Iterable[Lease]) -> Iterator[Lease]:
        """Part leases from the sessions that the service has closed, with one listing for each QPU.

        A session that a user's own key opened is on another account for each lease. For these, the service is
        asked only after the session's time to live.

        Yields:
            The leases that lost their session, in their new state.
        """
        held: dict[str, list[Lease]] = {}
        for lease in leases:
            qpu = self._config.qpus.get(lease.qpu)
            if lease.state is not LeaseState.HELD or qpu is None:
                continue
            if not qpu.needs_user_key:
                held.setdefault(lease.qpu, []).append(lease)
            elif lease.expires_at is not None and lease.expires_at + _SLACK < datetime.now(UTC):
                yield from self._part([lease])
        for group in held.values():
            yield from self._part(group)

    def _part(self, leases: list[Lease]) -> Iterator[Lease]:
        """Do this for leases on one QPU."""
        first = leases[0]
        try:
            provider = self._broker.provider(first, deadline=Deadline.after(_ANSWER_SECONDS))
            closed = provider.closed_sessions(min(lease.created_at for lease in leases))
        except (ServiceError, ConfigError, RequestError) as error:
            # Nothing is lost: a task that needs a session will notice.
            _log.info("the service does not say which sessions are closed", qpu=first.qpu, why=str(error))
            return
        for lease in leases:
            if lease.session_id in closed:
                now = self._journal.part(lease.id, lease.session_id or "", CLOSED)
                if now.state is LeaseState.BOUND:
                    yield now

    def settle(self, leases: Iterable[Lease], *, longest: float, deadline: Deadline) -> Iterator[Lease]:
        """Settle the leases of running jobs whose session is still being opened, by the journal.

        The process that opened it died, or the record of the session was lost in a power failure.

        Args:
            leases: The leases.
            longest: Seconds that an opening may take.
            deadline: When to leave the rest to the next run.

        Yields:
            The settled leases: HELD with the session that was found, or BOUND.
        """
        for lease in leases:
            if lease.state is not LeaseState.ACQUIRING or lease.intended_at is None:
                continue
            if deadline.passed:
                return
            if (datetime.now(UTC) - lease.intended_at).total_seconds() <= longest:
                continue
            try:
                yield self._broker.settle(lease.id, deadline=Deadline.after(_ANSWER_SECONDS))
            except (ServiceError, ConfigError, RequestError) as error:
                _log.warning("an opening is not settled yet", job_id=lease.job_id, why=str(error))

    def late(self, deadline: Deadline) -> Iterator[Lease]:
        """End the sessions that appeared after their lease had ended.

        Args:
            deadline: When to leave the rest to the next run.

        Yields:
            Their leases.
        """
        leases = self._journal.unsettled()
        # In another order each time, as in the reaper.
        random.shuffle(leases)
        for lease in leases:
            if deadline.passed:
                return
            try:
                if self._broker.look_again(lease, deadline=Deadline.after(_ANSWER_SECONDS)):
                    yield lease
            except (ServiceError, ConfigError, RequestError) as error:
                _log.warning("a session may have come late", job_id=lease.job_id, why=str(error))
                if lease.expires_at is not None and lease.expires_at < datetime.now(UTC):
                    self._journal.settle(lease.id)  # such a session has ended by itself
