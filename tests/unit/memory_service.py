# SPDX-License-Identifier: Apache-2.0
"""A quantum service in memory, and processes that die at some step: to test what the broker does when."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar, cast

import msgspec

from qpu_slurm.config import Config, OutageConfig, QpuConfig
from qpu_slurm.errors import NotFound
from qpu_slurm.journal.model import LeaseRequest
from qpu_slurm.providers.base import QpuStatus, Session, SessionState, SessionUsage
from qpu_slurm.system.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator
    from pathlib import Path

    from qpu_slurm.providers.base import Access, Provider

CRN = "crn:v1:bluemix:public:quantum-computing:us-east:a/1:2::"
KEY = Secret("the-users-own-key")
T = TypeVar("T")


class Killed(BaseException):
    """What the process under test dies of: nothing in it catches this."""


class Service:
    """A quantum service in memory, with faults by the name of the call."""

    def __init__(self) -> None:
        self.sessions: dict[str, Session] = {}
        # What the tasks of a session are tagged with.
        self.tags: dict[str, str] = {}
        self.calls: list[str] = []
        self.ttls: list[int] = []
        self.keys: list[str] = []
        self.offline: dict[str, str] = {}
        self.before: dict[str, Callable[[], object]] = {}
        self.after: dict[str, Callable[[], object]] = {}

    def connect(self, access: Access, *, deadline: float | None = None) -> Provider:
        assert deadline is not None
        self.keys.append(access.api_key.reveal())
        return cast("Provider", OneQpu(self, access.backend))

    def open_sessions(self) -> list[str]:
        return [session.id for session in self.sessions.values() if session.accepting_tasks]

    def create(self, backend: str) -> Session:
        session = Session(
            id=f"s{len(self.sessions) + 1}",
            backend=backend,
            state=SessionState.OPEN,
            accepting_tasks=True,
            created_at=datetime.now(UTC),
        )
        self.sessions[session.id] = session
        return session

    def close(self, session_id: str) -> None:
        if session_id not in self.sessions:
            raise NotFound("no such session")
        self.sessions[session_id] = msgspec.structs.replace(
            self.sessions[session_id], state=SessionState.CLOSED, accepting_tasks=False
        )


class OneQpu:
    """As much of a provider as the broker uses."""

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
        return QpuStatus(online=not reason, reason=reason, queue_length=0)

    def statuses(self) -> dict[str, QpuStatus]:
        names = ("ibm_fez", "ibm_torino", "ibm_paris")
        return self.call("statuses", lambda: {name: self._status(name) for name in names})

    def open_session(self, max_ttl: int, *, known: Collection[str] = ()) -> Session:
        assert set(known) <= self.service.sessions.keys()
        self.service.ttls.append(max_ttl)
        return self.call("open", lambda: self.service.create(self.backend))

    def session(self, session_id: str) -> Session:
        def read() -> Session:
            try:
                return self.service.sessions[session_id]
            except KeyError:
                raise NotFound("no such session") from None

        return self.call("read", read)

    def cancel_session(self, session_id: str) -> None:
        self.call("cancel", lambda: self.service.close(session_id))

    def closed_sessions(self, since: datetime) -> frozenset[str]:
        return self.call(
            "closed",
            lambda: frozenset(
                session.id
                for session in self.service.sessions.values()
                if session.created_at is not None
                and session.created_at >= since
                and not session.accepting_tasks
            ),
        )

    def sessions_of_tasks(self, tag: str, *, since: datetime | None = None) -> Iterator[str]:
        found = [session_id for session_id, other in self.service.tags.items() if other == tag]
        assert since is not None
        return iter(self.call("tags", lambda: found[::-1]))

    def usage(self, session_id: str) -> SessionUsage:
        return self.call(
            "usage", lambda: SessionUsage(state=self.service.sessions[session_id].state, locked_seconds=0.0)
        )

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
                and session.created_at is not None
                and session.created_at >= since
            ],
        )


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
        QpuConfig(name="ibm_fez", instance=CRN, credentials="shared", key_file=key_file),
        QpuConfig(name="ibm_torino", instance=CRN, max_ttl=600),
        QpuConfig(name="ibm_paris", instance=CRN, credentials="shared", key_file=directory / "missing"),
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
