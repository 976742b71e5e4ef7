# SPDX-License-Identifier: Apache-2.0
"""A quantum service in memory, and processes that die at some step: to test what the broker does when.

Its provider is a whole one (tests/provider_conformance.py), with a fault by the name of each call.
"""

from __future__ import annotations

import itertools
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import msgspec

from qpu_slurm.config import ComputeServiceQpu, Config, OutageConfig
from qpu_slurm.errors import NotFoundError, RefusedError
from qpu_slurm.journal.model import LeaseRequest
from qpu_slurm.providers.base import (
    Device,
    Features,
    LiveSession,
    QpuStatus,
    Session,
    SessionState,
    SessionUsage,
    Task,
    TaskStatus,
    TaskTimes,
    TaskUsage,
    Traits,
)
from qpu_slurm.system.deadline import NEVER, Deadline
from qpu_slurm.system.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence
    from pathlib import Path

    from qpu_slurm.providers.base import Access, Pieces, Provider

CRN = "crn:v1:bluemix:public:quantum-computing:us-east:a/1:2::"
KEY = Secret("the-users-own-key")
T = TypeVar("T")


class Killed(BaseException):
    """What the process under test dies of: nothing in it catches this."""


class Submitted(NamedTuple):
    """A task, and what it is of: an input is JSON, and its result is the same text."""

    task: Task
    backend: str
    parameters: bytes


class Service:
    """A quantum service in memory, with faults by the name of the call."""

    def __init__(self) -> None:
        self.sessions: dict[str, Session] = {}
        self._numbers = itertools.count(1)
        # What the tasks of a session are tagged with, where a test needs no task for it.
        self.tags: dict[str, str] = {}
        self.tasks: dict[str, Submitted] = {}
        self.calls: list[str] = []
        self.ttls: list[int] = []
        self.keys: list[str] = []
        # For how long a session was active.
        self.used: dict[str, float] = {}
        self.offline: dict[str, str] = {}
        self.queues: dict[str, int] = {}
        self.traits: dict[str, Traits] = {}
        self.before: dict[str, Callable[[], object]] = {}
        self.after: dict[str, Callable[[], object]] = {}

    def connect(self, access: Access, *, deadline: Deadline = NEVER) -> Provider:
        assert deadline is not None
        self.keys.append(access.api_key.reveal())
        return _BrokersQpu(self, access.backend)

    def open_sessions(self) -> list[str]:
        return [session.id for session in self.sessions.values() if session.accepting_tasks]

    def create(self, backend: str, max_ttl: int | None = None) -> Session:
        session = Session(
            id=f"s{next(self._numbers)}",
            backend=backend,
            state=SessionState.OPEN,
            accepting_tasks=True,
            created_at=datetime.now(UTC),
            max_ttl=max_ttl,
        )
        self.sessions[session.id] = session
        return session

    def close(self, session_id: str) -> None:
        self.session(session_id)
        self.sessions[session_id] = msgspec.structs.replace(
            self.sessions[session_id], state=SessionState.CLOSED, accepting_tasks=False
        )

    def session(self, session_id: str) -> Session:
        try:
            return self.sessions[session_id]
        except KeyError:
            raise NotFoundError("no such session") from None

    def task(self, task_id: str) -> Submitted:
        """Find a task; it runs as soon as its QPU is up and somebody looks."""
        try:
            found = self.tasks[task_id]
        except KeyError:
            raise NotFoundError("no such task") from None
        if found.task.status is TaskStatus.QUEUED and found.backend not in self.offline:
            try:
                msgspec.json.decode(found.parameters)
            except msgspec.DecodeError as error:
                return self.end_task(task_id, TaskStatus.FAILED, str(error))
            return self.end_task(task_id, TaskStatus.COMPLETED)
        return found

    def tasks_of(self, session_id: str) -> list[Task]:
        return [self.task(id_).task for id_, it in self.tasks.items() if it.task.session_id == session_id]

    def tagged(self, backend: str, tag: str) -> list[Task]:
        """List a QPU's tasks that have a tag, the newest first."""
        mine = [it.task.id for it in self.tasks.values() if it.backend == backend and tag in it.task.tags]
        return [self.task(task_id).task for task_id in reversed(mine)]

    def end_task(self, task_id: str, status: TaskStatus, reason: str = "") -> Submitted:
        found = self.tasks[task_id]
        task = msgspec.structs.replace(found.task, status=status, reason=reason)
        self.tasks[task_id] = found._replace(task=task)
        return self.tasks[task_id]


