# SPDX-License-Identifier: Apache-2.0
"""What a provider is: the code that speaks to one kind of quantum service.

A provider knows nothing of Slurm. It is bound to one QPU and to one credential; whoever holds a QPU's
session talks to the service through it. Errors are those of `qpu_slurm.errors` (`RefusedError`,
`NotFoundError`, `UnavailableError`, `AnswerLostError`).

It answers in the types of this module: no JSON of a service leaves its provider, except for tasks' inputs and
results, which pass through unread. tests/provider_conformance.py is what every provider has to pass, and
docs/adding-a-provider.md the guide.
"""

from __future__ import annotations

import hashlib
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

import msgspec

from qpu_slurm.system.deadline import NEVER, Deadline
from qpu_slurm.system.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence


class Access(msgspec.Struct, frozen=True, kw_only=True):
    """How one QPU is reached.

    Attributes:
        type: The resource type, in QRMI's words, such as `ibm-quantum-compute-service`.
        backend: The service's name of the QPU.
        endpoint: The service's base URL, its version included (`https://…/api/v1`).
        iam_endpoint: The base URL that turns an API key into a token; empty where the key is the token.
        instance: The service instance (a CRN) that pays; empty where there are none.
        api_key: The credential.
        mode: The session's mode: `dedicated` or `batch`.
    """

    type: str
    backend: str
    endpoint: str
    iam_endpoint: str = ""
    instance: str = ""
    api_key: Secret
    mode: str = "dedicated"

    @property
    def account(self) -> Account:
        """What this has in common with the ways to other QPUs."""
        key = hashlib.sha256(self.api_key.reveal().encode()).digest()
        return Account(self.type, self.endpoint, self.iam_endpoint, self.instance, key)


class Account(NamedTuple):
    """Where a credential is good for something: QPUs there share a token, and are listed in one answer."""

    type: str
    endpoint: str
    iam_endpoint: str
    instance: str
    key_sha256: bytes


class Traits(msgspec.Struct, frozen=True, kw_only=True):
    """What a QPU is like, as far as it can be asked for in `--qpu=any:…`; None is not known.

    Attributes:
        qubits: How many qubits it has.
        processor: The family of its processor, with the revision behind it: `heron-r2`, in lower case.
        error: The error of a two-qubit gate; in a layer of such gates, if the service says that.
        clops: Layers of a circuit in a second.
        max_shots: The most shots of one circuit.
        simulator: Whether it is none.
    """

    qubits: int | None = None
    processor: str | None = None
    error: float | None = None
    clops: float | None = None
    max_shots: int | None = None
    simulator: bool | None = None


class QpuStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a QPU takes tasks now.

    Attributes:
        online: Whether it does.
        reason: Why not.
        queue_length: How many tasks wait.
        traits: What it is like, where the same answer says that.
    """

    online: bool
    reason: str
    queue_length: int
    traits: Traits = Traits()


TIMING: Final = frozenset({"barrier", "delay"})
"""What only orders and times a circuit's other operations: possible on any qubits."""

_PAIR: Final = 2


class Device(msgspec.Struct, frozen=True, kw_only=True):
    """What circuits have to fit to run on a QPU.

    Attributes:
        qubits: How many qubits it has, numbered from 0.
        operations: The names of all that it can do, as OpenQASM 3 and Qiskit write them.
        places: The qubits on which an operation is possible, by its name; one that is missing is possible
            anywhere, or, on two qubits, where these are `coupled`.
        coupled: Pairs of qubits, in both orders; none are no bound.
        max_shots: The most shots of one circuit; None if the service does not say.
        names: What the service calls the qubits, where it does not number them.
    """

    qubits: int
    operations: frozenset[str]
    places: dict[str, frozenset[tuple[int, ...]]]
    coupled: frozenset[tuple[int, ...]]
    max_shots: int | None = None
    names: tuple[str, ...] = ()

    def problem(self, name: str, qubits: tuple[int, ...]) -> str | None:
        """Return why an operation is not possible on some qubits; None if it is."""
        if name not in self.operations:
            return f"{name} is no operation of the QPU"
        if any(qubit >= self.qubits for qubit in qubits):
            return f"{name} on qubits {self._named(qubits)}: the QPU has {self.qubits}"
        if name in TIMING or not qubits:
            return None
        places = self.places.get(name, self.coupled if len(qubits) == _PAIR else None)
        if places and qubits not in places:
            return f"{name} on qubits {self._named(qubits)}: the QPU has none there"
        return None

    def lacks(self, operations: Iterable[str]) -> list[str]:
        """Return those operations that the QPU does not have."""
        return sorted({*operations} - self.operations)

    def _named(self, qubits: tuple[int, ...]) -> str:
        names = dict(enumerate(self.names))
        return " and ".join(names.get(qubit, str(qubit)) for qubit in qubits)


