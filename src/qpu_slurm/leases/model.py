# SPDX-License-Identifier: Apache-2.0
"""The lease: one job's hold on one QPU."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

import msgspec

from qpu_slurm.secret import Secret


class LeaseState(StrEnum):
    """How far a lease has come.

    ACQUIRING is the intent, written before the provider is asked; HELD has its session; RELEASING is the
    intent to end it; RELEASED and FAILED are final. BOUND holds nothing at the provider: the job may read
    what the QPU is like, until the lease is RELEASED.
    """

    ACQUIRING = "acquiring"
    HELD = "held"
    BOUND = "bound"
    RELEASING = "releasing"
    RELEASED = "released"
    FAILED = "failed"

    @property
    def final(self) -> bool:
        """Whether nothing is held, or about to be, any more."""
        return self in {LeaseState.RELEASED, LeaseState.FAILED}


class Lease(msgspec.Struct, frozen=True, kw_only=True):
    """One job's hold on one QPU.

    Attributes:
        id: The journal's number.
        job_id: The Slurm job that holds it; of a heterogeneous job, the leader.
        user_id: The job's user.
        qpu: The QPU, as users name it.
        state: See `LeaseState`.
        session_id: The provider's session, once there is one.
        created_at: When the intent was written.
        acquired_at: When the session was recorded.
        expires_at: When the session ends by itself, at the latest.
        ended_at: When it was released or failed.
        reason: Why it failed, or what ended it.
    """

    id: int
    job_id: int
    user_id: int
    qpu: str
    state: LeaseState
    session_id: str | None
    created_at: datetime
    acquired_at: datetime | None
    expires_at: datetime | None
    ended_at: datetime | None
    reason: str


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened to a lease.

    Attributes:
        time: When it was written down.
        lease_id: Which lease.
        what: `intent`, `held`, `adopted`, `bound`, `renewed`, `releasing`, `postponed`, `released` or
            `failed`.
        detail: The session's id, or why.
    """

    time: datetime
    lease_id: int
    what: str
    detail: str


class LeaseRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What a job asks the broker for: all of these QPUs, or none.

    Attributes:
        job_id: The Slurm job; of a heterogeneous job, the leader.
        user_id: The job's user.
        qpus: The names of the QPUs to open a session on, each once.
        bind: Likewise, of those whose configuration the job wants to know, and no more.
        seconds_left: What is left of the job's time limit.
        api_key: The user's own credential, where the plugin published one.
    """

    job_id: int
    user_id: int
    qpus: tuple[str, ...]
    bind: tuple[str, ...] = ()
    seconds_left: int
    api_key: Secret | None = None
