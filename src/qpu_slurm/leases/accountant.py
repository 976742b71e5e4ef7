# SPDX-License-Identifier: Apache-2.0
"""The accountant: records the usage of ended sessions, as the service reports it.

The journal lists the sessions whose usage is missing, so a restart forgets none. The service may report the
usage late, since a closed session ends with its last task, or never. After a day, the accountant records the
usage as unknown.
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
    from qpu_slurm.config.budgets import BudgetsConfig
    from qpu_slurm.journal.history import SessionUse
    from qpu_slurm.journal.journal import Journal
    from qpu_slurm.providers.base import Connect, Provider, SessionUsage

_PAUSES = (0.0, 1.0, 2.0, 10.0, 30.0, 120.0, 600.0)
"""Seconds between two queries for one session. The last value repeats."""

_TIMEOUT = 30.0
"""Seconds for all queries about one session."""

_BUDGET = 30.0
"""Seconds after which a run starts with no further session and leaves the rest to the next run."""

_FORGOTTEN = "Only the user's own key could tell, and it was forgotten as the lease ended."

_log = structlog.get_logger(__name__)


class Used(msgspec.Struct, frozen=True, kw_only=True):
    """A session whose usage was recorded.

    Attributes:
        lease: Its lease.
        session_id: The session.
        locked_seconds: How long it had the QPU to itself.
        executed_seconds: How long its tasks ran.
    """

    lease: Lease
    session_id: str
    locked_seconds: float
    executed_seconds: float


class Accountant:
    """Records the usage of sessions. Only one accountant may run at a time.

    Args:
        config: The configuration.
        journal: The journal.
        connect: Returns the provider of a QPU.
        give_up: Seconds after the end of a session until its usage is recorded as unknown.
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
        """Query the usage of every ended session that is due.

        Returns:
            The sessions whose usage the service reported.

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
            return account(self._config.budgets, self._journal, lease, session.session_id, provider)
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
    """The service has not reported the usage of a session yet."""


def account(
    prices: BudgetsConfig, journal: Journal, lease: Lease, session_id: str, provider: Provider
) -> Used:
    """Query the usage of a session, and record it.

    Args:
        prices: What it costs.
        journal: The journal.
        lease: The session's lease.
        session_id: The session.
        provider: Its service.

    Raises:
        NotYetError: The session, or its last task, has not ended; or the service does not report its usage
            yet.
        ServiceError: The service does not answer.
        JournalError: The journal cannot be written.
    """
    usage = provider.usage(session_id)
    if usage.state is not SessionState.CLOSED:
        raise NotYetError(f"The session is {usage.state} still.")
    if any(task.status is not None and not task.status.final for task in usage.tasks):
        # Closed at the end of its life: what runs then goes on, and is billed.
        raise NotYetError("A task of the session runs still.")
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
    cost = prices.cost(lease.qpu, locked, executed)
    journal.history.account(session_id, locked=locked, executed=executed, tasks=tasks, locks=locks, cost=cost)
    _log.info("session used", qpu=lease.qpu, session_id=session_id, locked=locked, executed=executed)
    return Used(lease=lease, session_id=session_id, locked_seconds=locked, executed_seconds=executed)


def account_at_release(prices: BudgetsConfig, journal: Journal, lease: Lease, provider: Provider) -> None:
    """Account for the sessions of a lease that just ended, if the service reports their usage at once.

    The code that ends a lease has the user's key. Later, no process has it.

    Args:
        prices: What it costs.
        journal: The journal.
        lease: The lease.
        provider: Its service, with an early deadline.
    """
    try:
        for session in journal.history.unaccounted(lease.id):
            account(prices, journal, lease, session.session_id, provider)
    except (ServiceError, NotYetError, JournalError) as error:
        _log.info("usage not known yet", job_id=lease.job_id, qpu=lease.qpu, why=str(error))


def _tasks(session_id: str, usage: SessionUsage) -> list[TaskUse]:
    return [TaskUse.of(task, session_id) for task in usage.tasks]


def _locks(session_id: str, usage: SessionUsage) -> list[Lock]:
    return [Lock(session_id=session_id, began_at=begin, ended_at=end) for begin, end in usage.active]
