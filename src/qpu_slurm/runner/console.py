# SPDX-License-Identifier: Apache-2.0
"""What task_runner says on stderr: one plain line for each thing that happens.

On a terminal, what passes (waiting, running, for how long) is one line at the bottom, written anew in its
place.
"""

from __future__ import annotations

import logging
import sys
import time
import traceback
from typing import TYPE_CHECKING, Final

from qpu_slurm.errors import AnswerLostError, QpuSlurmError, ServiceError
from qpu_slurm.providers.base import Task, TaskStatus
from qpu_slurm.runner.signals import Stopped
from qpu_slurm.runner.status_line import StatusLine
from qpu_slurm.system.deadline import Deadline
from qpu_slurm.tasks.execution import Observer

if TYPE_CHECKING:
    from qpu_slurm.errors import UnavailableError

_NOTHING: Final = "nothing was submitted"
_PERHAPS: Final = "a task may have been submitted: it ends with its session"
_TICK: Final = 0.5
"""Seconds after which the line on a terminal is written anew."""


class Console:
    """Speaks for the whole call.

    Args:
        level: `ERRORS`, `PROGRESS` or `DEBUG`.
    """

    ERRORS: Final = 0
    PROGRESS: Final = 1
    DEBUG: Final = 2

    def __init__(self, level: int) -> None:
        self.level = level
        self.total = 1
        self.over = 0
        self._started_at = time.monotonic()
        self._next_tick = Deadline.after(0)
        self._line = StatusLine.of(sys.stderr) if level >= self.PROGRESS else None
        self._tasks: list[TaskConsole] = []
        # What the provider's code warns of, such as a request that is tried again, is progress here.
        log = logging.getLogger("qpu_slurm")
        log.addHandler(_Relay(self))
        log.propagate = False

    def error(self, message: str) -> None:
        """Say what went wrong."""
        text = f"task_runner: {message}\n"
        self._write(self._line.above(text) if self._line else text)

    def say(self, message: str) -> None:
        """Say how far it is."""
        if self.level >= self.PROGRESS:
            self.error(message)

    def debug(self, message: str) -> None:
        """Say what helps to find a fault."""
        if self.level >= self.DEBUG:
            self.error(f"[{time.monotonic() - self._started_at:.3f} s] {message}")

    def passing(self, message: str) -> None:
        """Say what will be otherwise soon: on a terminal, the line shows it."""
        if self._line:
            self.refresh()
        else:
            self.say(message)

    def task(self, label: str = "") -> TaskConsole:
        """Return who speaks for one task; the label tells it from others."""
        console = TaskConsole(self, f"{label}: " if label else "")
        self._tasks.append(console)
        return console

    def ended(self, task: TaskConsole) -> None:
        """Forget a task: all about it has been said."""
        self._tasks.remove(task)
        self.over += 1
        self.refresh()

    def give_up(self, message: str, error: BaseException) -> None:
        """Say why it ends here, and what has become of the tasks."""
        for line in (message, *getattr(error, "__notes__", ())):
            self.error(line)
        for fate in [task.fate_line() for task in self._tasks] or [_NOTHING]:
            if fate:
                self.error(fate)
        if not isinstance(error, QpuSlurmError | Stopped):
            self.trace(error)

    def trace(self, error: BaseException) -> None:
        """Show where an error of our own came from."""
        self.error("please report it, with these lines:\n" + "".join(traceback.format_exception(error)))

    def sleep(self, seconds: float) -> None:
        """Wait, and let the line show how the time passes."""
        end = Deadline.after(seconds)
        while self._line and self._next_tick < end:
            time.sleep(self._next_tick.left)
            self.refresh()
        if left := end.left:  # sleeping for no time at all takes some
            time.sleep(left)

    def refresh(self) -> None:
        """Write the line anew."""
        if self._line:
            self._next_tick = Deadline.after(_TICK)
            text = self._status()
            self._write(self._line.show(f"task_runner: {text}" if text else ""))

    def close(self) -> None:
        """Take the line away."""
        if self._line:
            self._write(self._line.show(""))
            self._line = None

    def _status(self) -> str:
        """Say in one line how far it is."""
        waiting = [task for task in self._tasks if task.status]
        if self.total == 1:
            return waiting[0].state() if waiting else ""
        states = [f"{self.over} of {self.total} done"]
        states += [f"{task.prefix}{task.state()}" for task in waiting if task.status is TaskStatus.RUNNING]
        queued = sum(task.status is TaskStatus.QUEUED for task in waiting)
        return ", ".join(states + ([f"{queued} queued"] if queued else []))

    def _write(self, text: str) -> None:
        # stderr may be closed or gone; that is no reason to lose a result.
        if sys.stderr is not None and text:
            try:
                sys.stderr.write(text)
                sys.stderr.flush()
            except OSError:
                sys.stderr = None