class OneQpu:
    """The provider of one QPU."""

    features = Features(sessions=True, keeps_tasks=False)

    def __init__(self, service: Service, backend: str) -> None:
        self.service = service
        self.backend = backend

    def call(self, name: str, effect: Callable[[], T]) -> T:
        name = f"{name} {self.backend}"
        self.service.calls.append(name)
        self.service.before.get(name, lambda: None)()
        answer = effect()
        self.service.after.get(name, lambda: None)()
        return answer

    def status(self) -> QpuStatus:
        return self.call("status", lambda: self._status(self.backend))

    def _status(self, backend: str) -> QpuStatus:
        reason = self.service.offline.get(backend, "")
        return QpuStatus(
            online=not reason,
            reason=reason,
            queue_length=self.service.queues.get(backend, 0),
            traits=self.service.traits.get(backend, Traits()),
        )

    def statuses(self) -> dict[str, QpuStatus]:
        names = ("ibm_fez", "ibm_torino", "ibm_paris")
        return self.call("statuses", lambda: {name: self._status(name) for name in names})

    def slots(self) -> None:
        """Take any number of tasks at once."""

    def device(self) -> Device:
        device = Device(
            qubits=2,
            operations=frozenset({"measure", "cz", "sx"}),
            places={"sx": frozenset({(0,), (1,)})},
            coupled=frozenset({(0, 1), (1, 0)}),
        )
        return self.call("device", lambda: device)

    def calibrated_at(self) -> datetime | None:
        return self.call("calibration", lambda: None)

    def open_session(
        self,
        max_ttl: int,
        *,
        known: Collection[str] = (),
        look_up: bool = True,  # noqa: ARG002 - no answer is lost here
    ) -> Session:
        assert set(known) <= self.service.sessions.keys()
        self.service.ttls.append(max_ttl)
        return self.call("open", lambda: self.service.create(self.backend, max_ttl))

    def session(self, session_id: str) -> Session:
        return self.call("read", lambda: self.service.session(session_id))

    def is_busy(self, session_id: str) -> bool:
        return self.call(
            "busy", lambda: any(not task.status.final for task in self.service.tasks_of(session_id))
        )

    def close_session(self, session_id: str) -> None:
        def close() -> None:
            session = self.service.session(session_id)
            if all(task.status.final for task in self.service.tasks_of(session_id)):
                self.service.close(session_id)
            else:
                closing = msgspec.structs.replace(session, accepting_tasks=False)
                self.service.sessions[session_id] = closing

        self.call("close", close)

    def cancel_session(self, session_id: str) -> None:
        def cancel() -> None:
            self.service.close(session_id)
            for task in self.service.tasks_of(session_id):
                if not task.status.final:
                    self.service.end_task(task.id, TaskStatus.CANCELLED)

        self.call("cancel", cancel)

    def forget_session(self, session_id: str) -> None:
        """Keep nothing that would have to be deleted."""

    def live_sessions(self, since: datetime) -> list[LiveSession]:
        def look() -> list[LiveSession]:
            found = []
            for session in reversed(self.service.sessions.values()):
                if session.backend == self.backend and session.state is not SessionState.CLOSED:
                    assert session.created_at is not None
                    tasks = self.service.tasks_of(session.id)
                    tags = tasks[-1].tags if tasks else ()
                    found.append(LiveSession(id=session.id, created_at=session.created_at, tags=tags))
            return [session for session in found if session.created_at >= since]

        return self.call("live", look)

    def closed_sessions(self, since: datetime) -> frozenset[str]:
        return self.call(
            "closed",
            lambda: frozenset(
                session.id
                for session in self.service.sessions.values()
                if session.backend == self.backend
                and session.created_at is not None
                and session.created_at >= since
                and not session.accepting_tasks
            ),
        )

    def sessions_of_tasks(self, tag: str, *, since: datetime | None = None) -> Iterator[str]:
        def look() -> list[str]:
            found = [session_id for session_id, other in self.service.tags.items() if other == tag][::-1]
            found += [
                task.session_id
                for task in self.service.tagged(self.backend, tag)
                if task.session_id and task.created_at and (since is None or task.created_at >= since)
            ]
            return list(dict.fromkeys(found))

        return iter(self.call("tags", look))

    def usage(self, session_id: str) -> SessionUsage:
        def read() -> SessionUsage:
            tasks = self.service.tasks_of(session_id)
            return SessionUsage(
                state=self.service.session(session_id).state,
                locked_seconds=self.service.used.get(session_id, 0.0),
                tasks=tuple(TaskUsage(id=task.id, status=task.status, seconds=0.0) for task in tasks),
            )

        return self.call("usage", read)

    def unclaimed_sessions(self, since: datetime, *, known: Collection[str] = ()) -> list[Session]:
        return self.call(
            "look",
            lambda: [
                session
                for session in reversed(self.service.sessions.values())
                if session.backend == self.backend
                and session.accepting_tasks
                and session.id not in known
                and session.id not in self.service.tags
                and not self.service.tasks_of(session.id)
                and session.created_at is not None
                and session.created_at >= since
            ],
        )

    def pending_tasks(self, tag: str) -> list[str]:
        return self.call(
            "pending",
            lambda: [task.id for task in self.service.tagged(self.backend, tag) if not task.status.final],
        )

    def submit(
        self,
        program_id: str,  # noqa: ARG002 - as the protocol's
        parameters: bytes | Pieces,
        *,
        session_id: str | None,
        tags: Sequence[str],
        cost: int | None = None,  # noqa: ARG002 - likewise
    ) -> str:
        def take() -> str:
            if session_id is None or not self.service.session(session_id).accepting_tasks:
                raise RefusedError("the session is closed")
            task = Task(
                id=f"t{len(self.service.tasks) + 1}",
                status=TaskStatus.QUEUED,
                session_id=session_id,
                created_at=datetime.now(UTC),
                tags=tuple(tags),
            )
            text = parameters if isinstance(parameters, bytes) else b"".join(parameters)
            self.service.tasks[task.id] = Submitted(task, self.backend, text)
            return task.id

        return self.call("submit", take)

    def task(self, task_id: str) -> Task:
        return self.call("task", lambda: self.service.task(task_id).task)

    def result(self, task_id: str) -> Iterator[bytes]:
        return iter([self.call("result", lambda: self.service.task(task_id).parameters)])

    def early_result(self, task_id: str, *, wait: int = 0) -> Iterator[bytes] | None:  # noqa: ARG002 - the protocol's
        return self.result(task_id) if self.task(task_id).status is TaskStatus.COMPLETED else None

    waits = False

    def logs(self, task_id: str) -> str:
        return self.call("logs", lambda: self.service.task(task_id).task.reason)

    def times(self, task_id: str) -> TaskTimes:
        def read() -> TaskTimes:
            self.service.task(task_id)
            return TaskTimes()

        return self.call("times", read)

    def cancel_task(self, task_id: str) -> None:
        def cancel() -> None:
            if not self.service.task(task_id).task.status.final:
                self.service.end_task(task_id, TaskStatus.CANCELLED)

        self.call("stop", cancel)


