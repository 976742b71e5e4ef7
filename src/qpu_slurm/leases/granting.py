# SPDX-License-Identifier: Apache-2.0
"""How one job gets all of the QPUs that it asks for, or none; its job's lock is held all the time."""

from __future__ import annotations

import secrets
from functools import partial
from typing import TYPE_CHECKING

from qpu_slurm.errors import NoLeaseError, NotFoundError, QpuSlurmError, about
from qpu_slurm.journal.model import Hold, LeaseState
from qpu_slurm.leases.limits import refuse_blocked
from qpu_slurm.leases.release import from_now
from qpu_slurm.names import JOB_TAG
from qpu_slurm.providers.base import SessionState
from qpu_slurm.providers.lifetime import session_ttl
from qpu_slurm.system.deadline import Deadline

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from qpu_slurm.config import QpuConfig
    from qpu_slurm.journal.model import Holder, Lease, LeaseRequest
    from qpu_slurm.leases.opening import Opener, Target
    from qpu_slurm.leases.release import Releaser
    from qpu_slurm.providers.base import Provider

_GIVE_BACK_TIMEOUT = 10.0


class Granting:
    """Gives one job what it asks for.

    Args:
        releaser: Ends leases.
        opener: Opens sessions.
        targets: The QPUs to have leases on.
        request: Who asks, for what.
        deadline: When to give up.
        wanted: Tells whether the job still wants its QPUs.
    """

    def __init__(
        self,
        releaser: Releaser,
        opener: Opener,
        targets: Sequence[Target],
        request: LeaseRequest,
        *,
        deadline: Deadline,
        wanted: Callable[[], bool],
    ) -> None:
        self._releaser = releaser
        self._opener = opener
        self._journal = opener.journal
        self._targets = targets
        self._request = request
        self._deadline = deadline
        self._wanted = wanted
        # What was not held before.
        self._taken: list[Lease] = []
        # On how many QPUs it has no session yet: a budget has to last for all of them.
        self._missing = 1

    def run(self) -> tuple[Lease, ...]:
        """Have all leases, or give back what was had; see `Broker.acquire`."""
        request = self._request
        try:
            leases = (*self._take(), *self._bind())
            # Once more: who was blocked meanwhile was to lose all that there was then, and this came later.
            refuse_blocked(self._journal, request.user_id)
            if not self._wanted():
                raise NoLeaseError(f"Job {request.job_id} does not want its QPUs any more.")
        except QpuSlurmError as error:
            for lease in reversed(self._taken):
                self._journal.end_one(lease.id, f"The job could not have all of its QPUs. {error}")
                self._releaser.try_to_end(lease, Deadline.after(_GIVE_BACK_TIMEOUT))
            raise
        return leases

    def _take(self) -> Iterator[Lease]:
        """Have a lease on every target, once all are there."""
        found = [self._find(target) for target in self._targets]
        for target, lease in zip(self._targets, found, strict=True):
            if lease is None or lease.state is not LeaseState.HELD:
                with about(target.qpu.name):
                    self._opener.refuse_if_away(target)
        self._missing = sum(1 for lease in found if lease is None or lease.state is not LeaseState.HELD)
        for target, lease in zip(self._targets, found, strict=True):
            if lease is None or lease.state is not LeaseState.HELD:
                with about(target.qpu.name):
                    lease = self._have(target, lease)  # noqa: PLW2901 - what was found, or what comes in its place
                self._taken.append(lease)
                self._missing -= 1
            yield lease

    def _find(self, target: Target) -> Lease | None:
        """Return what the job has on a QPU: a lease that is HELD, an intent to be fulfilled, or nothing."""
        lease = self._journal.open_lease(self._request.job_id, target.qpu.name)
        if lease is None:
            return None
        if lease.state is LeaseState.ACQUIRING:
            lease = self._opener.lost.find(lease, target.provider, deadline=self._deadline)
            if lease.state is LeaseState.HELD:
                self._taken.append(lease)
        if lease.state is LeaseState.HELD:
            if is_usable(lease, target.provider):
                # From here on nobody takes it for one that an earlier run of the job has left.
                lease = self._journal.renew(lease.id)
            else:
                lease = self._journal.finish(
                    lease.id, LeaseState.RELEASED, "The service had closed the session."
                )
        if lease.state is LeaseState.RELEASING:
            # The job's last run: what it held has to be gone before the job holds anything again.
            self._releaser.end_sessions(lease, target.provider, self._deadline)
            return None
        return None if lease.state.final else lease

    def _have(self, target: Target, lease: Lease | None) -> Lease:
        """Have a lease on a QPU that the job does not hold, or only intended to."""
        qpu, request = target.qpu, self._request
        if _hold(qpu, request) is Hold.TASK:
            # The job's first task opens the session.
            holder = _holder(request, qpu.name, qpu)
            return self._journal.bind(qpu=qpu.name, hold=Hold.TASK, limit=qpu.limit, **holder)
        ttl = session_ttl(qpu.max_ttl, request.seconds_left)
        begin = partial(self._intend, qpu, ttl) if lease is None else partial(self._opener.begin, lease, ttl)
        return self._opener.open(target, begin, ttl, deadline=self._deadline, wanted=self._wanted)

    def _intend(self, qpu: QpuConfig, ttl: int) -> Lease:
        """Write down that a session is about to be asked for."""
        request = self._request
        terms = self._opener.budgets.terms(
            request.account, request.user_id, qpu.name, share=max(self._missing, 1)
        )
        return self._journal.intend(
            qpu=qpu.name,
            expires_at=self._opener.ends_by(ttl),
            max_ttl=ttl,
            limit=qpu.limit,
            terms=terms,
            **_holder(request, qpu.name, qpu),
        )

    def _bind(self) -> Iterator[Lease]:
        for name in self._request.bind:
            yield self._journal.bind(qpu=name, **_holder(self._request, name))


def is_usable(lease: Lease, provider: Provider) -> bool:
    """Ask whether a lease's session still takes tasks."""
    try:
        session = provider.session(lease.session_id or "")
    except NotFoundError:
        return False
    return session.accepting_tasks and session.state is not SessionState.CLOSED


def _new_tag(request: LeaseRequest) -> str:
    """Make up a lease's tag: no other lease has it, of whatever cluster that uses the same account."""
    return JOB_TAG + ":".join(filter(None, (request.cluster, str(request.job_id), secrets.token_hex(8))))


def _holder(request: LeaseRequest, name: str, qpu: QpuConfig | None = None) -> Holder:
    """Say who gets a lease on a QPU; of one that the job may have a session on, with what ends it."""
    holder: Holder = {
        "job_id": request.job_id,
        "user_id": request.user_id,
        "run": request.run,
        "account": request.account,
        "submitted_at": request.submitted_at,
        "tag": _new_tag(request),
        "chosen": request.chosen.get(name),
    }
    if qpu is not None:
        holder["job_ends_at"] = from_now(request.seconds_left)
        holder["api_key"] = request.api_key if qpu.needs_user_key else None
    return holder


def _hold(qpu: QpuConfig, request: LeaseRequest) -> Hold:
    """Tell how long a job wants to hold sessions on a QPU."""
    return request.hold or Hold(qpu.session)
