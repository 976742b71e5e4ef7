# SPDX-License-Identifier: Apache-2.0
"""Services without sessions: what their providers do more, and what they answer where sessions are asked for.

Such a service runs whatever comes with its credential, so nothing there begins or ends a job's turn. What is
a job's are the tasks that carry its tag: they are found by that, cancelled, and deleted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from qpu_slurm.errors import NotFoundError, RefusedError
from qpu_slurm.providers.base import Provider

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from datetime import datetime
    from typing import NoReturn

    from qpu_slurm.providers.base import LiveSession, Session, SessionUsage, TaskUsage


class SessionlessProvider(Provider, Protocol):
    """One QPU of a service without sessions."""

    def tasks_of(self, tag: str) -> list[TaskUsage]:
        """List the tasks on this QPU that have a tag, with their times, the oldest first.

        Args:
            tag: What their submitter wrote on them.
        """

    def delete_task(self, task_id: str) -> None:
        """Delete a task that is over, and its data. Deleted already is fine.

        Raises:
            RefusedError: It is not over.
        """


class WithoutSessions:
    """The methods for sessions, of a provider whose service has none: there are none, and none is opened."""

    def open_session(self, max_ttl: int, *, known: Collection[str] = ()) -> Session:
        """Refuse to create a session."""
        del max_ttl, known
        raise RefusedError("This quantum service has no sessions.")

    def session(self, session_id: str) -> Session:
        """Find no session."""
        _not_found(session_id)

    def usage(self, session_id: str) -> SessionUsage:
        """Find no session."""
        _not_found(session_id)

    def is_busy(self, session_id: str) -> bool:
        """Find no session."""
        _not_found(session_id)

    def close_session(self, session_id: str) -> None:
        """Find no session."""
        _not_found(session_id)

    def cancel_session(self, session_id: str) -> None:
        """Find no session."""
        _not_found(session_id)

    def unclaimed_sessions(self, since: datetime, *, known: Collection[str] = ()) -> list[Session]:
        """List no sessions."""
        del since, known
        return []

    def live_sessions(self, since: datetime) -> list[LiveSession]:
        """List no sessions."""
        del since
        return []

    def closed_sessions(self, since: datetime) -> frozenset[str]:
        """List no sessions."""
        del since
        return frozenset()

    def sessions_of_tasks(self, tag: str, *, since: datetime | None = None) -> Iterator[str]:
        """List no sessions."""
        del tag, since
        return iter(())


def _not_found(session_id: str) -> NoReturn:
    raise NotFoundError(f"There is no session {session_id[:64]!r}: this quantum service has no sessions.")
