# SPDX-License-Identifier: Apache-2.0
"""One input's way to its result: read, checked, submitted, waited for, written."""

from __future__ import annotations

import time
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

from qpu_slurm.errors import Refused, ServiceError
from qpu_slurm.job.variables import step_mark
from qpu_slurm.providers.base import TaskStatus
from qpu_slurm.runner.exit_codes import Exit, exit_of
from qpu_slurm.runner.record import Record
from qpu_slurm.runner.summary import ALREADY_DONE, TaskSummary
from qpu_slurm.system.atomic_file import Output
from qpu_slurm.tasks import overrides
from qpu_slurm.tasks.execution import Execution, new_tags

if TYPE_CHECKING:
    from pathlib import Path

    from qpu_slurm.providers.base import Task
    from qpu_slurm.runner.console import TaskConsole
    from qpu_slurm.runner.context import Context
    from qpu_slurm.tasks.payload import Payload


class Item:
    """One input's way.

    Args:
        context: What it has in common with others.
        summary: Where what becomes of it is written down.
        output: Where its result goes.
        console: What reports on it.

    Attributes:
        over: Whether there is nothing more to do.
        error: What it failed of.
        console: What reports on it.
    """

    def __init__(
        self, context: Context, summary: TaskSummary, output: Path | None, console: TaskConsole
    ) -> None:
        self.summary = summary
        self.over = False
        self.error: BaseException | None = None
        self.console = console
        self._context = context
        self._place = output
        self._stack = ExitStack()
        self._output: Output | None = None
        self._execution: Execution | None = None
        self._record: Record | None = None
        self._begun_at = time.monotonic()

    @property
    def due(self) -> float:
        """When to poll next, on the monotonic clock."""
        return self._execution.due if self._execution else 0.0

    def begin(self) -> None:
        """Submit it, unless it is done, or its task is there already."""
        try:
            self._begin()
        except Exception as error:  # noqa: BLE001 - whatever it is, it is this input's alone
            self._fail(error)

    def poll(self) -> None:
        """Look whether its task is over, and take the result."""
        try:
            task = self._execution.poll() if self._execution else None
            if task is not None:
                self._take(task)
        except Exception as error:  # noqa: BLE001 - likewise
            self._fail(error)

    def restart_clock(self) -> None:
        """Do not count against its task that it waited behind another of this call."""
        if self._execution is not None:
            self._execution.restart_clock()

    def abandon(self, error: BaseException, *, cancel: bool) -> None:
        """Stop here: nobody waits for it any more.

        Args:
            error: Why.
            cancel: Whether there is time to cancel its task.
        """
        if self.over:
            return
        if self._execution is not None:
            self._execution.leave = not cancel
        try:
            self._close(error)
        finally:
            self.summary.end(Exit.CANCELLED, self.console.fate)

    def _begin(self) -> None:
        context, options = self._context, self._context.options
        task_input = context.load(self.summary.input)
        self.summary.program_id = task_input.program_id
        known = None
        if options.records and self._place is not None:
            digest = overrides.fingerprint(task_input, context.qpu.name)
            known = Record.read(self._place, digest)
            if known and known.proves(self._place):
                self.summary.task_id, self.summary.session_id = known.task_id, known.session_id
                self.console.fate = ""
                self.console.say(f"done before, by task {known.task_id}")
                self._end(Exit.COMPLETED, reason=ALREADY_DONE)
                return
            self._record = Record(input_sha256=digest, task_id="", session_id="")
        # Whether the result can be written is found out before anything is submitted.
        self._output = self._stack.enter_context(Output(self._place))
        execution = Execution(context.provider, self.console, timeout=options.timeout)
        self._stack.enter_context(execution)
        self._execution = execution
        if known and self._goes_on(known):
            self._record = known
            execution.adopt(known.task_id)
            self.summary.session_id = known.session_id
        else:
            if not options.any_backend:
                context.calibration.refuse_misfit(
                    self.summary.input, task_input.transpiled_for, "To submit it all the same: --any-backend."
                )
            task_input.warn(self.summary.input)
            self._submit(execution, task_input)
        self.summary.task_id = execution.task_id
        if task_input.transpiled_for is not None:
            # Now, since the QPU is at work; an input that says nothing of it costs no request.
            context.calibration.compare(self.summary.input, task_input.transpiled_for)

    def _submit(self, execution: Execution, task_input: Payload) -> None:
        context = self._context
        # With records, the next call goes on with the task of one that was killed.
        step = None if context.options.records else step_mark(context.environ)
        tags = new_tags(context.qpu, context.environ, context.options.tags, step=step)
        self._begun_at = time.monotonic()
        # A signal between a request and its answer would leave a task behind whose id nobody knows.
        with context.signals.held():
            session_id = context.session.submit(
                execution, task_input, tags=tags, cost=context.qpu.task_timeout
            )
        self.summary.tags, self.summary.submitted_at = tags, datetime.now(UTC)
        self.summary.session_id = session_id
        if self._record is not None:
            self._record.task_id, self._record.session_id = execution.task_id or "", session_id
        self._write_record("submitted")
        context.console.debug(f"backend {context.qpu.backend}, session {session_id}, tags {' '.join(tags)}")

    def _goes_on(self, known: Record) -> bool:
        """Tell whether a task that was submitted before may still bring a result."""
        try:
            status = self._context.provider.task(known.task_id).status
        except Refused:
            return False  # it is gone, or was another job's, or another run's behind the gateway
        return status is TaskStatus.COMPLETED or not status.final

    def _take(self, task: Task) -> None:
        """Take what the task has come to."""
        execution, output = self._execution, self._output
        if execution is None or output is None:
            raise RuntimeError("nothing was submitted")
        self._context.console.debug(f"asked {execution.polls + 1} times")
        if task.status is TaskStatus.COMPLETED:
            output.write(execution.result())
            self._write_record("completed")
            self.console.written(output.name)
            self._end(Exit.COMPLETED)
        elif task.status is TaskStatus.CANCELLED:
            message = f"task {task.id} was cancelled on the service's side. {task.reason}".rstrip()
            self.console.error(message)
            self._end(Exit.CANCELLED, message)
        else:
            self.console.failed(task, execution.log_tail())
            self._end(Exit.FAILED, f"task {task.id} failed. {task.reason}".rstrip())

    def _write_record(self, status: Literal["submitted", "completed"]) -> None:
        """Write beside the result how far it is, where that is wanted."""
        if self._record is None or self._place is None:
            return
        self._record.status = status
        self._record.output_bytes = self._place.stat().st_size if status == "completed" else None
        self._record.write(self._place)

    def _end(self, code: Exit, message: str = "", reason: str = "") -> None:
        """Write down how it ended, by no error of ours."""
        self.summary.end(code, message, reason=reason)
        self._close(None)
        self._measure()

    def _fail(self, error: Exception) -> None:
        """Say what went wrong, and write it down."""
        self.error = error
        code = exit_of(error)
        message = str(error)
        if code is Exit.INTERNAL:
            message = f"an error of task_runner itself: {type(error).__name__}: {error}"
        self.summary.end(code, message)
        try:
            self._close(error)
        finally:
            self.console.give_up(message, error)
        self._measure()

    def _measure(self) -> None:
        """Write down how long it took; the service is asked for its part only if somebody reads it."""
        if self._execution is None or self._execution.task_id is None:
            return
        self.summary.total_seconds = round(time.monotonic() - self._begun_at, 3)
        if self._context.options.summary is None or isinstance(self.error, ServiceError):
            return
        with suppress(ServiceError):
            self.summary.took(self._context.provider.times(self._execution.task_id))

    def _close(self, error: BaseException | None) -> None:
        """Give back what it holds; a task that is not over is cancelled."""
        self.over = True
        if self._execution is not None:
            self.summary.task_id = self._execution.task_id
        self._stack.__exit__(type(error) if error else None, error, error.__traceback__ if error else None)
