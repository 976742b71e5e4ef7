# SPDX-License-Identifier: Apache-2.0
"""The broker: the one place that grants leases and ends them.

It may run in any number of processes at once (each hook has its own) and may be killed at any point. What
makes that safe:

- The intent is in the journal before the service is asked, so nothing is held that is not written down.
- A job's lock is held while the job is given a session. So a process that finds, under this lock, an intent
  without a session knows that the other process died, or has lost the answer; see `lost_sessions`.
- Ending is written down before the service is asked as well; any process can repeat it.

    choosing       chooses QPUs for jobs that do not name them
    granting       gives one job all of its QPUs, or none
    opening        opens one session
    lost_sessions  finds those whose answer was lost
    locks          keep these from getting in each other's way
    limits         say whether a job may have a QPU
    release        ends leases
"""

from __future__ import annotations

import time
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

from qpu_slurm import providers
from qpu_slurm.errors import (
    BudgetReservedError,
    BudgetSpentError,
    NoLeaseError,
    QpuFullError,
    QpuSlurmError,
    UnavailableError,
)
from qpu_slurm.journal.model import Hold, LeaseState
from qpu_slurm.leases.access import places_of, refuse_denied
from qpu_slurm.leases.choosing import Chooser, Choosing, has_wishes
from qpu_slurm.leases.granting import Granting, is_usable
from qpu_slurm.leases.limits import refuse_blocked, refuse_if_full
from qpu_slurm.leases.opening import Opener, Target
from qpu_slurm.leases.release import Releaser, audit_lease
from qpu_slurm.providers.lifetime import later_session_ttl
from qpu_slurm.qpu_option import ANY
from qpu_slurm.slurm.query import connect
from qpu_slurm.system import logs
from qpu_slurm.system.deadline import Deadline

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from qpu_slurm.config import Config, QpuConfig
    from qpu_slurm.config.access import Place
    from qpu_slurm.journal.journal import Journal
    from qpu_slurm.journal.model import Lease, LeaseRequest, Refusal
    from qpu_slurm.providers.base import Connect, Provider

_TURN, _LOOK_AGAIN = 5.0, 0.2
"""Seconds to wait for a QPU that has as many jobs as may, and between two looks."""

_ACCOUNT_TIMEOUT = 5.0
"""Seconds to wait for the accountant, which asks what a session has used whose job wants another one."""


