# SPDX-License-Identifier: Apache-2.0
"""How leases end: the part of the broker that a release needs, and an acquire that has to give back."""

from __future__ import annotations

import hashlib
import time
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import structlog

from qpu_slurm import providers
from qpu_slurm.errors import (
    ConfigError,
    JournalError,
    NotFoundError,
    RequestError,
    ServiceError,
    UnavailableError,
)
from qpu_slurm.journal.model import LeaseState
from qpu_slurm.leases.accountant import account_at_release
from qpu_slurm.leases.unrecorded_sessions import opened_by_steps
from qpu_slurm.system import logs
from qpu_slurm.system.deadline import Deadline
from qpu_slurm.system.files import locked

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from qpu_slurm.config import Config, QpuConfig
    from qpu_slurm.journal.journal import Journal
    from qpu_slurm.journal.model import Lease
    from qpu_slurm.providers.base import Connect, Provider, Session

_ACCOUNT_TIMEOUT = 5.0
_LOOK_AGAIN = 0.5

_LATE = 60.0
"""Seconds after the last moment of a request in which it may yet take effect."""

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
        self._settle = settle
        self._release_timeout = release_timeout

    def _try_to_end(self, lease: Lease, deadline: Deadline) -> Lease:
        """End a lease that is RELEASING, or write down why that is not possible yet."""
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
            # While a session is intended, its opener may be at work yet: it holds the lock.
            with self._locked([qpu], deadline) if lease.intended_at else nullcontext():
                lease = self._end(self._journal.lease(lease.id), provider)
            if not qpu.through_gateway:
                # The gateway's sessions are accounted for in the background; of others, only we have the key.
                soon = deadline.sooner(_ACCOUNT_TIMEOUT)
                account_at_release(self._journal, lease, self._connect(access, deadline=soon))
        except (ServiceError, ConfigError, RequestError) as error:
            expires_at = lease.expires_at or lease.job_ends_at
            if expires_at is not None and expires_at < datetime.now(UTC):
                log.warning("session not ended, but its time to live is over", why=str(error))
                return self._journal.finish(lease.id, LeaseState.RELEASED)
            log.warning("session not ended", why=str(error))
            return self._journal.postpone(lease.id, str(error))
        log.info("session ended", state=lease.state, reason=lease.reason)
        return lease

    def _end(self, lease: Lease, provider: Provider) -> Lease:
        """End a lease that is RELEASING; under the lock if a session is intended."""
        if lease.state.final:
            return lease
        if lease.session_id is None and (session := self._lost_session(lease, provider)) is not None:
            self._journal.hold(lease.id, session.id, lease.expires_at or from_now(0), adopted=True)
        if not self._config.qpu(lease.qpu).through_gateway:
            for session_id in opened_by_steps(lease, provider, self._journal):
                self._journal.found(lease.id, session_id)
        for session_id in self._unended(lease):
            with suppress(NotFoundError):
                provider.cancel_session(session_id)
        return self._journal.finish(lease.id, LeaseState.RELEASED)

    def look_again(self, lease: Lease, *, deadline: Deadline) -> bool:
        """Look for a session that may have come after its lease was over, and end it.

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
        with self._locked([qpu], deadline):
            began = lease.intended_at or lease.created_at
            late = (datetime.now(UTC) - began).total_seconds() - self._config.outage.acquire_timeout
            session = self._first_unclaimed(began, provider)
            if session is not None:
                self._journal.found(lease.id, session.id)
                with suppress(NotFoundError):
                    provider.cancel_session(session.id)
            if session is not None or late > _LATE:
                self._journal.settle(lease.id)
        return session is not None

    def is_opening(self, lease: Lease) -> bool:
        """Tell whether somebody may be at work on a lease's session now: he holds the lock."""
        try:
            with self._locked([self._config.qpu(lease.qpu)], Deadline.after(0)):
                return False
        except UnavailableError:
            return True
        except RequestError:  # there is no such QPU any more
            return False

    def _unended(self, lease: Lease) -> list[str]:
        """List a lease's sessions in which something may wait or run, those that take no more among them.

        Of those that were accounted for, the service has told that they are over.
        """
        sessions = self._journal.history.sessions(lease.id)
        return [session.session_id for session in sessions if session.locked_seconds is None]

    def _held_nothing(self, lease: Lease, qpu: QpuConfig) -> bool:
        """Tell whether a lease never had a session, nor can have: without the gateway, steps open them."""
        intended = lease.session_id or lease.intended_at or not qpu.through_gateway
        return not intended and not self._unended(lease)

    def _lost_session(self, lease: Lease, provider: Provider) -> Session | None:
        """Look for the session of an intent whose process died, or whose answer was lost; for a while."""
        since = lease.intended_at
        if since is None:
            return None
        age = (datetime.now(UTC) - since).total_seconds()
        young = age < self._config.outage.acquire_timeout + self._settle
        settled = Deadline.after(self._settle if young else 0)
        while True:
            found = self._first_unclaimed(since, provider)
            if found is not None or settled.passed:
                return found
            time.sleep(_LOOK_AGAIN)

    def _first_unclaimed(self, since: datetime, provider: Provider) -> Session | None:
        """Look for the session of an intent.

        Ours is the first that the account got after the intent, since creations are serialised. A later
        one, if it is nobody's here, is somebody's who works on the account without Slurm: left alone.
        """
        found = provider.unclaimed_sessions(since, known=self._journal.known_sessions(since))
        return min(found, key=lambda session: session.created_at or since, default=None)

    @contextmanager
    def _locked(self, qpus: Iterable[QpuConfig], deadline: Deadline) -> Iterator[None]:
        """Hold the locks of some QPUs' accounts, taken in one order by everybody, so that nobody starves."""
        names = {self._lock(qpu): qpu.name for qpu in qpus}
        with ExitStack() as locks:
            for path in sorted(names):
                try:
                    locks.enter_context(locked(path, deadline=deadline))
                except TimeoutError:
                    raise UnavailableError(
                        f"Other jobs have been opening sessions on {names[path]} for too long."
                    ) from None
                except OSError as error:
                    raise JournalError(f"The lock {path} cannot be opened: {error.strerror}.") from None
            yield

    def _lock(self, qpu: QpuConfig) -> Path:
        """Name the lock under which sessions are created: sessions on one QPU of one account look alike."""
        account = f"{qpu.endpoint} {qpu.instance} {qpu.backend}"
        digest = hashlib.sha256(account.encode()).hexdigest()[:16]
        return self._journal.path.with_name(f"{self._journal.path.name}.{digest}.lock")


def audit_lease(event: str, lease: Lease) -> None:
    """Log for auditors what became of a lease."""
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
