# SPDX-License-Identifier: Apache-2.0
"""How a session is opened for a lease, while others are opened at the same time.

The lease is in the journal before the service is asked. While the service is asked, and until the session is
recorded, the account's lock is shared; see `locks`. If the answer is lost, the session is looked for before
the service is asked again; see `lost_sessions`.
"""

from __future__ import annotations

import time
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

import structlog

from qpu_slurm.errors import (
    AnswerLostError,
    JournalError,
    MustWaitError,
    NoLeaseError,
    NotFoundError,
    ServiceError,
    ThrottledError,
    UnavailableError,
)
from qpu_slurm.journal.model import LeaseState
from qpu_slurm.leases.budgets import Budgets
from qpu_slurm.leases.release import from_now
from qpu_slurm.system.backoff import backoff
from qpu_slurm.system.deadline import Deadline

if TYPE_CHECKING:
    from collections.abc import Callable

    from qpu_slurm.config import Config, QpuConfig
    from qpu_slurm.journal.journal import Journal
    from qpu_slurm.journal.model import Lease
    from qpu_slurm.leases.locks import Locks
    from qpu_slurm.leases.lost_sessions import LostSessions
    from qpu_slurm.providers.base import Provider, Session

_SETTLE = 1.5
"""Seconds within which a request can take effect whose answer was lost, while its sender still runs."""

_LONGEST_ANSWER = 10.0
"""A session is requested only if so many seconds are left, or a quarter of the whole time."""

_ANSWER = 1.0
"""Seconds that have to be left besides for a second request, in order to search for its session, too."""

_CURRENT, _ENOUGH = 15.0, 90.0
"""Seconds for which a QPU's status counts as known; and while another process is requesting it already."""

_log = structlog.get_logger(__name__)


class Target(NamedTuple):
    """A QPU that a request names, and the way to it."""

    qpu: QpuConfig
    provider: Provider


class Opener:
    """Opens sessions. Threads and processes may do so at once.

    Args:
        config: What the admin wrote.
        journal: The record of all leases.
        locks: The journal's.
        lost: Finds sessions whose answer was lost.
        settle: Seconds within which a request takes effect whose answer was lost, at most.
    """

    def __init__(
        self, config: Config, journal: Journal, locks: Locks, lost: LostSessions, *, settle: float
    ) -> None:
        self.config = config
        self.journal = journal
        self.locks = locks
        self.lost = lost
        self.settle = min(settle, _SETTLE)
        self.budgets = Budgets(config, journal)

    def refuse_if_away(self, target: Target) -> None:
        """Make sure that a QPU takes tasks. The service is asked only if no recent answer is known.

        Raises:
            MustWaitError: It does not.
            ServiceError: The service does not answer, or refuses.
        """
        name = target.qpu.name
        seen = self.journal.seen_qpus.find(name)
        if seen is None or seen.age > _CURRENT:
            with self.locks.status(target.qpu) as others_ask:
                # A process that asked before has recorded it.
                seen = self.journal.seen_qpus.find(name)
                if seen is None or seen.age > (_ENOUGH if others_ask else _CURRENT):
                    asked_at = datetime.now(UTC)
                    status = target.provider.status()
                    seen = self.journal.seen_qpus.note(
                        name, asked_at=asked_at, online=status.online, reason=status.reason
                    )
        if not seen.online:
            raise MustWaitError(f"{name} is not available now: {seen.reason}")

    def open(
        self,
        target: Target,
        begin: Callable[[], Lease],
        max_ttl: int,
        *,
        deadline: Deadline,
        wanted: Callable[[], bool] = lambda: True,
    ) -> Lease:
        """Open a session for a lease, and record it.

        Args:
            target: The QPU.
            begin: Writes the intent, just before the service is asked; returns the lease, ACQUIRING.
            max_ttl: The seconds that the session may live.
            deadline: When to give up.
            wanted: Tells whether the session is still wanted: nothing is asked for if it is not.

        Returns:
            The lease: HELD.

        Raises:
            NoLeaseError: The job was ended meanwhile, or the session is not wanted any more.
            QpuFullError: As many jobs as may have the QPU.
            BudgetSpentError: A budget is used up.
            BudgetReservedError: Running jobs have reserved what is left of one.
            MustWaitError: So many sessions are being opened that it was not this one's turn.
            ServiceError: The service refused, or was away. A lease that its job has already is BOUND then,
                another one FAILED. If an answer was lost, the session has to be looked for.
            JournalError: The journal cannot be written. There is no session.
        """
        opening = _Opening(self, target, begin, max_ttl, deadline)
        try:
            while True:
                if (lease := opening.ask(wanted)) is not None:
                    return lease
        except AnswerLostError as error:
            lease = opening.lease
            if lease is not None and not lease.granted:
                self.journal.end_one(lease.id, str(error))
            elif lease is not None and opening.looked:
                self.journal.give_up_session(lease.id, str(error), may_come=True)
            raise
        except (ServiceError, NoLeaseError) as error:
            self._give_up(opening.lease, error)
            raise

    def begin(self, lease: Lease, max_ttl: int) -> Lease:
        """Record the intent for a lease that its job has already, or that a process has left unfinished."""
        terms = self.budgets.terms_of(lease)
        if lease.state is LeaseState.ACQUIRING:
            return self.journal.ask_again(lease.id, self.ends_by(max_ttl), max_ttl, terms)
        return self.journal.begin_session(lease.id, self.ends_by(max_ttl), max_ttl, terms)

    def turn_by(self, deadline: Deadline) -> Deadline:
        """Return when a session has to be requested at the latest, so that its answer comes in time."""
        longest = min(_LONGEST_ANSWER, self.config.outage.acquire_timeout / 4)
        return Deadline(deadline.moment - longest)

    def ends_by(self, max_ttl: int) -> datetime:
        """Return when a session that is requested now ends by itself, at the latest."""
        return from_now(max_ttl + self.config.outage.acquire_timeout)

    def _give_up(self, lease: Lease | None, error: ServiceError | NoLeaseError) -> None:
        """Record that no session was opened, and none can appear."""
        if lease is None:
            return
        if lease.granted:
            self.journal.give_up_session(lease.id, str(error))
        elif self.journal.lease(lease.id).state is LeaseState.ACQUIRING:
            self.journal.finish(lease.id, LeaseState.FAILED, str(error))
        if isinstance(error, ServiceError) and error.admin_advice:
            _log.warning("no session", job_id=lease.job_id, qpu=lease.qpu, advice=error.admin_advice)


