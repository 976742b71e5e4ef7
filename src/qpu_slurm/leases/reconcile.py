# SPDX-License-Identifier: Apache-2.0
"""What the journal says of sessions, compared with what the service has.

The service closes a session by itself: when its time to live is over (a job's limit may have been extended
since), when no task came for long, when it fails. Its lease then has none, and a later task opens another.
And who was opening a session may have died: the session is there, or it is not.
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
        config: What the admin wrote.
        broker: Knows the way to each service.
        journal: The broker's.
    """

    def __init__(self, config: Config, broker: Broker, journal: Journal) -> None:
        self._config = config
        self._broker = broker
        self._journal = journal

    def part(self, leases: Iterable[Lease]) -> Iterator[Lease]:
        """Take from leases the sessions that the service has closed; one listing for each QPU.

        Where a session is on its user's own account, which is another one for each lease, the service is
        asked only when the session's time to live is over.

        Yields:
            The leases that have no session any more, as they are now.
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
        """Do it for leases on one QPU."""
        first = leases[0]
        try:
            provider = self._broker.provider(first, deadline=Deadline.after(_ANSWER_SECONDS))
            closed = provider.closed_sessions(min(lease.created_at for lease in leases))
        except (ServiceError, ConfigError, RequestError) as error:
            # Nothing is lost by it: who needs a session finds out by himself.
            _log.info("the service does not say which sessions are closed", qpu=first.qpu, why=str(error))
            return
        for lease in leases:
            if lease.session_id in closed:
                now = self._journal.part(lease.id, lease.session_id or "", CLOSED)
                if now.state is LeaseState.BOUND:
                    yield now

    def settle(self, leases: Iterable[Lease], *, longest: float, deadline: Deadline) -> Iterator[Lease]:
        """Find what became of sessions of running jobs whose opening is not over by the journal.

        Their opener died; or he did open them, and the record was lost with the power.

        Args:
            leases: The leases.
            longest: Seconds that an opening may take.
            deadline: When to leave the rest to the next look.

        Yields:
            The leases, as they are now: HELD, with the session that was found; or BOUND.
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
        """Find the sessions that came when their leases were over already, and end them.

        Args:
            deadline: When to leave the rest to the next look.

        Yields:
            Those leases.
        """
        leases = self._journal.unsettled()
        # In another order each time, as the reaper has it.
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
                    self._journal.settle(lease.id)  # it would be over by itself
