# SPDX-License-Identifier: Apache-2.0
"""The broker: the one place that grants leases and ends them.

It may run in any number of processes at once (each hook has its own) and may be killed at any point. What
makes that safe:

- The intent is in the journal before the service is asked, so nothing is held that is not written down.
- While a process may create a session on an account, it holds that account's lock. So whoever finds, under
  the lock, an intent without a session knows that its process died, and looks for the session at the
  service before it creates another.
- Ending is written down before the service is asked as well; it can be repeated by anybody.
"""

from __future__ import annotations

import secrets
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
    QpuSlurmError,
    ServiceError,
)
from qpu_slurm.journal.model import Hold, LeaseState
from qpu_slurm.leases.limits import no_room, refuse_blocked
from qpu_slurm.leases.release import Releaser, audit_lease, from_now
from qpu_slurm.names import JOB_TAG
from qpu_slurm.providers.base import SessionState
from qpu_slurm.providers.lifetime import later_session_ttl, session_ttl
from qpu_slurm.system import logs
from qpu_slurm.system.deadline import Deadline

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qpu_slurm.config import QpuConfig
    from qpu_slurm.journal.model import Holder, Lease, LeaseRequest, Refusal
    from qpu_slurm.providers.base import Provider, Session

_GIVE_BACK_TIMEOUT = 10.0

_TURN, _LOOK_AGAIN = 5.0, 0.2
"""Seconds to wait for a QPU that has as many jobs as may, and between two looks."""

_log = structlog.get_logger(__name__)


class _Target(NamedTuple):
    """A QPU that a request names, and the way to it."""

    qpu: QpuConfig
    provider: Provider


