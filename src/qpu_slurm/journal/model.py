# SPDX-License-Identifier: Apache-2.0
"""The lease: one job's hold on one QPU."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Required, TypedDict

import msgspec

from qpu_slurm.config.access import Place
from qpu_slurm.qpu_option import Choice
from qpu_slurm.system.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Mapping


class LeaseState(StrEnum):
    """How far a lease has come.

    ACQUIRING is the intent, written before the provider is asked; HELD has its session; RELEASING is the
    intent to end it; RELEASED and FAILED are final. BOUND holds nothing at the provider: the job may read
    what the QPU is like, and open a session if its `Hold` says so, until the lease is RELEASED.
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


TRANSITIONS: Final[Mapping[LeaseState | None, frozenset[LeaseState]]] = MappingProxyType(
    {
        # A new lease; HELD is one that a lost journal has known, FAILED one that was refused, and RELEASED
        # stands for a session that was asked for, and may come yet: see `Journal.ask_again`.
        None: frozenset({*LeaseState} - {LeaseState.RELEASING}),
        # The session is there; it is given up, and the lease stays the job's; the job ends; there is none.
        LeaseState.ACQUIRING: frozenset(
            {LeaseState.HELD, LeaseState.BOUND, LeaseState.RELEASING, LeaseState.FAILED}
        ),
        # The session takes no more tasks; the job ends; the service has closed the session.
        LeaseState.HELD: frozenset({LeaseState.BOUND, LeaseState.RELEASING, LeaseState.RELEASED}),
        # A task needs a session; the job ends, and may have sessions; it ends, and never had one.
        LeaseState.BOUND: frozenset({LeaseState.ACQUIRING, LeaseState.RELEASING, LeaseState.RELEASED}),
        LeaseState.RELEASING: frozenset({LeaseState.RELEASED}),
        LeaseState.RELEASED: frozenset(),
        LeaseState.FAILED: frozenset(),
    }
)
"""The states that may follow a state; None is before the lease is written down.

`rows.insert` and `rows.move` alone change states. The database has the same table, as a trigger.
"""


class Hold(StrEnum):
    """How long a lease holds a session.

    JOB: from the job's start on; TASK: from the first task on. Either way it ends with the job, or with the
    last task if that says so (`task_runner --final`), and a later task opens another. NONE: never.
    """

    JOB = "job"
    TASK = "task"
    NONE = "none"


class Lease(msgspec.Struct, frozen=True, kw_only=True):
    """One job's hold on one QPU.

    Attributes:
        id: The journal's number.
        job_id: The Slurm job that holds it; of a heterogeneous job, the leader.
        user_id: The job's user.
        qpu: The QPU, as users name it.
        state: See `LeaseState`.
        hold: See `Hold`.
        run: Which run of the job: Slurm uses an id again, for a requeued job and after a crash.
        account: Slurm's account of the job; empty where Slurm has none.
        submitted_at: When the job was submitted, or requeued.
        job_ends_at: When the job's time limit is over, as far as was known when it started: no session that
            is opened for it lives longer.
        tag: What tells the job's tasks on this QPU from all others of the account, those of other clusters
            among them: `slurm-job:CLUSTER:JOB:RANDOM`.
        session_id: The provider's session, while there is one.
        intended_at: Since when there may be a session that is not recorded; None if that cannot be.
        max_ttl: The seconds that the session was asked to live; None if none was asked for.
        created_at: When the lease was written down first.
        acquired_at: When the session was recorded.
        expires_at: When the session ends by itself, at the latest.
        ended_at: When it was released or failed.
        reason: Why it failed, or what ended it.
        chosen: Why the job has this QPU, where it was chosen for it; read by `Lookup.with_choices` only.
    """

    id: int
    job_id: int
    user_id: int
    qpu: str
    state: LeaseState
    hold: Hold = Hold.JOB
    run: str = ""
    account: str = ""
    submitted_at: datetime | None = None
    job_ends_at: datetime | None = None
    tag: str = ""
    session_id: str | None
    intended_at: datetime | None = None
    max_ttl: int | None = None
    created_at: datetime
    acquired_at: datetime | None
    expires_at: datetime | None
    ended_at: datetime | None
    reason: str
    chosen: Choice | None = None

    @property
    def granted(self) -> bool:
        """Whether the job has been given it, with or without a session: it is the job's until that ends."""
        return self.hold is not Hold.JOB or self.acquired_at is not None

    def is_of(self, run: str) -> bool:
        """Tell whether it is of this run of its job; where one of the two is not known, it is."""
        return not (run and self.run) or self.run == run


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened to a lease.

    Attributes:
        time: When it was written down.
        lease_id: Which lease.
        what: `chosen`, `intent`, `held`, `adopted`, `bound`, `renewed`, `parted`, `releasing`, `postponed`,
            `released`, `failed`, `refused` or `settled`.
        detail: The session's id, or why.
    """

    time: datetime
    lease_id: int
    what: str
    detail: str


class Holder(TypedDict, total=False):
    """Who is to have a lease: what the journal keeps of the job.

    Attributes:
        job_id: The job; of a heterogeneous job, the leader.
        user_id: Whose it is.
        run: Which run of the job it is.
        account: Slurm's account of the job.
        submitted_at: When the job was submitted, or requeued.
        job_ends_at: When its time limit is over.
        tag: See `Lease.tag`.
        chosen: Why the job has this QPU, if it was chosen for it.
        api_key: The user's own credential: kept until the lease is over and no session of it can come any
            more, since nobody else could end that if the job is gone.
    """

    job_id: Required[int]
    user_id: Required[int]
    run: str
    account: str
    submitted_at: datetime | None
    job_ends_at: datetime | None
    tag: str
    chosen: Choice | None
    api_key: Secret | None


class LeaseRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What a job asks the broker for: all of these QPUs, or none.

    Attributes:
        job_id: The Slurm job; of a heterogeneous job, the leader.
        user_id: The job's user.
        qpus: The names of the QPUs to open a session on, each once; and wishes, as their users wrote them
            (`qpu_option`).
        bind: Likewise, of those whose configuration the job wants to know, and no more.
        chosen: Of those names, which were chosen for wishes, and why.
        hold: How long sessions are held; None is what the admin chose for each QPU.
        seconds_left: What is left of the job's time limit.
        run: Which run of the job it is.
        account: Slurm's account of the job.
        submitted_at: When the job was submitted, or requeued.
        cluster: The cluster's name.
        places: Where in Slurm its components run.
        api_key: The user's own credential, where the plugin published one.
    """

    job_id: int
    user_id: int
    qpus: tuple[str, ...]
    bind: tuple[str, ...] = ()
    chosen: dict[str, Choice] = {}
    hold: Hold | None = None
    seconds_left: int
    run: str = ""
    account: str = ""
    submitted_at: datetime | None = None
    cluster: str = ""
    places: tuple[Place, ...] = ()
    api_key: Secret | None = None


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """A job that a prolog ended, since it cannot have what it asked for.

    Attributes:
        job_id: The Slurm job; of a heterogeneous job, the leader.
        user_id: The job's user.
        qpus: What it asked for, as far as that can be said.
        reason: The sentence that its user was told.
        run: Which run of the job it is.
        account: Slurm's account of the job.
        submitted_at: When the job was submitted, or requeued.
    """

    job_id: int
    user_id: int
    qpus: tuple[str, ...]
    reason: str
    run: str = ""
    account: str = ""
    submitted_at: datetime | None = None
