# SPDX-License-Identifier: Apache-2.0
"""Lost sessions: the service created one, its answer was lost, and no lease has it.

Before a session is requested, the journal has the lease, the time of the request, and how long the session is
to live (ACQUIRING, `intended_at`, `max_ttl`). If no answer comes, a session may exist that only the service
knows. It goes to a lease that lost one like it. If there are several such leases, any of them will do:

- It is on the account's QPU, in its mode, takes tasks and has none, and no lease of the journal has it.
- It has the time to live that the lease requested, and was not created before that request.

The process that searches holds the account's lock exclusively, so no other process is about to record a
session. A session that no lease has is lost then, or belongs to a person who works on the account without
Slurm. No session goes to two leases, since two processes never search at the same time.
"""

from __future__ import annotations

import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import structlog

from qpu_slurm.errors import NotFoundError
from qpu_slurm.journal.model import LeaseState
from qpu_slurm.system.deadline import Deadline

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from qpu_slurm.config import Config
    from qpu_slurm.journal.journal import Journal
    from qpu_slurm.journal.model import Lease
    from qpu_slurm.leases.locks import Locks
    from qpu_slurm.providers.base import Provider, Session

_LOOKS = 3
"""How often the search is repeated while a session may still appear."""

_CLOCK_STEP = timedelta(seconds=2)
"""The service's times are exact to a second, and so is what we know of its clock."""

_LAST = datetime.max.replace(tzinfo=UTC)

_FIRST = (LeaseState.ACQUIRING, LeaseState.RELEASING, LeaseState.RELEASED)
"""The leases that get a lost session first: those that need one, before those that would end it."""

_log = structlog.get_logger(__name__)


class LostSessions:
    """Finds lost sessions.

    Args:
        config: What the admin wrote.
        journal: The record of all leases.
        locks: The journal's.
        settle: Seconds within which a request whose sender died may still take effect at the service.
    """

    def __init__(self, config: Config, journal: Journal, locks: Locks, *, settle: float) -> None:
        self._config = config
        self._journal = journal
        self._locks = locks
        self._settle = settle

    def find(
        self, lease: Lease, provider: Provider, *, deadline: Deadline, settle: float | None = None
    ) -> Lease:
        """Search for the session of a lease, for as long as it may still appear.

        Args:
            lease: The lease. No process requests a session for it any more.
            provider: The lease's provider.
            deadline: When to give up.
            settle: Seconds within which the request can take effect. The default is for a request whose
                sender died, counted from when the last one that its sender may have sent was answered.

        Returns:
            The lease: with a session, if there was one for it.

        Raises:
            ServiceError: The service does not list its sessions.
        """
        if lease.intended_at is None:
            return lease
        if settle is None:
            age = (datetime.now(UTC) - lease.intended_at).total_seconds()
            settle = self._settle if age < self._config.outage.acquire_timeout + self._settle else 0
        settle = min(settle, deadline.left / 2)  # something is to be done with what comes of it
        settled = Deadline.after(settle)
        while True:
            lease = self._look(lease, provider, deadline)
            if lease.session_id or settled.passed or deadline.passed:
                return lease
            # The lock is free meanwhile.
            time.sleep(min(settle / _LOOKS, settled.left))

    def look_once(self, lease: Lease, provider: Provider, *, deadline: Deadline) -> bool:
        """Search for the session of a lease that is over, and end it; return whether there was one.

        Raises:
            ServiceError: The service does not list its sessions.
        """
        known = len(self._journal.history.sessions(lease.id))
        self._look(lease, provider, deadline)
        return len(self._journal.history.sessions(lease.id)) > known

    def _look(self, lease: Lease, provider: Provider, deadline: Deadline) -> Lease:
        """Give each lost session that is like a lease's to a lease."""
        with self._locks.looking(self._config.qpu(lease.qpu), deadline=deadline):
            leases = self._like(lease)
            if all(other.id != lease.id for other in leases):
                return self._journal.lease(lease.id)  # another process has found it
            since = min(other.intended_at for other in leases if other.intended_at is not None)
            found = provider.unclaimed_sessions(since, known=self._journal.known_sessions(since))
            for session, taker in pair(found, leases):
                self._give(session, taker, provider)
            return self._journal.lease(lease.id)

    def _like(self, lease: Lease) -> list[Lease]:
        """Read the leases that lost a session like this one's: on its account, and with its key."""
        account = self._locks.account(self._config.qpu(lease.qpu))
        key = self._key(lease)
        return [
            other
            for other in self._journal.unanswered()
            if (qpu := self._config.qpus.get(other.qpu)) is not None
            and self._locks.account(qpu) == account
            and self._key(other) == key
        ]

    def _key(self, lease: Lease) -> str | None:
        """Return the user's own key, if the session is opened with that."""
        key = self._journal.api_key(lease.id)
        return None if key is None else key.reveal()

    def _give(self, session: Session, lease: Lease, provider: Provider) -> None:
        if lease.state is LeaseState.RELEASED:
            # In this order: it is looked for again, if this process dies in between.
            with suppress(NotFoundError):
                provider.cancel_session(session.id)
            self._journal.found(lease.id, session.id)
        else:
            self._journal.hold(lease.id, session.id, _end(session, lease), adopted=True)
        _log.warning(
            "session adopted", job_id=lease.job_id, qpu=lease.qpu, state=lease.state, session_id=session.id
        )


def pair(sessions: Iterable[Session], leases: Iterable[Lease]) -> Iterator[tuple[Session, Lease]]:
    """Give lost sessions to leases that lost one like it, each to one, and each lease one at most.

    The oldest sessions are given first, so that a later one of a person who works on the account without
    Slurm is left alone. A later session fits every lease that an earlier one like it fits, so no choice made
    here keeps a later one from its lease.

    Args:
        sessions: What no lease has.
        leases: Those that asked and have no answer.
    """
    waiting = sorted(leases, key=lambda lease: (_FIRST.index(lease.state), lease.intended_at, lease.id))
    for session in sorted(sessions, key=lambda session: session.created_at or _LAST):
        taker = next((lease for lease in waiting if _fits(session, lease)), None)
        if taker is not None:
            waiting.remove(taker)
            yield session, taker


def _fits(session: Session, lease: Lease) -> bool:
    """Tell whether a session is like the one that a lease asked for."""
    if None not in {session.max_ttl, lease.max_ttl} and session.max_ttl != lease.max_ttl:
        return False
    asked, came = lease.intended_at, session.created_at
    return asked is not None and (came is None or came >= asked - _CLOCK_STEP)


def _end(session: Session, lease: Lease) -> datetime:
    """Return when a session ends by itself, at the latest."""
    if session.created_at is not None and session.max_ttl is not None:
        return session.created_at + timedelta(seconds=session.max_ttl)
    return lease.expires_at or datetime.now(UTC)
