# SPDX-License-Identifier: Apache-2.0
"""One input's way to its result: read, checked, submitted, waited for, written."""

from __future__ import annotations

import time
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

from qpu_slurm.errors import RefusedError, ServiceError
from qpu_slurm.job.variables import step_mark
from qpu_slurm.providers.base import TaskStatus
from qpu_slurm.runner.exit_codes import Exit, exit_and_message
from qpu_slurm.runner.record import Record
from qpu_slurm.runner.signals import Stopped
from qpu_slurm.runner.summary import ALREADY_DONE, TaskSummary
from qpu_slurm.system.atomic_file import Output
from qpu_slurm.tasks import overrides
from qpu_slurm.tasks.execution import Execution, new_tags
from qpu_slurm.tasks.queue import Item

if TYPE_CHECKING:
    from pathlib import Path

    from qpu_slurm.providers.base import Task
    from qpu_slurm.runner.console import TaskConsole
    from qpu_slurm.runner.context import Context
    from qpu_slurm.tasks.queue import TaskQueue


class FileItem(Item):
    """An input that task_runner was given.

    Args:
        context: What it has in common with others.
        source: The input, as it was named.
        place: Where its result goes; None is standard output.
        console: What reports on it.

    Attributes:
        outcome: What has become of it.
        error: What it failed of.
        console: What reports on it.
    """

    def __init__(self, context: Context, source: str, place: Path | None, console: TaskConsole) -> None:
        super().__init__(source)
        self.outcome = TaskSummary(input=source, output=None if place is None else str(place))
        self.error: BaseException | None = None
        self.console = console
        self._context = context
        self._place = place
        self._stack = ExitStack()
        self._output: Output | None = None
        self._record: Record | None = None
        self._tags: tuple[str, ...] = ()
        self._begun_at = time.monotonic()

    def begin(self, queue: TaskQueue[FileItem]) -> bool:
        """Submit it, unless it is done, or its task is there already."""
        context, options = self._context, self._context.options
        task_input = context.load(self.source)
        self.outcome.program_id = task_input.program_id
        known = None
        if options.records and self._place is not None:
            digest = overrides.fingerprint(task_input, context.qpu.name)
            known = Record.read(self._place, digest)
            if known and known.proves(self._place):
                self.outcome.task_id, self.outcome.session_id = known.task_id, known.session_id
                self.console.fate = ""
                self.console.say(f"done before, by task {known.task_id}")
                self.outcome.end(Exit.COMPLETED, reason=ALREADY_DONE)
                return False
            self._record = Record(input_sha256=digest, task_id="", session_id="")
        # Whether the result can be written is found out before anything is submitted.
        self._output = self._stack.enter_context(Output(self._place))
        self.execution = Execution(queue.provider, self.console, timeout=options.timeout, pace=queue.pace)
        if known and self._goes_on(known):
            self._record = known
            self.outcome.task_id, self.outcome.session_id = known.task_id, known.session_id
            queue.adopt(self, task_input, known.task_id)
            return True
        task_input.warn(self.source)
        # With records, the next call goes on with the task of one that was killed.
        step = None if options.records else step_mark(context.environ)
        self._tags = new_tags(context.qpu, context.environ, (*options.tags, *task_input.tags), step=step)
        insist = None if options.any_backend else "To submit it all the same: --any-backend."
        self._begun_at = time.monotonic()
        queue.submit(self, task_input, tags=self._tags, how_to_insist=insist)
        return True

    def accepted(self, session_id: str) -> None:
        """Write down what the task is, for the next call and for the summary."""
        task_id = self.execution.task_id if self.execution else None
        self.outcome.tags, self.outcome.submitted_at = self._tags, datetime.now(UTC)
        self.outcome.task_id, self.outcome.session_id = task_id, session_id
        if self._record is not None:
            self._record.task_id, self._record.session_id = task_id or "", session_id
        self._write_record("submitted")
        backend, tags = self._context.qpu.backend, " ".join(self._tags)
        self._context.console.debug(f"backend {backend}, session {session_id}, tags {tags}")

    def take(self, task: Task) -> None:
        """Take what the task has come to."""
        execution, output = self.execution, self._output
        if execution is None or output is None:
            raise RuntimeError("nothing was submitted")
        self._context.console.debug(f"asked {execution.polls + 1} times")
        if task.status is TaskStatus.COMPLETED:
            output.write(execution.result())
            self._write_record("completed")
            self.console.written(output.name)
            self.outcome.end(Exit.COMPLETED)
        elif task.status is TaskStatus.CANCELLED:
            message = f"task {task.id} was cancelled on the service's side. {task.reason}".rstrip()
            self.console.error(message)
            self.outcome.end(Exit.CANCELLED, message)
        else:
            self.console.failed(task, execution.log_tail())
            self.outcome.end(Exit.FAILED, f"task {task.id} failed. {task.reason}".rstrip())

    def end(self, error: BaseException | None = None) -> None:
        """Write down how it ended, and report an error of its own."""
        self.error = error
        if self.execution is not None:
            self.outcome.task_id = self.execution.task_id
        if isinstance(error, Stopped):
            self.outcome.end(Exit.CANCELLED, self.console.fate)
            self._stack.close()
            return
        if error is not None:
            self.outcome.end(*exit_and_message(error))
        try:
            self._stack.close()
        finally:
            if error is not None:
                self.console.give_up(self.outcome.message, error)
        self._measure()

    def _goes_on(self, known: Record) -> bool:
        """Tell whether a task that was submitted before may still bring a result."""
        try:
            status = self._context.provider.task(known.task_id).status
        except RefusedError:
            return False  # it is gone, or was another job's, or another run's behind the gateway
        return status is TaskStatus.COMPLETED or not status.final

    def _write_record(self, status: Literal["submitted", "completed"]) -> None:
        """Write beside the result how far it is, where that is wanted."""
        if self._record is None or self._place is None:
            return
        self._record.status = status
        self._record.output_bytes = self._place.stat().st_size if status == "completed" else None
        self._record.write(self._place)

    def _measure(self) -> None:
        """Write down how long it took; the service is asked for its part only if somebody reads it."""
        if self.execution is None or self.execution.task_id is None:
            return
        self.outcome.total_seconds = round(time.monotonic() - self._begun_at, 3)
        if self._context.options.summary is None or isinstance(self.error, ServiceError):
            return
        with suppress(ServiceError):
            self.outcome.took(self._context.provider.times(self.execution.task_id))