class Broker(Releaser):
    """Grants leases and ends them. Threads may share it.

    Args:
        config: What the admin wrote.
        journal: The record of all leases.
        connect: How a QPU's provider is had.
        settle: Seconds within which a request whose sender died may still take effect at the service.
        release_timeout: Seconds that one release may take in all.
    """

    def acquire(self, request: LeaseRequest) -> tuple[Lease, ...]:
        """Open a session on every QPU that a job asks for, or on none, and bind it to others.

        Where the job holds a session only from its first task on, the lease has none yet: see `open_session`.

        What the job holds already is returned as it is, so asking twice (a hook that is run again, two
        components of one job) opens nothing twice.

        Args:
            request: Who asks, for what.

        Returns:
            The leases, each HELD (or BOUND, to open a session later), in the request's order; then those that
            it is only bound to.

        Raises:
            RequestError: There is no such QPU, the user's key is missing, an admin has blocked the user, or
                the job was ended meanwhile.
            RefusedError: The service will not open a session for this account.
            MustWaitError: The QPU is closed, away, or in use by as many jobs as may.
            UnavailableError: The service is away, for now.
            ConfigError: The admin's key cannot be read.
            JournalError: The journal cannot be written.
        """
        try:
            leases = self._acquire(request)
        except QpuSlurmError as error:
            logs.audit(
                "lease refused",
                user_id=request.user_id,
                account=request.account,
                job_id=request.job_id,
                qpus=[*request.qpus, *request.bind],
                kind=type(error).__name__,
                why=str(error),
            )
            raise
        for lease in leases:
            audit_lease("lease granted", lease)
        return leases

    def _acquire(self, request: LeaseRequest) -> tuple[Lease, ...]:
        deadline = Deadline.after(self._config.outage.acquire_timeout)
        refuse_blocked(self._journal, request.user_id)
        targets = []
        for name in request.qpus:
            qpu = self._config.qpu(name)
            targets.append(_Target(qpu, self._connect(qpu.access(request.api_key), deadline=deadline)))
        for name in request.bind:
            self._config.qpu(name)
        # Before any lock: what cannot be ended now is in nobody's way but that of the same QPU.
        for lease in self._journal.end(
            request.job_id, "The job was started again.", run=request.run, others=True
        ):
            self._try_to_end(lease, deadline)
        turn = deadline.sooner(_TURN)
        while True:
            with self._locked([target.qpu for target in targets], deadline):
                why = no_room(self._journal, [target.qpu for target in targets], request.job_id)
                if not why:
                    return self._grant(targets, request)
            # Slurm gives nodes and licenses to the next job while the last one's epilog is at work yet.
            if turn.passed:
                raise MustWaitError(why)
            time.sleep(_LOOK_AGAIN)

    def refuse(self, refusal: Refusal) -> None:
        """Write down that a job was refused, for those who ask why.

        Raises:
            JournalError: The journal cannot be written.
        """
        self._journal.refuse(refusal)

    def open_session(self, lease_id: int) -> Lease:
        """Return a lease with a session that takes tasks: the one that it has, or one that is opened for it.

        So a job's first task gets one where nothing is held before, and a later task where the last session
        takes no more. Those who ask at the same time get the same one.

        Args:
            lease_id: The lease; its job has it already.

        Returns:
            The lease: HELD.

        Raises:
            NoLeaseError: The lease is only bound to the QPU, or over.
            RequestError: An admin has blocked the user.
            RefusedError: The service will not open a session for this account.
            UnavailableError: The service is away, for now.
            JournalError: The journal cannot be written.
        """
        deadline = Deadline.after(self._config.outage.acquire_timeout)
        lease = self._journal.lease(lease_id)
        refuse_blocked(self._journal, lease.user_id)
        qpu = self._config.qpu(lease.qpu)
        provider = self._connect(qpu.access(self._journal.api_key(lease_id)), deadline=deadline)
        with self._locked([qpu], deadline):
            return self._reopen(self._journal.lease(lease_id), _Target(qpu, provider))

    def release(self, job_id: int, reason: str, *, run: str = "", others: bool = False) -> tuple[Lease, ...]:
        """End every session that a job holds, and whatever waits in it.

        Returns in time. What cannot be ended until then stays RELEASING, for a later call.

        Args:
            job_id: The job; of a heterogeneous job, the leader.
            reason: What ended it.
            run: Which run of the job has ended; empty is all of them.
            others: Rather end what all runs hold but this one.

        Returns:
            The job's leases that were not over yet: RELEASED, or RELEASING.

        Raises:
            JournalError: The journal cannot be written; nothing was released.
        """
        deadline = Deadline.after(self._release_timeout)
        leases = self._journal.end(job_id, reason, run=run, others=others)
        return tuple(self._try_to_end(lease, deadline) for lease in leases)

    def end(self, lease_id: int, reason: str, *, unless_after: int | None = None) -> Lease:
        """End one lease.

        Returns in time. What cannot be ended until then stays RELEASING, for a later call.

        Args:
            lease_id: The lease.
            reason: What ended it.
            unless_after: Leave it as it is if something has happened to it since; see `Journal.end_one`.

        Returns:
            The lease: RELEASED or RELEASING; or as it is.
        """
        lease = self._journal.end_one(lease_id, reason, unless_after=unless_after)
        if lease.state is not LeaseState.RELEASING:
            return lease
        return self._try_to_end(lease, Deadline.after(self._release_timeout))

    def provider(self, lease: Lease, *, deadline: Deadline) -> Provider:
        """Return the way to the service that a lease's sessions are on.

        Raises:
            RequestError: There is no such QPU any more, or its user's key is gone.
            ConfigError: The admin's key cannot be read.
        """
        access = self._config.qpu(lease.qpu).access(self._journal.api_key(lease.id))
        return self._connect(access, deadline=deadline)

    def provider_of(self, qpu: QpuConfig, *, deadline: Deadline) -> Provider:
        """Return the way to a QPU's service with the admin's key, or with the user's own that is exported.

        Raises:
            RequestError: It takes a user's own key.
            ConfigError: The admin's key cannot be read.
        """
        return self._connect(qpu.access(), deadline=deadline)

    def settle(self, lease_id: int, *, deadline: Deadline) -> Lease:
        """Find what became of a session that somebody who died was opening for a job that has its lease.

        Returns:
            The lease: HELD, if there is one; BOUND otherwise; or as it is, if nothing is being opened.
        """
        qpu = self._config.qpu(self._journal.lease(lease_id).qpu)
        with self._locked([qpu], deadline):
            lease = self._journal.lease(lease_id)
            if lease.state is not LeaseState.ACQUIRING:
                return lease
            session = self._lost_session(lease, self.provider(lease, deadline=deadline))
            if session is None:
                return self._journal.give_up_session(lease_id, "Whoever was opening the session died.")
            ttl = self._ttl_of(lease, qpu)
            return self._journal.hold(lease_id, session.id, from_now(ttl), adopted=True)

    # Acquire; all of it under the locks.

    def _grant(self, targets: list[_Target], request: LeaseRequest) -> tuple[Lease, ...]:
        """Have all leases, or give back what was had."""
        taken: list[Lease] = []
        try:
            leases = (*self._take(targets, request, taken), *self._bind(request))
            # Once more: who was blocked meanwhile was to lose all that there was then, and this came later.
            refuse_blocked(self._journal, request.user_id)
        except QpuSlurmError as error:
            for lease in reversed(taken):
                self._journal.end_one(lease.id, f"The job could not have all of its QPUs. {error}")
                self._try_to_end(lease, Deadline.after(_GIVE_BACK_TIMEOUT))
            raise
        return leases

    def _take(self, targets: list[_Target], request: LeaseRequest, taken: list[Lease]) -> tuple[Lease, ...]:
        """Have a lease on every target; `taken` gets those that were not held before."""
        found = [self._find(target, request, taken) for target in targets]
        for target, lease in zip(targets, found, strict=True):
            if lease is None or lease.state is not LeaseState.HELD:
                status = target.provider.status()
                if not status.online:
                    raise MustWaitError(f"{target.qpu.name} is not available now: {status.reason}")
        return tuple(
            lease
            if lease is not None and lease.state is LeaseState.HELD
            else self._open_later(target, request, taken)
            if _hold(target.qpu, request) is Hold.TASK
            else self._open(target, request, lease, taken)
            for target, lease in zip(targets, found, strict=True)
        )

    def _find(self, target: _Target, request: LeaseRequest, taken: list[Lease]) -> Lease | None:
        """Return what the job has on a QPU: a lease that is HELD, an intent to be fulfilled, or nothing."""
        lease = self._journal.open_lease(request.job_id, target.qpu.name)
        if lease is None:
            return None
        if lease.state is LeaseState.HELD:
            if self._usable(lease, target.provider):
                # From here on nobody takes it for one that an earlier run of the job has left.
                lease = self._journal.renew(lease.id)
            else:
                lease = self._journal.finish(
                    lease.id, LeaseState.RELEASED, "The service had closed the session."
                )
        if lease.state is LeaseState.RELEASING:
            # The job's last run: what it held has to be gone before the job holds anything again.
            self._end(lease, target.provider)
            return None
        if lease.state is LeaseState.ACQUIRING:
            session = self._lost_session(lease, target.provider)
            if session is None:
                return lease
            _log.warning("session adopted", job_id=lease.job_id, qpu=lease.qpu, session_id=session.id)
            lease = self._hold(lease, session, target, self._ttl(target.qpu, request), adopted=True)
            taken.append(lease)
        return None if lease.state.final else lease

    def _open_later(self, target: _Target, request: LeaseRequest, taken: list[Lease]) -> Lease:
        """Grant a lease whose session the job's first task opens."""
        lease = self._journal.bind(qpu=target.qpu.name, hold=Hold.TASK, **_holder(request, target.qpu))
        taken.append(lease)
        return lease

    def _open(
        self, target: _Target, request: LeaseRequest, intent: Lease | None, taken: list[Lease]
    ) -> Lease:
        ttl = self._ttl(target.qpu, request)
        longest = ttl + self._config.outage.acquire_timeout
        if intent is None:
            intent = self._journal.intend(
                qpu=target.qpu.name, expires_at=from_now(longest), **_holder(request, target.qpu)
            )
        elif intent.state is LeaseState.BOUND:
            # Another component of the job is content with a session later.
            intent = self._journal.begin_session(intent.id, from_now(longest))
        try:
            lease = self._create(intent, target, ttl)
        except AnswerLostError as error:
            # There may be a session: what is left of the intent has to be looked for, and ended.
            self._journal.end_one(intent.id, str(error))
            raise
        except ServiceError as error:
            self._journal.finish(intent.id, LeaseState.FAILED, str(error))
            if error.admin_advice:
                _log.warning("no session", job_id=intent.job_id, qpu=intent.qpu, advice=error.admin_advice)
            raise
        taken.append(lease)
        return lease

    def _create(self, intent: Lease, target: _Target, ttl: int) -> Lease:
        """Open the session of an intent, and record it."""
        known = self._journal.known_sessions(intent.intended_at or intent.created_at)
        session = target.provider.open_session(ttl, known=known)
        lease = self._hold(intent, session, target, ttl)
        _log.info("session opened", job_id=lease.job_id, qpu=lease.qpu, session_id=session.id, max_ttl=ttl)
        return lease

    def _hold(
        self, intent: Lease, session: Session, target: _Target, ttl: int, *, adopted: bool = False
    ) -> Lease:
        """Record a session that is there; one that cannot be recorded is ended."""
        try:
            lease = self._journal.hold(intent.id, session.id, from_now(ttl), adopted=adopted)
        except JournalError:
            with suppress(ServiceError):
                target.provider.cancel_session(session.id)
            raise
        if lease.state is LeaseState.HELD:
            return lease
        # The job was ended while its session was being opened.
        if lease.session_id != session.id:
            self._journal.found(lease.id, session.id)
            with suppress(NotFoundError):
                target.provider.cancel_session(session.id)
        elif not lease.state.final:
            self._try_to_end(lease, Deadline.after(_GIVE_BACK_TIMEOUT))
        raise NoLeaseError(
            f"Job {lease.job_id} was ended while a session on {lease.qpu} was being opened for it."
        )

    def _bind(self, request: LeaseRequest) -> Iterator[Lease]:
        for name in request.bind:
            yield self._journal.bind(qpu=name, **_holder(request))

    @staticmethod
    def _ttl(qpu: QpuConfig, request: LeaseRequest) -> int:
        """Return the seconds that a session may live: no longer than the job can."""
        return session_ttl(qpu.max_ttl, request.seconds_left)

    @staticmethod
    def _usable(lease: Lease, provider: Provider) -> bool:
        """Ask whether a lease's session still takes tasks."""
        try:
            session = provider.session(lease.session_id or "")
        except NotFoundError:
            return False
        return session.accepting_tasks and session.state is not SessionState.CLOSED

    # A session for a lease that the job has already; under the lock.

    def _reopen(self, lease: Lease, target: _Target) -> Lease:
        if lease.state is LeaseState.HELD:
            if self._usable(lease, target.provider):
                return lease
            session_id = lease.session_id or ""
            lease = self._journal.part(lease.id, session_id, "The service had closed the session.")
        ttl = self._ttl_of(lease, target.qpu)
        if lease.state is LeaseState.ACQUIRING:
            session = self._lost_session(lease, target.provider)
            if session is not None:
                _log.warning("session adopted", job_id=lease.job_id, qpu=lease.qpu, session_id=session.id)
                return self._hold(lease, session, target, ttl, adopted=True)
        else:
            longest = ttl + self._config.outage.acquire_timeout
            lease = self._journal.begin_session(lease.id, from_now(longest))
        if lease.state is not LeaseState.ACQUIRING:
            raise NoLeaseError(f"Job {lease.job_id} has no lease on {lease.qpu} to open a session with.")
        try:
            return self._create(lease, target, ttl)
        except AnswerLostError:
            raise  # There may be a session: whoever asks next, or ends the lease, looks for it.
        except ServiceError as error:
            self._journal.give_up_session(lease.id, str(error))
            raise

    @staticmethod
    def _ttl_of(lease: Lease, qpu: QpuConfig) -> int:
        """Return the seconds that a session may live that is opened while the job runs."""
        ends_at = lease.job_ends_at
        left = None if ends_at is None else (ends_at - datetime.now(UTC)).total_seconds()
        return later_session_ttl(qpu.max_ttl, left)


def _new_tag(request: LeaseRequest) -> str:
    """Make up a lease's tag: no other lease has it, of whatever cluster that uses the same account."""
    return JOB_TAG + ":".join(filter(None, (request.cluster, str(request.job_id), secrets.token_hex(8))))


def _holder(request: LeaseRequest, qpu: QpuConfig | None = None) -> Holder:
    """Say who gets a lease; of a QPU that he may have a session on, with what ends it."""
    holder: Holder = {
        "job_id": request.job_id,
        "user_id": request.user_id,
        "run": request.run,
        "account": request.account,
        "submitted_at": request.submitted_at,
        "tag": _new_tag(request),
    }
    if qpu is not None:
        holder["job_ends_at"] = from_now(request.seconds_left)
        holder["api_key"] = request.api_key if qpu.needs_user_key else None
    return holder


def _hold(qpu: QpuConfig, request: LeaseRequest) -> Hold:
    """Tell how long a job wants to hold sessions on a QPU."""
    return request.hold or Hold(qpu.session)
