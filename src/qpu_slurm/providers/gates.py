# SPDX-License-Identifier: Apache-2.0
"""Services without sessions: there, what a lease holds is a gate.

Such a service runs whatever comes with its credential, so nothing there begins or ends a job's turn. A gate
does: it is open while the lease is held. Only the journal knows that, and only the gateway enforces it. To
the rest of qpu_slurm, a gate is a session: it has an id, tasks run in it, it ends with them, and what it was
used for is accounted for.

At the service, a gate is no more than a tag that its tasks carry. Opening one asks nothing of the service,
so no answer gets lost, and nothing is left behind. What it has used is what its tasks have used. The service
keeps these until they are deleted: `forget_session` does that, once they stand in the journal.
"""

from __future__ import annotations

import re
import uuid
from abc import ABC, abstractmethod
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from qpu_slurm.errors import NotFoundError, RefusedError, UnavailableError
from qpu_slurm.providers.base import Session, SessionState, SessionUsage, TaskStatus

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from qpu_slurm.providers.base import LiveSession, Task, TaskUsage

_GATE: Final = re.compile(r"gate-[0-9a-f]{32}")

_CLOCK_DOUBT: Final = timedelta(minutes=5)
"""How far the service's clock may be from ours."""


def gate_among(tags: Sequence[str]) -> str | None:
    """Return the gate that a task went through, from all the tags that it carries at the service."""
    return next((tag for tag in tags if _GATE.fullmatch(tag)), None)


def counts_among(tags: Sequence[str], tag: str) -> bool:
    """Return whether a task is one of those of a tag.

    Its submitter may have written any gate on it, as another tag. It counts for the one that it went through.

    Args:
        tags: All tags that the task carries at the service, the gate that it went through before the others.
        tag: The tag, or a gate.
    """
    return gate_among(tags) == tag if _GATE.fullmatch(tag) else tag in tags


def need_result(task: Task) -> None:
    """Make sure that a task has a result.

    Raises:
        RefusedError: It never will.
        UnavailableError: It is not over.
    """
    if task.status is not TaskStatus.COMPLETED:
        kind = RefusedError if task.status.final else UnavailableError
        raise kind(f"Task {task.id} has no result: it is {task.status}.")


class Gates(ABC):
    """The methods for sessions, of a provider whose service has none.

    Attributes:
        backend: The service's name of the QPU.
    """

    backend: str

    @abstractmethod
    def pending_tasks(self, tag: str) -> list[str]:
        """List the tasks that have a tag and are not over: their ids; a gate's id is a tag, too."""

    @abstractmethod
    def tasks_of(self, tag: str) -> list[TaskUsage]:
        """List the tasks on this QPU that have a tag, with their times, the oldest first; likewise."""

    @abstractmethod
    def tagged(self, tag: str) -> list[Task]:
        """List the same tasks, with their tags and their gates, the oldest first."""

    @abstractmethod
    def task(self, task_id: str) -> Task:
        """Read a task's state."""

    @abstractmethod
    def result(self, task_id: str) -> Iterator[bytes]:
        """Read a completed task's result text, in pieces."""

    @abstractmethod
    def cancel_task(self, task_id: str) -> None:
        """Cancel a task. One that is over already is fine."""

    @abstractmethod
    def delete_task(self, task_id: str) -> None:
        """Delete a task that is over, and its data. Deleted already is fine.

        Raises:
            RefusedError: It is not over.
        """

    @property
    def waits(self) -> bool:
        """Whether the service waits for results."""
        return False

    def early_result(self, task_id: str, *, wait: int = 0) -> Iterator[bytes] | None:
        """Ask for a result that may not be there: only the task's state tells."""
        del wait
        return None if self.task(task_id).status is not TaskStatus.COMPLETED else self.result(task_id)

    def kept_gates(self) -> set[str]:
        """List the gates of the tasks on this QPU that the service keeps, whoever's they are.

        A service that cannot list tasks has none.
        """
        return set()

    def open_session(self, max_ttl: int, *, known: Collection[str] = (), look_up: bool = True) -> Session:
        """Open a gate: nothing is asked of the service."""
        del known, look_up
        return self._gate(f"gate-{uuid.uuid4().hex}", datetime.now(UTC), max_ttl)

    def session(self, session_id: str) -> Session:
        """Return a gate, which takes tasks as long as its lease is held: nothing is asked of the service."""
        return self._gate(_checked(session_id))

    def usage(self, session_id: str) -> SessionUsage:
        """Read what a gate's tasks have used: all that they ran is charged, and nothing else."""
        tasks = tuple(self.tasks_of(_checked(session_id)))
        over = all(task.status is not None and task.status.final for task in tasks)
        return SessionUsage(
            state=SessionState.CLOSED if over else SessionState.ACTIVE,
            locked_seconds=sum(task.seconds for task in tasks),
            tasks=tasks,
        )

    def is_busy(self, session_id: str) -> bool:
        """Ask whether a task of the gate runs or waits."""
        return bool(self.pending_tasks(_checked(session_id)))

    def close_session(self, session_id: str) -> None:
        """Let the gate's tasks finish. That it takes no more is up to whoever holds the journal."""
        _checked(session_id)

    def cancel_session(self, session_id: str) -> None:
        """Cancel whatever waits or runs in the gate. Ended already is fine."""
        for task_id in self.pending_tasks(_checked(session_id)):
            with suppress(NotFoundError):
                self.cancel_task(task_id)

    def forget_session(self, session_id: str) -> None:
        """Delete the gate's tasks, all of which are over: they hold places and data."""
        for task in self.tasks_of(_checked(session_id)):
            self.delete_task(task.id)

    def unclaimed_sessions(self, since: datetime, *, known: Collection[str] = ()) -> list[Session]:
        """List none: no creation's answer can get lost."""
        del since, known
        return []

    def live_sessions(self, since: datetime) -> list[LiveSession]:
        """List none: the service does not know them."""
        del since
        return []

    def closed_sessions(self, since: datetime) -> frozenset[str]:
        """List none: the service closes no gate."""
        del since
        return frozenset()

    def sessions_of_tasks(self, tag: str, *, since: datetime | None = None) -> Iterator[str]:
        """List the gates of the tasks that have a tag; see the protocol."""
        found = [
            task.session_id
            for task in reversed(self.tagged(tag))
            if task.session_id is not None
            and (since is None or task.created_at is None or task.created_at >= since - _CLOCK_DOUBT)
        ]
        return iter(dict.fromkeys(found))

    def _gate(self, session_id: str, created_at: datetime | None = None, max_ttl: int = 0) -> Session:
        return Session(
            id=session_id,
            backend=self.backend,
            state=SessionState.OPEN,
            accepting_tasks=True,
            created_at=created_at,
            ends_at=None if created_at is None else created_at + timedelta(seconds=max_ttl),
        )


def _checked(session_id: str) -> str:
    """Return the id of a gate.

    Raises:
        NotFoundError: It is none.
    """
    if not _GATE.fullmatch(session_id):
        raise NotFoundError(f"There is no gate {session_id[:64]!r}.")
    return session_id
