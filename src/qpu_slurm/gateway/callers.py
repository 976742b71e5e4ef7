# SPDX-License-Identifier: Apache-2.0
"""Who calls: the job's lease that a request belongs to, and its QPU.

Every request reads the lease from the journal, so a key opens nothing once its lease has ended. That is one
query to a local file.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

from qpu_slurm.gateway.answers import forbidden, unauthorized, unavailable
from qpu_slurm.journal.model import Hold, LeaseState

if TYPE_CHECKING:
    from collections.abc import Callable

    from qpu_slurm.config import Config, QpuConfig
    from qpu_slurm.gateway.keys import JobKeys
    from qpu_slurm.journal.journal import Journal
    from qpu_slurm.journal.model import Lease

_LATELY = timedelta(minutes=1)

OPEN = frozenset({LeaseState.HELD, LeaseState.BOUND, LeaseState.ACQUIRING})
"""The states of a lease whose key opens something: while a session is being opened, earlier tasks."""

NAME_NONE = (
    "Submit a task that names no session, or open one: QRMI's acquire and Qiskit's Session(backend) do."
)
"""What a job that has no session yet can do."""


class Caller(NamedTuple):
    """The job behind a request: its lease, its QPU, and all sessions of the lease, the newest last."""

    lease: Lease
    qpu: QpuConfig
    sessions: tuple[str, ...]

    def may_execute(self) -> None:
        """Check that the lease may have sessions.

        Raises:
            ApiError: It may not: the job is only bound to the QPU.
        """
        if self.lease.hold is Hold.NONE:
            raise forbidden(
                f"This job is only bound to {self.qpu.name}: it may read what the QPU is like, and gets no "
                "session.",
                f"Submit it with --qpu={self.qpu.name} --gres=qpu:1.",
            )

    def newest(self) -> str:
        """Return the session that the lease has, or had last.

        Raises:
            ApiError: It has had none yet, or may have none.
        """
        self.may_execute()
        if not self.sessions:
            raise forbidden(f"This job holds no session on {self.qpu.name} yet.", NAME_NONE)
        return self.sessions[-1]


class Callers:
    """Finds the caller of a request.

    Args:
        config: The QPUs.
        journal: The leases.
        keys: Job keys.
        recovering: Returns whether the journal was lost: leases that it lacks may exist then.
    """

    def __init__(
        self, config: Config, journal: Journal, keys: JobKeys, recovering: Callable[[], bool] = lambda: False
    ) -> None:
        self._config = config
        self._journal = journal
        self._keys = keys
        self._recovering = recovering

    def of_key(self, key: str) -> Caller:
        """Return the caller that a job key belongs to.

        Raises:
            ApiError: The key is unknown, or its lease has ended.
        """
        lease_id = self._keys.lease_id(key)
        lease = None if lease_id is None else self._journal.find(lease_id)
        if lease is None or not self._keys.opens(key, lease):
            self._may_be_lost()
            raise unauthorized("This is not the key of a job that holds a QPU here.")
        return self._caller(lease)

    def of_lease(self, lease_id: int, created_at: str) -> Caller:
        """Return the caller that a token was issued to.

        Args:
            lease_id: The lease's number.
            created_at: When the lease was created (ISO 8601). Another journal may use the same number.

        Raises:
            ApiError: There is no such lease, or it has ended.
        """
        lease = self._journal.find(lease_id)
        if lease is None or lease.created_at.isoformat() != created_at:
            self._may_be_lost()
            raise unauthorized("The token's lease does not exist.")
        return self._caller(lease)

    def still(self, caller: Caller) -> None:
        """Check that a caller's lease has not ended meanwhile.

        Raises:
            ApiError: It has ended.
        """
        lease = self._journal.find(caller.lease.id)
        if lease is None or lease.state not in OPEN:
            raise _over(caller.lease)

    def of_job(self, job_id: int) -> list[Caller]:
        """Return a job as a caller, once for each QPU that it reaches through the gateway."""
        found = []
        for lease in self._journal.leases(job_id=job_id):
            qpu = self._config.qpus.get(lease.qpu)
            if lease.state in OPEN and qpu is not None and qpu.through_gateway:
                found.append(self._caller(lease))
        if not found:
            self._may_be_lost()
        return found

    def of_late(self, job_id: int) -> Lease | None:
        """Return a job's newest lease, unless it ended over a minute ago: a step may end after its lease."""
        leases = self._journal.leases(job_id=job_id, over=True)
        if not leases or (leases[-1].ended_at or _now()) < _now() - _LATELY:
            return None
        return leases[-1]

    def _may_be_lost(self) -> None:
        """Raise a temporary error while leases are restored from Slurm: the client then tries again."""
        if self._recovering():
            raise unavailable("The journal was lost. The gateway is asking Slurm which jobs hold QPUs.")

    def _caller(self, lease: Lease) -> Caller:
        qpu = self._config.qpus.get(lease.qpu)
        if lease.state not in OPEN or qpu is None or not qpu.through_gateway:
            raise _over(lease)
        sessions = self._journal.history.sessions(lease.id)
        return Caller(lease, qpu, tuple(session.session_id for session in sessions))


def _now() -> datetime:
    return datetime.now(UTC)


def _over(lease: Lease) -> Exception:
    return unauthorized(f"Job {lease.job_id} no longer holds {lease.qpu}.")