class _BrokersQpu(OneQpu):
    """The same, in the hands of the broker, which never looks back without end."""

    def sessions_of_tasks(self, tag: str, *, since: datetime | None = None) -> Iterator[str]:
        assert since is not None
        return super().sessions_of_tasks(tag, since=since)


class Mortal:
    """Something whose nth call kills the process, before or after it took effect."""

    def __init__(self, target: object, life: Life) -> None:
        self._target = target
        self._life = life

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever the target has
        value = getattr(self._target, name)
        if not callable(value):
            return value

        def call(*args: object, **kwargs: object) -> object:
            self._life.step()
            result = value(*args, **kwargs)
            self._life.step()
            return result

        return call


class Life:
    """How many steps are left; the last one kills."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    def step(self) -> None:
        self.left -= 1
        if self.left == 0:
            raise Killed


def configure(directory: Path) -> Config:
    key_file = directory / "key"
    key_file.write_text("the-admins-key")
    key_file.chmod(0o600)
    qpus = [
        ComputeServiceQpu(name="ibm_fez", instance=CRN, credentials="shared", key_file=key_file),
        ComputeServiceQpu(name="ibm_torino", instance=CRN, max_ttl=600),
        ComputeServiceQpu(
            name="ibm_paris", instance=CRN, credentials="shared", key_file=directory / "missing"
        ),
    ]
    return Config(
        path=directory / "config.toml",
        journal=directory / "journal.sqlite",
        outage=OutageConfig(acquire_timeout=5),
        qpus={qpu.name: qpu for qpu in qpus},
    )


def request(
    *qpus: str, job_id: int = 7, seconds: int = 1800, key: Secret | None = KEY, run: str = ""
) -> LeaseRequest:
    return LeaseRequest(job_id=job_id, user_id=1000, qpus=qpus, seconds_left=seconds, run=run, api_key=key)
