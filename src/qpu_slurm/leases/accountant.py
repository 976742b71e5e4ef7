# SPDX-License-Identifier: Apache-2.0
"""The accountant: asks the service what a session was used for, once that is over, and writes it down.

What is not written down yet stands in the journal, so nothing is forgotten when a process ends: the next
look takes it up. The service may not tell at once (a session that is closed ends when its last task does), or
not at all; after a day that is written down instead: what the session was used for is unknown.
"""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec
import structlog

from qpu_slurm import providers
from qpu_slurm.errors import (
    ConfigError,
    JournalError,
    NotFoundError,
    QpuSlurmError,
    RequestError,
    ServiceError,
)
from qpu_slurm.journal.history import Lock, TaskUse
from qpu_slurm.journal.model import Lease
from qpu_slurm.providers.base import SessionState
from qpu_slurm.system.deadline import Deadline

if TYPE_CHECKING:
    from qpu_slurm.config import Config
    from qpu_slurm.journal.history import SessionUse
    from qpu_slurm.journal.journal import Journal
    from qpu_slurm.providers.base import Connect, Provider, SessionUsage

_PAUSES = (0.0, 1.0, 2.0, 10.0, 30.0, 120.0, 600.0)
"""Seconds after which a session is asked for again; the last one for as long as it may take."""

_TIMEOUT = 30.0
"""Seconds that one session's questions may take."""

_BUDGET = 30.0
"""Seconds after which a look asks for no further session: the next one does."""

_UNKNOWN = "unknown"
"""A task's status that we have no word for."""

_FORGOTTEN = "Only the user's own key could tell, and it was forgotten as the lease ended."

_log = structlog.get_logger(__name__)


class Used(msgspec.Struct, frozen=True, kw_only=True):
    """A session whose usage was written down.

    Attributes:
        lease: Whose it is.
        session_id: The session.
        locked_seconds: How long it had the QPU for itself.
        executed_seconds: How long its tasks ran.
    """

    lease: Lease
    session_id: str
    locked_seconds: float
    executed_seconds: float


class Accountant:
    """Writes down what sessions were used for. One of them looks at a time.

    Args:
        config: What the admin wrote.
        journal: Knows the sessions.
        connect: How a QPU's provider is had.
        give_up: Seconds after a session's end in which the service has to tell what it was used for.
    """

    def __init__(
        self,
        config: Config,
        journal: Journal,
        connect: Connect = providers.connect,
        *,
        give_up: float = 86_400.0,
    ) -> None:
        self._config = config
        self._journal = journal
        self._connect = connect
        self._longest = give_up
        self._tries: Counter[str] = Counter()
        self._not_before: dict[str, Deadline] = {}

    def run(self) -> list[Used]:
        """Look once: ask for every session that has ended, if it is time to ask for it again.

        Returns:
            Those of which the service has told.

        Raises:
            JournalError: The journal cannot be read or written.
        """
        sessions = self._journal.history.unaccounted()
        for forgotten in self._not_before.keys() - {session.session_id for session in sessions}:
            del self._not_before[forgotten], self._tries[forgotten]
        budget = Deadline.after(_BUDGET)
        found = []
        for session in sessions:
            if budget.passed:
                break
            due = self._not_before.get(session.session_id)
            if (due is None or due.passed) and (used := self._ask(session)):
                found.append(used)
        return found

    def _ask(self, session: SessionUse) -> Used | None:
        lease, user_key = self._journal.lease(session.lease_id), self._journal.api_key(session.lease_id)
        try:
            qpu = self._config.qpu(lease.qpu)
            if qpu.needs_user_key and user_key is None:
                self._give_up(session, _FORGOTTEN)
                return None
            access = qpu.access(user_key)
            provider = self._connect(access, deadline=Deadline.after(_TIMEOUT))
            return account(self._journal, lease, session.session_id, provider)
        except NotFoundError as error:
            self._give_up(session, str(error))
        except (ServiceError, ConfigError, RequestError, NotYetError) as error:
            age = (datetime.now(UTC) - (session.ended_at or session.opened_at)).total_seconds()
            if age > self._longest:
                self._give_up(session, str(error))
            else:
                self._put_off(session, str(error))
        return None

    def _give_up(self, session: SessionUse, why: str) -> None:
        _log.warning("usage unknown", session_id=session.session_id, why=why)
        self._journal.history.give_up(session.session_id, why)

    def _put_off(self, session: SessionUse, why: str) -> None:
        _log.info("usage not known yet", session_id=session.session_id, why=why)
        self._tries[session.session_id] += 1
        pause = _PAUSES[min(self._tries[session.session_id], len(_PAUSES) - 1)]
        self._not_before[session.session_id] = Deadline.after(pause)


class NotYetError(QpuSlurmError):
    """The service has not told yet what a session was used for."""


def account(journal: Journal, lease: Lease, session_id: str, provider: Provider) -> Used:
    """Ask what a session was used for, and write it down.

    Args:
        journal: Knows the session.
        lease: Whose it is.
        session_id: The session.
        provider: Its service.

    Raises:
        NotYetError: It is not over, or the service does not say.
        ServiceError: The service could not be asked.
        JournalError: The journal cannot be written.
    """
    usage = provider.usage(session_id)
    if usage.state is not SessionState.CLOSED:
        raise NotYetError(f"The session is {usage.state} still.")
    if usage.locked_seconds is None:
        raise NotYetError("The service does not say how long the session was active.")
    locked, executed = usage.locked_seconds, usage.executed_seconds
    tasks, locks = _tasks(session_id, usage), _locks(session_id, usage)
    if provider.features.keeps_tasks:
        # First they are written down, then deleted: whoever dies in between finds all of them, here or there.
        journal.history.note_tasks(session_id, tasks)
        provider.forget_session(session_id)
        tasks = journal.history.tasks(session_id)
        locked = executed = sum(task.seconds for task in tasks)
    journal.history.account(session_id, locked=locked, executed=executed, tasks=tasks, locks=locks)
    _log.info("session used", qpu=lease.qpu, session_id=session_id, locked=locked, executed=executed)
    return Used(lease=lease, session_id=session_id, locked_seconds=locked, executed_seconds=executed)


def account_at_release(journal: Journal, lease: Lease, provider: Provider) -> None:
    """Account for the sessions of a lease that was just ended, if the service tells at once.

    Whoever ended it has the user's key, which nobody has later.

    Args:
        journal: Knows the sessions.
        lease: The lease.
        provider: Its service, which gives up soon.
    """
    try:
        for session in journal.history.unaccounted(lease.id):
            account(journal, lease, session.session_id, provider)
    except (ServiceError, NotYetError, JournalError) as error:
        _log.info("usage not known yet", job_id=lease.job_id, qpu=lease.qpu, why=str(error))


def _tasks(session_id: str, usage: SessionUsage) -> list[TaskUse]:
    return [
        TaskUse(
            task_id=task.id,
            session_id=session_id,
            status=task.status or _UNKNOWN,
            created_at=task.created_at,
            started_at=task.started_at,
            ended_at=task.ended_at,
            seconds=task.seconds,
        )
        for task in usage.tasks
    ]


def _locks(session_id: str, usage: SessionUsage) -> list[Lock]:
    return [Lock(session_id=session_id, began_at=begin, ended_at=end) for begin, end in usage.active]