class SessionState(StrEnum):
    """A session's state, in the IBM Quantum Compute Service's words."""

    OPEN = "open"
    ACTIVE = "active"
    INACTIVE = "inactive"
    CLOSED = "closed"


class Session(msgspec.Struct, frozen=True, kw_only=True):
    """The provider's session: what a lease holds.

    Attributes:
        id: The service's id.
        backend: The QPU it is on.
        state: See `SessionState`.
        accepting_tasks: False once it was closed, even while a last task still runs.
        created_at: When the service made it, if it says so.
        max_ttl: The seconds that it was made to live, if the service says so.
        ends_at: When its time to live is over, at the latest, if the service says so.
    """

    id: str
    backend: str
    state: SessionState
    accepting_tasks: bool
    created_at: datetime | None = None
    max_ttl: int | None = None
    ends_at: datetime | None = None


class LiveSession(msgspec.Struct, frozen=True, kw_only=True):
    """A session of the account that is not closed, whoever opened it.

    Attributes:
        id: The service's id.
        created_at: When the service made it.
        tags: What the submitter of its newest task wrote on that; empty without a task.
    """

    id: str
    created_at: datetime
    tags: tuple[str, ...] = ()


class TaskStatus(StrEnum):
    """What has become of a task."""

    QUEUED = "queued"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        """Whether it will not change any more."""
        return self in {TaskStatus.COMPLETED, TaskStatus.FAILED, TaskStatus.CANCELLED}


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """One primitive input on its way through the QPU (the service calls it a job).

    Attributes:
        id: The service's id.
        status: See `TaskStatus`.
        reason: Why it failed or was cancelled, in the service's words.
        session_id: The session that it runs in.
        created_at: When the service took it.
        tags: What its submitter wrote on it.
    """

    id: str
    status: TaskStatus
    reason: str = ""
    session_id: str | None = None
    created_at: datetime | None = None
    tags: tuple[str, ...] = ()


class TaskUsage(msgspec.Struct, frozen=True, kw_only=True):
    """A task of a session, as it went; what the service does not say is None.

    Attributes:
        id: The service's id.
        status: See `TaskStatus`; None for a state that we do not know.
        seconds: How long it ran on the QPU.
        created_at: When the service took it.
        started_at: When it began to run.
        ended_at: When it was over.
    """

    id: str
    status: TaskStatus | None
    seconds: float
    created_at: datetime | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None


class TaskTimes(msgspec.Struct, frozen=True, kw_only=True):
    """Where a task's time went, by the service's clock; None is what the service did not say.

    Attributes:
        queued: Seconds from when the service took it until it ran.
        running: Seconds that it ran.
        quantum: Seconds of QPU time that are paid for.
        position: Its place in the queue, from 1.
    """

    queued: float | None = None
    running: float | None = None
    quantum: float | None = None
    position: int | None = None


class SessionUsage(msgspec.Struct, frozen=True, kw_only=True):
    """What a session was used for so far.

    Attributes:
        state: See `SessionState`; what follows is complete once that is CLOSED.
        locked_seconds: How long it was active, which is what is paid for; None if the service does not say.
        active: When it was, each time with its begin and its end, as far as the service says.
        tasks: What ran in it, the oldest first.
    """

    state: SessionState
    locked_seconds: float | None
    active: tuple[tuple[datetime, datetime], ...] = ()
    tasks: tuple[TaskUsage, ...] = ()

    @property
    def executed_seconds(self) -> float:
        """How long its tasks ran on the QPU."""
        return sum(task.seconds for task in self.tasks)


class Features(msgspec.Struct, frozen=True, kw_only=True):
    """What a service has; where one has not, its provider's docstring says what that costs.

    Attributes:
        sessions: It has sessions. Without them, what a lease holds is a gate (`providers.gates`).
        keeps_tasks: It keeps a task that is over, and what that holds, until it is deleted.
        lists_tasks: Its tasks can be listed, so a submission whose answer was lost can be looked up.
        early_results: It can be asked for a result that is not there yet; see `Provider.early_result`.
    """

    sessions: bool
    keeps_tasks: bool
    lists_tasks: bool = True
    early_results: bool = False


class Pieces(Protocol):
    """A text in pieces, that can be gone through again: what is as big as 100 MB need not be in memory."""

    def __len__(self) -> int:
        """Return its length in bytes."""

    def __iter__(self) -> Iterator[bytes]:
        """Go through it from its beginning."""