class _Opening:
    """The opening of one session.

    Attributes:
        lease: The lease, once it is written down.
        looked: Whether it was looked in vain for the session whose answer was lost last.
    """

    def __init__(
        self, opener: Opener, target: Target, begin: Callable[[], Lease], max_ttl: int, deadline: Deadline
    ) -> None:
        self.lease: Lease | None = None
        self.looked = False
        self._opener = opener
        self._qpu, self._provider = target
        self._begin = begin
        self._max_ttl = max_ttl
        self._deadline = deadline
        self._answer_lost = False
        self._lost_answers = 0
        self._throttled: ThrottledError | None = None

    def ask(self, wanted: Callable[[], bool]) -> Lease | None:
        """Request the session once; return the lease with it, or None if it has to be requested again."""
        opener, asked_at = self._opener, time.monotonic()
        turn = opener.turn_by(self._deadline)
        if turn.passed:
            raise self._throttled or UnavailableError(
                f"There was no time left to open a session on {self._qpu.name}."
            )
        try:
            with opener.locks.asking(self._qpu, deadline=turn):
                if not wanted():
                    raise NoLeaseError(f"The session on {self._qpu.name} is not wanted any more.")
                self.lease = lease = self._intend()
                if lease.state is not LeaseState.ACQUIRING:
                    return self._found(lease)
                # What budgets leave; or what was asked for before, with an answer that was lost.
                self._max_ttl = lease.max_ttl or self._max_ttl
                asked_at = time.monotonic()
                session = self._provider.open_session(self._max_ttl, look_up=False)
                return self._record(lease, session)
        except ThrottledError as error:
            _log.warning(
                "asked too much at once", qpu=self._qpu.name, seconds=error.retry_after, why=str(error)
            )
            opener.locks.slow_down(self._qpu, asked_at=asked_at, seconds=error.retry_after)
            self._throttled = error
            return None
        except AnswerLostError as error:
            if self.lease is None:
                raise
            return self._look(self.lease, error)

    def _intend(self) -> Lease:
        """Record that a session is about to be requested. The lease may have got one meanwhile."""
        if self.lease is None:
            return self._begin()
        if not self._answer_lost:
            return self._opener.journal.lease(self.lease.id)
        self._answer_lost = False
        return self._opener.begin(self._opener.journal.lease(self.lease.id), self._max_ttl)

    def _look(self, lease: Lease, lost: AnswerLostError) -> Lease | None:
        """Search for a lost session."""
        opener = self._opener
        self.looked = False
        try:
            self.lease = lease = opener.lost.find(
                lease, self._provider, deadline=self._deadline, settle=opener.settle
            )
        except ServiceError:
            raise lost from None
        if lease.state is not LeaseState.ACQUIRING:
            return self._found(lease)
        self.looked = True
        pause = backoff(self._lost_answers)
        soon = opener.turn_by(self._deadline).allows(pause)
        if not soon or not self._deadline.allows(pause + opener.settle + _ANSWER):
            raise lost
        _log.warning("asked for again", job_id=lease.job_id, qpu=lease.qpu, seconds=pause, why=str(lost))
        self._answer_lost = True
        self._lost_answers += 1
        time.sleep(pause)
        return None

    def _found(self, lease: Lease) -> Lease:
        """Return a lease that has its session; it may have been found for the lease."""
        if lease.state is LeaseState.HELD:
            # From here on nobody takes it for one that an earlier run of the job has left.
            lease = self._opener.journal.renew(lease.id)
        if lease.state is LeaseState.HELD:
            return lease
        raise NoLeaseError(
            f"Job {lease.job_id} was ended while a session on {lease.qpu} was being opened for it."
        )

    def _record(self, intent: Lease, session: Session) -> Lease:
        """Record a session. If that fails, end it."""
        journal = self._opener.journal
        try:
            lease = journal.hold(intent.id, session.id, from_now(self._max_ttl))
        except JournalError:
            with suppress(ServiceError):
                self._provider.cancel_session(session.id)
            raise
        if lease.state is not LeaseState.HELD and lease.session_id != session.id:
            journal.found(lease.id, session.id)
            with suppress(NotFoundError):
                self._provider.cancel_session(session.id)
        if lease.state is not LeaseState.HELD:
            return self._found(lease)
        ttl = self._max_ttl
        _log.info("session opened", job_id=lease.job_id, qpu=lease.qpu, session_id=session.id, max_ttl=ttl)
        return lease
