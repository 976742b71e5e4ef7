# SPDX-License-Identifier: Apache-2.0
"""What task_runner says on stderr: one plain line for each thing that happens."""

from __future__ import annotations

import logging
import sys
import time
from typing import TYPE_CHECKING, Final

from qpu_slurm.errors import AnswerLost, ServiceError
from qpu_slurm.providers.base import Task, TaskStatus
from qpu_slurm.tasks.execute import Observer

if TYPE_CHECKING:
    from qpu_slurm.errors import Unavailable

_NOTHING: Final = "nothing was submitted"
_PERHAPS: Final = "a task may have been submitted: it ends with its session"


class Voice(Observer):
    """Says what becomes of a task, and keeps in mind what somebody has to know if it goes no further.

    Args:
        level: `ERRORS`, `PROGRESS` or `DEBUG`.
    """

    ERRORS: Final = 0
    PROGRESS: Final = 1
    DEBUG: Final = 2

    def __init__(self, level: int) -> None:
        self._level = level
        self._submitted_at = self._started_at = time.monotonic()
        self._fate = _NOTHING
        # What the provider's code warns of, such as a request that is tried again, is progress here.
        log = logging.getLogger("qpu_slurm")
        log.addHandler(_Relay(self))
        log.propagate = False

    def error(self, message: str) -> None:
        """Say what went wrong."""
        # stderr may be closed or gone; that is no reason to lose a result.
        if sys.stderr is not None:
            try:
                sys.stderr.write(f"task_runner: {message}\n")
                sys.stderr.flush()
            except OSError:
                sys.stderr = None

    def say(self, message: str) -> None:
        """Say how far it is."""
        if self._level >= self.PROGRESS:
            self.error(message)

    def debug(self, message: str) -> None:
        """Say what helps to find a fault."""
        if self._level >= self.DEBUG:
            self.error(f"[{time.monotonic() - self._started_at:.3f} s] {message}")

    def give_up(self, message: str, error: BaseException) -> None:
        """Say why it ends here, and what has become of the task."""
        if self._fate == _PERHAPS and isinstance(error, ServiceError) and not isinstance(error, AnswerLost):
            self._fate = _NOTHING
        for line in (message, *getattr(error, "__notes__", ()), self._fate):
            if line:
                self.error(line)

    def submitting(self) -> None:
        """Keep in mind that there may be a task."""
        self._fate = _PERHAPS

    def submitted(self, task_id: str) -> None:
        """Say that the service has the task."""
        self._submitted_at = time.monotonic()
        self._fate = f"task {task_id} may still run: it ends with its session"
        self.say(f"submitted task {task_id}")

    def changed(self, task: Task) -> None:
        """Say that the task waits or runs."""
        if task.status is TaskStatus.COMPLETED:
            self._fate = (
                f"task {task.id} is completed, and its result stays with the service: "
                f"QiskitRuntimeService().job({task.id!r}).result()"
            )
        elif task.status.final:
            self._fate = ""
        else:
            self.say(task.status)

    def unreachable(self, error: Unavailable) -> None:
        """Say that the service is away."""
        self.say(f"asking again, since the service did not answer: {error}")

    def cancelling(self, task_id: str) -> None:
        """Say that the task is about to be cancelled."""
        self.say(f"cancelling task {task_id}")

    def cancelled(self, task_id: str) -> None:
        """Keep in mind that it was."""
        self._fate = f"task {task_id} is cancelled"

    def written(self, name: str) -> None:
        """Say that all is done."""
        self._fate = ""
        self.say(f"completed in {time.monotonic() - self._submitted_at:.2f} s, result in {name}")

    def failed(self, task: Task, log: list[str]) -> None:
        """Say why the task failed, and what the service logged at last."""
        self.error(f"task {task.id} failed. {task.reason}".rstrip())
        if log:
            self.error("the end of its log:\n" + "\n".join(f"  {line}" for line in log))


class _Relay(logging.Handler):
    """Says what is logged; logging itself would write it in another shape, and with `-q`, too."""

    def __init__(self, voice: Voice) -> None:
        super().__init__(logging.WARNING)
        self._voice = voice

    def emit(self, record: logging.LogRecord) -> None:
        """Say it."""
        self._voice.say(record.getMessage())
