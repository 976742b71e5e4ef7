# SPDX-License-Identifier: Apache-2.0
"""How leases end: the part of the broker for releases, and for an acquire that fails halfway."""

from __future__ import annotations

from contextlib import nullcontext, suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import structlog

from qpu_slurm import providers
from qpu_slurm.errors import (
    ConfigError,
    NotFoundError,
    RequestError,
    ServiceError,
)
from qpu_slurm.journal.model import LeaseState
from qpu_slurm.leases.accountant import account_at_release
from qpu_slurm.leases.locks import Locks
from qpu_slurm.leases.lost_sessions import LostSessions
from qpu_slurm.leases.unrecorded_sessions import opened_by_steps
from qpu_slurm.system import logs

if TYPE_CHECKING:
    from qpu_slurm.config import Config, QpuConfig
    from qpu_slurm.journal.journal import Journal
    from qpu_slurm.journal.model import Lease
    from qpu_slurm.providers.base import Connect, Provider
    from qpu_slurm.system.deadline import Deadline

_ACCOUNT_TIMEOUT = 5.0

_LATE = 60.0
"""Seconds after a request's deadline within which it may still take effect."""

_log = structlog.get_logger(__name__)


class Releaser:
    """Ends leases, one by one; see `Broker`.

    Args:
        config: What the admin wrote.
        journal: The record of all leases.
        connect: How a QPU's provider is had.
        settle: Seconds within which a request whose sender died may still take effect at the service.
        release_timeout: Seconds that one release may take in all.
    """

    def __init__(
        self,
        config: Config,
        journal: Journal,
        connect: Connect = providers.connect,
        *,
        settle: float = 5.0,
        release_timeout: float = 20.0,
    ) -> None:
        self._config = config
        self._journal = journal
        self._connect = connect
        self._release_timeout = release_timeout
        self._locks = Locks(journal.path)
        self._lost = LostSessions(config, journal, self._locks, settle=settle)

    def try_to_end(self, lease: Lease, deadline: Deadline) -> Lease:
        """End a lease that is RELEASING, or record why that is not possible yet."""
        ended = lease if lease.state.final else self._ended(lease, deadline)
        if ended.state.final:
            audit_lease("lease ended", ended)
        return ended

    def _ended(self, lease: Lease, deadline: Deadline) -> Lease:
        log = _log.bind(job_id=lease.job_id, qpu=lease.qpu, session_id=lease.session_id)
        try:
            qpu = self._config.qpu(lease.qpu)
            if self._held_nothing(lease, qpu):
                return self._journal.finish(lease.id, LeaseState.RELEASED)
            access = qpu.access(self._journal.api_key(lease.id))
            provider = self._connect(access, deadline=deadline)
            # While a session is intended, its opener may be at work yet: it holds the job's lock.
            with (
                self._locks.job(lease.job_id, [lease.qpu], deadline=deadline)
                if lease.intended_at
                else nullcontext()
            ):
                lease = self.end_sessions(self._journal.lease(lease.id), provider, deadline)
            if not qpu.through_gateway:
                # The gateway's sessions are accounted for in the background; of others, only we have the key.
                soon = deadline.sooner(_ACCOUNT_TIMEOUT)
                budgets, service = self._config.budgets, self._connect(access, deadline=soon)
                account_at_release(budgets, self._journal, lease, service)
        except (ServiceError, ConfigError, RequestError) as error:
            expires_at = lease.expires_at or lease.job_ends_at
            if expires_at is not None and expires_at < datetime.now(UTC):
                log.warning("session not ended, but its time to live is over", why=str(error))
                return self._journal.finish(lease.id, LeaseState.RELEASED)
            log.warning("session not ended", why=str(error))
            return self._journal.postpone(lease.id, str(error))
        log.info("session ended", state=lease.state, reason=lease.reason)
        return lease

    def end_sessions(self, lease: Lease, provider: Provider, deadline: Deadline) -> Lease:
        """End a lease that is RELEASING; under the job's lock if a session is intended."""
        if lease.state.final:
            return lease
        if lease.session_id is None:
            self._lost.find(lease, provider, deadline=deadline)
        if not self._config.qpu(lease.qpu).through_gateway:
            for session_id in opened_by_steps(lease, provider, self._journal):
                self._journal.found(lease.id, session_id)
        for session_id in self._unended(lease):
            with suppress(NotFoundError):
                provider.cancel_session(session_id)
        return self._journal.finish(lease.id, LeaseState.RELEASED)

    def look_again(self, lease: Lease, *, deadline: Deadline) -> bool:
        """Search for a session that may have appeared after its lease was over, and end it.

        Its opener died, and the request took longer than anybody waited. After `_LATE` none comes any more.

        Args:
            lease: One of the journal's `unsettled` ones.
            deadline: When to give up.

        Returns:
            Whether there was one.

        Raises:
            ServiceError: The service does not tell.
            ConfigError: The admin's key cannot be read.
            RequestError: There is no such QPU any more.
        """
        qpu = self._config.qpu(lease.qpu)
        provider = self._connect(qpu.access(self._journal.api_key(lease.id)), deadline=deadline)
        came = self._lost.look_once(lease, provider, deadline=deadline)
        began = lease.intended_at or lease.created_at
        late = (datetime.now(UTC) - began).total_seconds() - self._config.outage.acquire_timeout
        if came or late > _LATE:
            self._journal.settle(lease.id)
        return came

    def is_opening(self, lease: Lease) -> bool:
        """Return whether a process may be opening or ending a lease's session now: its lock is taken."""
        return not self._locks.is_free(lease.job_id, lease.qpu)

    def _unended(self, lease: Lease) -> list[str]:
        """List a lease's sessions in which tasks may wait or run, including those that take no more tasks.

        Of those that were accounted for, the service has told that they are over.
        """
        sessions = self._journal.history.sessions(lease.id)
        return [session.session_id for session in sessions if session.locked_seconds is None]

    def _held_nothing(self, lease: Lease, qpu: QpuConfig) -> bool:
        """Return whether a lease never had a session and cannot get one (with a gateway)."""
        intended = lease.session_id or lease.intended_at or not qpu.through_gateway
        return not intended and not self._unended(lease)


def audit_lease(event: str, lease: Lease) -> None:
    """Log for auditors that a lease was granted or ended."""
    logs.audit(
        event,
        user_id=lease.user_id,
        account=lease.account,
        job_id=lease.job_id,
        lease=lease.id,
        qpu=lease.qpu,
        state=lease.state,
        session_id=lease.session_id,
        why=lease.reason,
    )


def from_now(seconds: float) -> datetime:
    """Return the time in so many seconds."""
    return datetime.now(UTC) + timedelta(seconds=seconds)