class TaskConsole(Observer):
    """Says what becomes of one task, and keeps in mind what somebody has to know if it goes no further.

    Args:
        console: The call's.
        prefix: What every line begins with, to tell the task from others.
    """

    def __init__(self, console: Console, prefix: str) -> None:
        self.prefix = prefix
        self.wants_position = console.level >= console.PROGRESS
        self.status: TaskStatus | None = None
        self.fate = _NOTHING
        self._console = console
        self._since = self._submitted_at = time.monotonic()
        self._place = ""

    def error(self, message: str) -> None:
        """Say what went wrong; what is wrong with an input begins with its name already."""
        self._console.error(message if message.startswith(self.prefix) else self.prefix + message)

    def say(self, message: str) -> None:
        """Say how far it is."""
        self._console.say(self.prefix + message)

    def state(self) -> str:
        """Say what the task does, and how long it has done so."""
        return f"{self.status}{self._place}, {int(time.monotonic() - self._since)} s"

    def fate_line(self) -> str:
        """Say what has become of it; empty if that is known."""
        return self.fate and self.prefix + self.fate

    def give_up(self, message: str, error: BaseException) -> None:
        """Say why it ends here, and what has become of the task."""
        if (
            self.fate == _PERHAPS
            and isinstance(error, ServiceError)
            and not isinstance(error, AnswerLostError)
        ):
            self.fate = _NOTHING
        for line in (message, *getattr(error, "__notes__", ()), self.fate):
            if line:
                self.error(line)
        if not isinstance(error, QpuSlurmError):
            self._console.trace(error)

    def session_opened(self, session_id: str, instead_of: str | None) -> None:
        """Say that there is another session than the job had."""
        why = f", since {instead_of} takes no more tasks" if instead_of else ""
        self.say(f"opened session {session_id}{why}")

    def refused(self, session_id: str) -> None:  # noqa: ARG002 - it is named when another one is opened
        """Keep in mind that there is no task yet."""
        self.fate = _NOTHING

    def submitting(self) -> None:
        """Keep in mind that there may be a task."""
        self.fate = _PERHAPS

    def submitted(self, task_id: str) -> None:
        """Say that the service has the task."""
        self._take(task_id)
        self.say(f"submitted task {task_id}")

    def adopted(self, task_id: str) -> None:
        """Say that the service has had the task before."""
        self._take(task_id)
        self.say(f"task {task_id} was submitted before: no other is")

    def changed(self, task: Task) -> None:
        """Say that the task waits or runs."""
        self.status = None if task.status.final else task.status
        self._since, self._place = time.monotonic(), ""
        self._console.refresh()
        if task.status is TaskStatus.COMPLETED:
            self.fate = (
                f"task {task.id} is completed, and its result stays with the service: "
                f"QiskitRuntimeService().job({task.id!r}).result()"
            )
        elif task.status.final:
            self.fate = ""
        else:
            self._console.passing(self.prefix + task.status)

    def moved(self, position: int) -> None:
        """Say what place in the queue the task has."""
        self._place = f", place {position} in the queue"
        self._console.passing(f"{self.prefix}{TaskStatus.QUEUED}{self._place}")

    def sleep(self, seconds: float) -> None:
        """Wait, and show that on a terminal."""
        self._console.sleep(seconds)

    def unreachable(self, error: UnavailableError) -> None:
        """Say that the service is away."""
        self.say(f"asking again, since the service did not answer: {error}")

    def cancelling(self, task_id: str) -> None:
        """Say that the task is about to be cancelled."""
        self.say(f"cancelling task {task_id}")

    def cancelled(self, task_id: str) -> None:
        """Keep in mind that it was."""
        self.fate = f"task {task_id} is cancelled"

    def written(self, name: str) -> None:
        """Say that all is done."""
        self.fate = ""
        self.say(f"completed in {time.monotonic() - self._submitted_at:.2f} s, result in {name}")

    def failed(self, task: Task, log: list[str]) -> None:
        """Say why the task failed, and what the service logged at last."""
        self.error(f"task {task.id} failed. {task.reason}".rstrip())
        if log:
            self.error("the end of its log:\n" + "\n".join(f"  {line}" for line in log))

    def _take(self, task_id: str) -> None:
        self._submitted_at = time.monotonic()
        self.fate = f"task {task_id} may still run: it ends with its session"


class _Relay(logging.Handler):
    """Says what is logged; logging itself would write it in another shape, and all of it with `-q`."""

    def __init__(self, console: Console) -> None:
        super().__init__(logging.WARNING)
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        """Say it; that a result will lack something is said with `-q`, too."""
        lost = getattr(record, "about_result", False)
        (self._console.error if lost else self._console.say)(record.getMessage())