class Broker(Releaser):
    """Grants leases and ends them. Threads may share it.

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
        super().__init__(config, journal, connect, settle=settle, release_timeout=release_timeout)
        self._opener = Opener(config, journal, self._locks, self._lost, settle=settle)
        self._chooser = Chooser(config, journal, connect, self._opener.budgets)

    def accounts(self, request: LeaseRequest) -> dict[str, QpuConfig]:
        """Name the accounts on which a job wants sessions, each with a QPU on it.

        Raises:
            RequestError: There is no such QPU.
        """
        qpus = [self._config.qpu(name) for name in request.qpus]
        return {self._locks.account(qpu): qpu for qpu in qpus}

    def turn_by(self, deadline: Deadline) -> Deadline:
        """Return when a session has to be asked for at the latest, so that its answer comes in time."""
        return self._opener.turn_by(deadline)

    def prepare(self, request: LeaseRequest, *, deadline: Deadline) -> None:
        """Do all that a job may have to wait for before it is its turn to open sessions.

        What other runs of the job held is ended. If as many jobs as may have a QPU, one of them may just be
        ending: Slurm gives nodes and licenses to the next job while the last one's epilog is at work yet. A
        moment later it is known, too, what the last one has left of a budget.

        Args:
            request: Who asks, for what.
            deadline: When to give up.

        Raises:
            RequestError: There is no such QPU, an admin has blocked the user, or the job may not use a QPU.
            BudgetSpentError: A budget is used up.
            MustWaitError: A QPU is closed, or in use by as many jobs as may; or running jobs have reserved
                what is left of a budget.
            UnavailableError: Whether the job may use a QPU cannot be found out now.
            JournalError: The journal cannot be written.
        """
        with _audited(request):
            self._prepare(request, deadline)

    def _prepare(self, request: LeaseRequest, deadline: Deadline) -> None:
        refuse_blocked(self._journal, request.user_id)
        qpus = [self._config.qpu(name) for name in request.qpus]
        bound = [self._config.qpu(name) for name in request.bind]
        refuse_denied([*qpus, *bound], request.user_id, request.places, deadline)
        # Before any lock: what cannot be ended now is in nobody's way but that of the same QPU.
        for lease in self._journal.end(
            request.job_id, "The job was started again.", run=request.run, others=True
        ):
            self.try_to_end(lease, deadline)
        turn = deadline.sooner(_TURN)
        while True:
            try:
                self._opener.budgets.refuse(request)
                return refuse_if_full(self._journal, qpus, request.job_id)
            except (QpuFullError, BudgetReservedError):
                # Where there is a choice, another QPU is better than a wait.
                if turn.passed or request.chosen:
                    raise
            time.sleep(_LOOK_AGAIN)

    def choosing(self, request: LeaseRequest) -> Choosing | None:
        """Return what chooses QPUs for a job that leaves the choice to us; None if it names all of them."""
        return Choosing(self._chooser, self._journal, request) if has_wishes(request) else None

    def acquire(
        self,
        request: LeaseRequest,
        *,
        deadline: Deadline | None = None,
        wanted: Callable[[], bool] = lambda: True,
    ) -> tuple[Lease, ...]:
        """Open a session on every QPU that a job asks for, or on none, and bind it to others.

        Where the job holds a session only from its first task on, the lease has none yet: see `open_session`.

        What the job holds already is returned as it is, so asking twice (a hook that is run again, two
        components of one job) opens nothing twice.

        Args:
            request: Who asks, for what.
            deadline: When to give up; by default, `acquire_timeout` from now.
            wanted: Tells whether the job still wants its QPUs. What it gets after it does not is given back.

        Returns:
            The leases, each HELD (or BOUND, to open a session later), in the request's order; then those that
            it is only bound to.

        Raises:
            RequestError: There is no such QPU, the job may not use it, the user's key is missing, an admin
                has blocked the user, or the job was ended meanwhile.
            RefusedError: The service will not open a session for this account; or a budget is used up.
            MustWaitError: The QPU is closed, away, or in use by as many jobs as may; or running jobs have
                reserved what is left of a budget; or many jobs start at once, and it was not this one's turn.
            UnavailableError: The service is away, for now.
            ConfigError: The admin's key cannot be read.
            JournalError: The journal cannot be written.
        """
        deadline = deadline or Deadline.after(self._config.outage.acquire_timeout)
        with _audited(request):
            leases = self._choose_and_acquire(request, deadline, wanted)
        for lease in leases:
            audit_lease("lease granted", lease)
        return leases

    def _choose_and_acquire(
        self, request: LeaseRequest, deadline: Deadline, wanted: Callable[[], bool]
    ) -> tuple[Lease, ...]:
        """Acquire, after a choice if there is one to make; another choice if the first cannot be had."""
        choosing = self.choosing(request)
        if choosing is None:
            leases = self._acquire(request, deadline, wanted)
            return tuple(self._journal.with_choices(leases)) if request.chosen else leases
        # Components of one job that start at once make one choice.
        with self._locks.job(request.job_id, [ANY], deadline=deadline):
            while True:
                chosen = choosing.next(deadline=deadline)
                try:
                    leases = self._acquire(chosen, choosing.attempt(deadline), wanted)
                    return tuple(self._journal.with_choices(leases))
                except (UnavailableError, BudgetSpentError) as error:
                    choosing.failed(error, chosen, deadline=deadline)

    def _acquire(
        self, request: LeaseRequest, deadline: Deadline, wanted: Callable[[], bool]
    ) -> tuple[Lease, ...]:
        targets = []
        for name in request.qpus:
            qpu = self._config.qpu(name)
            targets.append(Target(qpu, self._connect(qpu.access(request.api_key), deadline=deadline)))
        turn = deadline.sooner(_TURN)
        while True:
            self._prepare(request, deadline)
            try:
                with self._locks.job(request.job_id, request.qpus, deadline=deadline):
                    return Granting(
                        self, self._opener, targets, request, deadline=deadline, wanted=wanted
                    ).run()
            except (QpuFullError, BudgetReservedError):
                # Another job was faster.
                if turn.passed or request.chosen:
                    raise

    def refuse(self, refusal: Refusal) -> None:
        """Write down that a job was refused, for those who ask why.

        Raises:
            JournalError: The journal cannot be written.
        """
        self._journal.refuse(refusal)

    def open_session(self, lease_id: int, places: Sequence[Place] | None = None) -> Lease:
        """Return a lease with a session that takes tasks: the one that it has, or one that is opened for it.

        So a job's first task gets one where nothing is held before, and a later task where the last session
        takes no more. Those who ask at the same time get the same one. Whether the job may use the QPU is
        asked again before a session is opened: the admin may have written other rules since.

        Args:
            lease_id: The lease; its job has it already.
            places: Where in Slurm the job runs; None asks Slurm, if the QPU has rules.

        Returns:
            The lease: HELD.

        Raises:
            NoLeaseError: The lease is only bound to the QPU, or over.
            RequestError: An admin has blocked the user, or the job may not use the QPU any more.
            SlurmError: Slurm does not say where the job runs.
            RefusedError: The service will not open a session for this account.
            BudgetSpentError: A budget is used up.
            BudgetReservedError: Running jobs have reserved what is left of one.
            UnavailableError: The service is away, for now.
            JournalError: The journal cannot be written.
        """
        deadline = Deadline.after(self._config.outage.acquire_timeout)
        lease = self._journal.lease(lease_id)
        refuse_blocked(self._journal, lease.user_id)
        qpu = self._config.qpu(lease.qpu)
        provider = self._connect(qpu.access(self._journal.api_key(lease_id)), deadline=deadline)
        target = Target(qpu, provider)
        with self._locks.job(lease.job_id, [lease.qpu], deadline=deadline):
            try:
                return self._reopen(self._journal.lease(lease_id), target, places, deadline)
            except (BudgetReservedError, BudgetSpentError):
                # What the job's last session has left is known once its use is.
                self._wait_for_accountant(lease, deadline)
                return self._reopen(self._journal.lease(lease_id), target, places, deadline)

    def refuse_task(self, lease_id: int, session_id: str) -> None:
        """Say why the service takes no task for a session of a lease, if that is since a budget is used up.

        Args:
            lease_id: The lease.
            session_id: The session.

        Raises:
            BudgetSpentError: A budget is used up.
            UnavailableError: The service is away, for now.
            JournalError: The journal cannot be read or written.
        """
        deadline = Deadline.after(self._config.outage.acquire_timeout)
        lease = self._journal.lease(lease_id)
        qpu = self._config.qpu(lease.qpu)
        provider = self._connect(qpu.access(self._journal.api_key(lease_id)), deadline=deadline)
        with self._locks.job(lease.job_id, [lease.qpu], deadline=deadline):
            lease = self._journal.lease(lease_id)
            if lease.session_id == session_id and not is_usable(lease, provider):
                self._journal.part(lease.id, session_id, "The service had closed the session.")
        self._wait_for_accountant(lease, deadline)
        with suppress(BudgetReservedError):
            self._opener.budgets.refuse_next(lease)

    def _wait_for_accountant(self, lease: Lease, deadline: Deadline) -> None:
        """Wait until the use of the lease's ended sessions is known, but not long: a task may run yet."""
        soon = deadline.sooner(_ACCOUNT_TIMEOUT)
        while self._journal.history.unaccounted(lease.id) and not soon.passed:
            time.sleep(_LOOK_AGAIN)

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
        return tuple(self.try_to_end(lease, deadline) for lease in leases)

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
        return self.try_to_end(lease, Deadline.after(self._release_timeout))

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
        lease = self._journal.lease(lease_id)
        with self._locks.job(lease.job_id, [lease.qpu], deadline=deadline):
            lease = self._journal.lease(lease_id)
            if lease.state is not LeaseState.ACQUIRING:
                return lease
            lease = self._lost.find(lease, self.provider(lease, deadline=deadline), deadline=deadline)
            if lease.state is not LeaseState.ACQUIRING:
                return lease
            return self._journal.give_up_session(lease_id, "Whoever was opening the session died.")

    # A session for a lease that the job has already; under the job's lock.

    def _reopen(
        self, lease: Lease, target: Target, places: Sequence[Place] | None, deadline: Deadline
    ) -> Lease:
        if lease.state is LeaseState.HELD:
            if is_usable(lease, target.provider):
                return lease
            session_id = lease.session_id or ""
            lease = self._journal.part(lease.id, session_id, "The service had closed the session.")
        elif lease.state is LeaseState.ACQUIRING:
            lease = self._lost.find(lease, target.provider, deadline=deadline)
            if lease.state is LeaseState.HELD:
                return lease
        if lease.hold is Hold.NONE or lease.state not in {LeaseState.BOUND, LeaseState.ACQUIRING}:
            raise NoLeaseError(f"Job {lease.job_id} has no lease on {lease.qpu} to open a session with.")
        if not target.qpu.access_rules.open_to_all:
            if places is None and target.qpu.access_rules.compares_jobs:
                places = places_of(connect(self._config.slurm).components(lease.job_id))
            refuse_denied([target.qpu], lease.user_id, places or (), deadline)
        ends_at = lease.job_ends_at
        left = None if ends_at is None else (ends_at - datetime.now(UTC)).total_seconds()
        ttl = later_session_ttl(target.qpu.max_ttl, left)
        return self._opener.open(target, partial(self._opener.begin, lease, ttl), ttl, deadline=deadline)


@contextmanager
def _audited(request: LeaseRequest) -> Iterator[None]:
    """Have it in the audit if a job does not get what it asks for."""
    try:
        yield
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
