# SPDX-License-Identifier: Apache-2.0
"""One QPU at work: its queue, the task that runs, and the session that holds it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Generic, TypeVar

from qpu_slurm_devkit.emulator.machine import Machine
from qpu_slurm_devkit.emulator.record import Event, EventKind
from qpu_slurm_devkit.emulator.sessions import Session, SessionState
from qpu_slurm_devkit.emulator.tasks import Outcome, Task, TaskStatus

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from qpu_slurm_devkit.emulator.clock import Clock
    from qpu_slurm_devkit.emulator.record import Record
    from qpu_slurm_devkit.emulator.settings import Settings

AnyMachine = TypeVar("AnyMachine", bound=Machine)

_SESSION_CLOSED = 1217
_RAN_TOO_LONG = 1305
_INTERNAL_ERROR = 9999


class Qpu(Generic[AnyMachine]):
    """Runs tasks one at a time, those of the session that holds it before all others.

    Args:
        backend: What it is.
        settings: Times to live.
        clock: The emulator's time.
        record: Where its events go.
        execute: Executes a task, whatever happens; cancelled when the task is.
    """

    def __init__(
        self,
        backend: AnyMachine,
        settings: Settings,
        clock: Clock,
        record: Record,
        execute: Callable[[Task], Awaitable[Outcome]],
    ) -> None:
        self.backend = backend
        self._settings = settings
        self._clock = clock
        self._record = record
        self._execute = execute
        self.queue: list[Task] = []
        self.running: Task | None = None
        self._execution: asyncio.Task[None] | None = None
        self._holder: Session | None = None

    @property
    def pending(self) -> int:
        """How many tasks wait or run."""
        return len(self.queue) + (self.running is not None)

    def position(self, task: Task) -> int | None:
        """Tell a task's place in the queue, from 1."""
        return self.queue.index(task) + 1 if task in self.queue else None

    def open(self, session: Session) -> None:
        """Take a new session. Nothing is locked before its first task runs."""
        self._note(EventKind.SESSION_OPENED, session=session)
        self._watch_idle(session)

    def submit(self, task: Task) -> None:
        """Put a task into the queue."""
        self.queue.append(task)
        if task.session:
            task.session.cancel_alarms("idle_ttl", "interactive_ttl")
        self._note(EventKind.TASK_QUEUED, task=task)
        self.proceed()

    def cancel(self, task: Task, outcome: Outcome | None = None) -> None:
        """End a task, waiting or running."""
        outcome = outcome or Outcome(status=TaskStatus.CANCELLED, reason="Cancelled by the user.")
        if task is self.running and self._execution is not None:
            self._execution.cancel()
            self._finish(task, outcome)
        elif task in self.queue:
            self.queue.remove(task)
            self._end(task, outcome)
            self._after(task)
            self.proceed()

    def close(self, session: Session) -> None:
        """Take no more tasks of a session; it is closed as soon as those that it has are over."""
        if session.state is SessionState.CLOSED:
            return
        session.accepting_tasks = False
        if not self._has_tasks(session):
            self.end_session(session, "Session was closed by the user.")

    def end_session(self, session: Session, reason: str) -> None:
        """Close a session now: what waits in it fails, what runs goes on to its end."""
        if session.state is SessionState.CLOSED:
            return
        now = self._clock.now()
        session.enter(SessionState.CLOSED, now, reason)
        self._note(EventKind.SESSION_CLOSED, session=session, reason=reason)
        for task in [task for task in self.queue if task.session is session]:
            self.queue.remove(task)
            failed = Outcome(
                status=TaskStatus.FAILED, reason="Session has been closed.", reason_code=_SESSION_CLOSED
            )
            self._end(task, failed)
        if self.running is None or self.running.session is not session:
            self._release(session)
        self.proceed()

    def proceed(self) -> None:
        """Run the next task, if the QPU is up and free."""
        if self.running is not None or not self.backend.up:
            return
        candidates = (t for t in self.queue if self._holder is None or t.session is self._holder)
        task = next(candidates, None)
        if task is None:
            return
        self.queue.remove(task)
        self.running = task
        now = self._clock.now()
        if task.session:
            self._activate(task.session, now)
        task.run(now)
        self._note(EventKind.TASK_RUNNING, task=task)
        self._execution = asyncio.create_task(self._run(task))

    def reset(self) -> None:
        """End what runs, forget what waits, and be up."""
        if self._execution is not None:
            self._execution.cancel()
        self.queue.clear()
        self.running = self._execution = self._holder = None
        self.backend.set_status("active", "")
        self.backend.calibrate(None)

    async def _run(self, task: Task) -> None:
        """Execute a task, as long as it may take."""
        too_long = Outcome(
            status=TaskStatus.TOO_LONG,
            reason="Job ran longer than maximum execution time.",
            reason_code=_RAN_TOO_LONG,
        )
        limit = self._clock.at(self._clock.now() + task.cost, lambda: self.cancel(task, too_long))
        try:
            outcome = await self._execute(task)
        except Exception as error:  # noqa: BLE001 (whatever goes wrong, the QPU has to be free again)
            outcome = Outcome(
                status=TaskStatus.FAILED, reason=f"Internal error: {error}", reason_code=_INTERNAL_ERROR
            )
        finally:
            limit.cancel()
        self._finish(task, outcome)

    def _finish(self, task: Task, outcome: Outcome) -> None:
        """The QPU is done with a task."""
        self.running = None
        self._execution = None
        self._end(task, outcome)
        self._after(task)
        self.proceed()

    def _end(self, task: Task, outcome: Outcome) -> None:
        """Write down how a task ended."""
        task.end(outcome, self._clock.now())
        self._note(EventKind.TASK_DONE, task=task, reason=outcome.status)

    def _activate(self, session: Session, now: float) -> None:
        """A session's task starts: it holds the QPU from now on."""
        session.cancel_alarms("interactive_ttl", "idle_ttl")
        session.last_task_started = now
        if session.dedicated:
            self._holder = session
        if session.state is SessionState.ACTIVE:
            return
        first = session.activated_at is None
        session.enter(SessionState.ACTIVE, now)
        self._note(EventKind.SESSION_ACTIVE, session=session)
        if first:
            expire = self._ender(session, "Session reached its maximum time to live.")
            session.alarms["max_ttl"] = self._clock.at(now + session.max_ttl, expire)

    def _after(self, task: Task) -> None:
        """A task of a session is over: see what becomes of the session."""
        session = task.session
        if session is None:
            return
        now = self._clock.now()
        session.last_task_done = now
        if self._has_tasks(session):
            return
        if session.state is SessionState.CLOSED:
            self._release(session)
        elif not session.accepting_tasks:
            self.end_session(session, "Session was closed by the user.")
        else:
            self._watch_idle(session)
            if session.state is SessionState.ACTIVE:
                when = now + session.interactive_ttl
                session.alarms["interactive_ttl"] = self._clock.at(when, lambda: self._deactivate(session))

    def _deactivate(self, session: Session) -> None:
        """A session's time to wait for its next task is over."""
        session.enter(SessionState.INACTIVE, self._clock.now(), "Interactive time to live reached.")
        self._note(EventKind.SESSION_INACTIVE, session=session)
        self._release(session)
        self.proceed()

    def _release(self, session: Session) -> None:
        """The session holds the QPU no more."""
        session.unlock(self._clock.now())
        if self._holder is session:
            self._holder = None

    def _watch_idle(self, session: Session) -> None:
        """Close a session that gets no task for too long."""
        session.cancel_alarms("idle_ttl")
        expire = self._ender(session, "Session had no jobs for too long.")
        session.alarms["idle_ttl"] = self._clock.at(self._clock.now() + self._settings.idle_ttl, expire)

    def _ender(self, session: Session, reason: str) -> Callable[[], None]:
        return lambda: self.end_session(session, reason)

    def _has_tasks(self, session: Session) -> bool:
        """Tell whether a task of the session waits or runs."""
        if self.running is not None and self.running.session is session:
            return True
        return any(task.session is session for task in self.queue)

    def _note(
        self,
        kind: EventKind,
        *,
        session: Session | None = None,
        task: Task | None = None,
        reason: str = "",
    ) -> None:
        """Write an event down."""
        subject = task or session
        if subject is None:
            return
        event = Event(
            time=self._clock.now(),
            kind=kind,
            backend=self.backend.name,
            account=subject.account.name,
            session_id=task.session_id if task else subject.id,
            task_id=task.id if task else None,
            reason=reason,
            tags=task.tags if task else (),
        )
        self._record.events.append(event)
