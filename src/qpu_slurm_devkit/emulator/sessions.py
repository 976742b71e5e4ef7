# SPDX-License-Identifier: Apache-2.0
"""A session's life, and the document in which the service shows it.

    open ──first task starts──> active ──interactive_ttl without a task──> inactive
                                   ^                                           │
                                   └───────────────a task starts───────────────┘
    any ──closed, cancelled, max_ttl after the first task started, idle_ttl without a task──> closed

What it is charged for is the time in which it is active, waits included. (That max_ttl starts with the first
task, not with the session, is a guess.)
"""

from __future__ import annotations

import math
import uuid
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from qpu_slurm_devkit.emulator.clock import timestamp
from qpu_slurm_devkit.emulator.record import SessionRecord

if TYPE_CHECKING:
    from qpu_slurm_devkit.emulator.clock import Alarm
    from qpu_slurm_devkit.emulator.settings import Account


class SessionState(StrEnum):
    """Where a session is in its life."""

    OPEN = "open"
    ACTIVE = "active"
    INACTIVE = "inactive"
    CLOSED = "closed"


class Session:
    """One session.

    Args:
        account: Whose it is.
        backend: The QPU's name.
        mode: `dedicated`, which locks the QPU while it is active, or `batch`, which does not.
        max_ttl: Seconds that it may live after its first task started.
        interactive_ttl: Seconds that it stays active after a task.
        now: The time.
    """

    def __init__(
        self, account: Account, backend: str, mode: str, *, max_ttl: float, interactive_ttl: float, now: float
    ) -> None:
        self.id = str(uuid.uuid4())
        self.account = account
        self.backend = backend
        self.mode = mode
        self.max_ttl = max_ttl
        self.interactive_ttl = interactive_ttl
        self.state = SessionState.OPEN
        self.reason = ""
        self.accepting_tasks = True
        self.opened_at = now
        self.activated_at: float | None = None
        self.closed_at: float | None = None
        self.last_task_started: float | None = None
        self.last_task_done: float | None = None
        self.alarms: dict[str, Alarm] = {}
        self._history = [(SessionState.OPEN, now)]
        self._locked = 0.0
        self._locked_since: float | None = None

    @property
    def dedicated(self) -> bool:
        """Whether it locks the QPU while it is active."""
        return self.mode == "dedicated"

    def enter(self, state: SessionState, now: float, reason: str = "") -> None:
        """Go on to another state."""
        self.state = state
        self.reason = reason
        self._history.append((state, now))
        if state is SessionState.ACTIVE:
            self.activated_at = now
            self._locked_since = now
        if state is SessionState.CLOSED:
            self.accepting_tasks = False
            self.closed_at = now
            self.cancel_alarms("interactive_ttl", "idle_ttl", "max_ttl")

    def unlock(self, now: float) -> None:
        """Stop charging for it."""
        if self._locked_since is not None:
            self._locked += now - self._locked_since
            self._locked_since = None

    def locked_seconds(self, now: float) -> float:
        """Tell how long it has been active."""
        return self._locked + (0.0 if self._locked_since is None else now - self._locked_since)

    def cancel_alarms(self, *names: str) -> None:
        """Forget what was to happen."""
        for name in names:
            if alarm := self.alarms.pop(name, None):
                alarm.cancel()

    def document(self, now: float) -> dict[str, Any]:
        """Write it as the service does."""
        return {
            "id": self.id,
            "backend_name": self.backend,
            "mode": self.mode,
            "state": self.state,
            "state_reason": self.reason or None,
            "accepting_jobs": self.accepting_tasks,
            "interactive_ttl": math.ceil(self.interactive_ttl),
            "max_ttl": math.ceil(self.max_ttl),
            "active_ttl": max(0, math.ceil(self.max_ttl - self.locked_seconds(now))),
            "started_at": timestamp(self.opened_at),
            "activated_at": timestamp(self.activated_at),
            "closed_at": timestamp(self.closed_at),
            "last_job_started": timestamp(self.last_task_started),
            "last_job_completed": timestamp(self.last_task_done),
            "elapsed_time": round(self.locked_seconds(now), 3),
            "timestamps": [{"status": state, "timestamp": timestamp(when)} for state, when in self._history],
            "user_id": f"IBMid-{self.account.name}",
        }

    def record(self, now: float) -> SessionRecord:
        """Write it as the emulator's own record does."""
        return SessionRecord(
            id=self.id,
            backend=self.backend,
            account=self.account.name,
            mode=self.mode,
            state=self.state,
            accepting_tasks=self.accepting_tasks,
            opened_at=self.opened_at,
            activated_at=self.activated_at,
            closed_at=self.closed_at,
            max_ttl=self.max_ttl,
            locked_seconds=self.locked_seconds(now),
            reason=self.reason,
        )