class Provider(Protocol):
    """One QPU of one service, with one credential.

    Attributes:
        features: What the service has.
    """

    features: Features

    def status(self) -> QpuStatus:
        """Ask whether the QPU takes tasks."""

    def statuses(self) -> dict[str, QpuStatus]:
        """Ask the same of all QPUs that the credential is good for, by their names there, in one request."""

    def device(self) -> Device:
        """Ask what circuits have to fit to run on the QPU.

        Raises:
            UnavailableError: The service does not tell, or its answer cannot be understood.
        """

    def calibrated_at(self) -> datetime | None:
        """Ask when the QPU was last calibrated: a time in UTC, or None if the service does not say."""

    def slots(self) -> int | None:
        """Ask how many tasks the QPU takes at once, those of others included; None is any number."""

    def open_session(self, max_ttl: int, *, known: Collection[str] = (), look_up: bool = True) -> Session:
        """Create a session.

        Args:
            max_ttl: Seconds that the session may live.
            known: Sessions of the account that somebody else holds: never taken for the lost one.
            look_up: Look up a creation whose answer was lost, before it is repeated, and wait as long as the
                service asks to. Callers who create several sessions of one account at once set this to False,
                and look for lost ones together (`leases/lost_sessions.py`).

        Raises:
            RefusedError: The service says no.
            MustWaitError: It says that the QPU is not available.
            ThrottledError: It takes no more requests for now (only without `look_up`).
            AnswerLostError: There may be a session.
        """

    def session(self, session_id: str) -> Session:
        """Read a session."""

    def usage(self, session_id: str) -> SessionUsage:
        """Read what a session was used for, and its tasks' times, as far as the service tells."""

    def is_busy(self, session_id: str) -> bool:
        """Ask whether a task of the session runs or waits."""

    def close_session(self, session_id: str) -> None:
        """Let the session finish the tasks that it has, and take no more. Closed already is fine."""

    def cancel_session(self, session_id: str) -> None:
        """End the session and whatever waits or runs in it. Ended already is fine."""

    def forget_session(self, session_id: str) -> None:
        """Delete what the service keeps of a session that is over and was accounted for, if that has to be.

        Forgotten already is fine.
        """

    def unclaimed_sessions(self, since: datetime, *, known: Collection[str] = ()) -> list[Session]:
        """List what a creation whose answer was lost may have left behind.

        These are the account's sessions on this QPU, in its mode, that are not closed, came after `since`,
        hold no task and are not `known`. Their `created_at` is a time of our clock, to about two seconds.
        """

    def live_sessions(self, since: datetime) -> list[LiveSession]:
        """List the account's sessions on this QPU that came after a time and are not closed, newest first."""

    def closed_sessions(self, since: datetime) -> frozenset[str]:
        """List the account's sessions on this QPU that came after a time and take no more tasks."""

    def sessions_of_tasks(self, tag: str, *, since: datetime | None = None) -> Iterator[str]:
        """List the sessions on this QPU of the tasks that have a tag, each once, the newest task's first.

        Args:
            tag: What their submitter wrote on them.
            since: Pass over tasks that came before (by our clock).
        """

    def pending_tasks(self, tag: str) -> list[str]:
        """List the tasks on this QPU that have a tag and are not over: their ids, the newest first.

        Args:
            tag: What their submitter wrote on them.
        """

    def submit(
        self,
        program_id: str,
        parameters: bytes | Pieces,
        *,
        session_id: str | None,
        tags: Sequence[str],
        cost: int | None = None,
    ) -> str:
        """Submit a task.

        A submission whose answer was lost is looked up by its tags before it is repeated, so the tags
        must be the task's own. Where the service lists no tasks, `AnswerLostError` is raised instead.

        Args:
            program_id: `sampler`, `estimator` or `executor`.
            parameters: The input's `parameters`, as JSON text; passed through unread.
            session_id: The session to run in; None for none.
            tags: What to find it by, the job's id among them.
            cost: Seconds of QPU time that it may take (`<qpu>_QRMI_JOB_TIMEOUT_SECONDS`).

        Returns:
            The task's id.
        """

    def task(self, task_id: str) -> Task:
        """Read a task's state."""

    def result(self, task_id: str) -> Iterator[bytes]:
        """Read a completed task's result text, in pieces, so that its size costs no memory."""

    def early_result(self, task_id: str, *, wait: int = 0) -> Iterator[bytes] | None:
        """Ask for a task's result, whether the task is over or not: as `result`, and for less than both asks.

        Args:
            task_id: The task.
            wait: Seconds that the service may wait for the result, if it is one that does.

        Returns:
            The pieces; None if there is no result: not yet, or never, which the task's state tells.
        """

    @property
    def waits(self) -> bool:
        """Whether the service waits for results that are not there yet, as far as its answers have told."""

    def logs(self, task_id: str) -> str:
        """Read what the service logged of a task."""

    def times(self, task_id: str) -> TaskTimes:
        """Read where a task's time went, as far as the service tells, and its place in the queue."""

    def cancel_task(self, task_id: str) -> None:
        """Cancel a task. One that is over already is fine."""


class Connect(Protocol):
    """How a provider is had: `qpu_slurm.providers.connect`, or a test's own."""

    def __call__(self, access: Access, *, deadline: Deadline = NEVER) -> Provider:
        """Return the provider of one QPU, which gives up at the deadline."""
