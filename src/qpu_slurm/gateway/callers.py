# SPDX-License-Identifier: Apache-2.0
"""Whose request it is: which job's lease, on which QPU.

The journal is asked at every request, so that a key is worth nothing from the moment on in which its lease
ends; that is one look into a local file.
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
"""The states of a lease whose key opens something: while another session is opened, the last one's tasks."""


NAME_NONE = (
    "Submit a task that names no session, or open one: QRMI's acquire and Qiskit's Session(backend) do."
)
"""What a job does that has no session yet."""


class Holder(NamedTuple):
    """A lease, the QPU that it is on, and the sessions that it has and had, the newest last."""

    lease: Lease
    qpu: QpuConfig
    sessions: tuple[str, ...]

    def may_execute(self) -> None:
        """Make sure that the lease is one that gets sessions.

        Raises:
            ApiError: It does not.
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
            ApiError: It had none yet, or gets none.
        """
        self.may_execute()
        if not self.sessions:
            raise forbidden(
                f"This job holds no session on {self.qpu.name} yet.",
                NAME_NONE,
            )
        return self.sessions[-1]


class Holders:
    """Tells whose request it is.

    Args:
        config: The QPUs.
        journal: The leases.
        keys: Job keys.
        recovering: Whether the journal was lost, so that a lease which it lacks may exist all the same.
    """

    def __init__(
        self, config: Config, journal: Journal, keys: JobKeys, recovering: Callable[[], bool] = lambda: False
    ) -> None:
        self._config = config
        self._journal = journal
        self._keys = keys
        self._recovering = recovering

    def of_key(self, key: str) -> Holder:
        """Tell whose a job key is.

        Raises:
            ApiError: It is nobody's, or its lease is over.
        """
        lease_id = self._keys.lease_id(key)
        lease = None if lease_id is None else self._journal.find(lease_id)
        if lease is None or not self._keys.opens(key, lease):
            self._may_be_lost()
            raise unauthorized("This is not the key of a job that holds a QPU here.")
        return self._holder(lease)

    def of_lease(self, lease_id: int, created_at: str) -> Holder:
        """Tell who holds the lease that a token is for.

        Args:
            lease_id: The lease's number.
            created_at: When it was made, as ISO 8601: another journal's lease may have the same number.

        Raises:
            ApiError: There is no such lease, or it is over.
        """
        lease = self._journal.find(lease_id)
        if lease is None or lease.created_at.isoformat() != created_at:
            self._may_be_lost()
            raise unauthorized("The token's lease does not exist.")
        return self._holder(lease)

    def still(self, holder: Holder) -> None:
        """Make sure that a lease is not over by now.

        Raises:
            ApiError: It is.
        """
        lease = self._journal.find(holder.lease.id)
        if lease is None or lease.state not in OPEN:
            raise _over(holder.lease)

    def of_job(self, job_id: int) -> list[Holder]:
        """List what a job holds, as far as it reaches it through the gateway."""
        found = []
        for lease in self._journal.leases(job_id=job_id):
            qpu = self._config.qpus.get(lease.qpu)
            if lease.state in OPEN and qpu is not None and qpu.credentials == "gateway":
                found.append(self._holder(lease))
        if not found:
            self._may_be_lost()
        return found

    def of_late(self, job_id: int) -> Lease | None:
        """Return the newest lease of a job, unless it has been over for a while: steps end after it."""
        leases = self._journal.leases(job_id=job_id, over=True)
        if not leases or (leases[-1].ended_at or _now()) < _now() - _LATELY:
            return None
        return leases[-1]

    def _may_be_lost(self) -> None:
        """Have the client ask again, instead of refusing it, while leases are being taken over from Slurm."""
        if self._recovering():
            raise unavailable("The journal was lost. The gateway is asking Slurm which jobs hold QPUs.")

    def _holder(self, lease: Lease) -> Holder:
        qpu = self._config.qpus.get(lease.qpu)
        if lease.state not in OPEN or qpu is None or qpu.credentials != "gateway":
            raise _over(lease)
        sessions = self._journal.history.sessions(lease.id)
        return Holder(lease, qpu, tuple(session.session_id for session in sessions))


def _now() -> datetime:
    return datetime.now(UTC)


def _over(lease: Lease) -> Exception:
    return unauthorized(f"Job {lease.job_id} no longer holds {lease.qpu}.")
