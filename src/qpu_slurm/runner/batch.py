# SPDX-License-Identifier: Apache-2.0
"""All inputs of a call, in order: how many are with the service at once, and when the rest is given up."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from qpu_slurm.errors import OutputError, QpuSlurmError, ServiceError
from qpu_slurm.runner.exit_codes import Exit
from qpu_slurm.runner.item import FileItem
from qpu_slurm.runner.signals import Stopped
from qpu_slurm.runner.summary import ALREADY_DONE, NOT_EXECUTED, TaskSummary

if TYPE_CHECKING:
    from qpu_slurm.runner.context import Context
    from qpu_slurm.tasks.queue import TaskQueue


class Batch:
    """Brings the inputs of a call to their results.

    Args:
        context: What they have in common.

    Attributes:
        outcomes: What has become of each input, in their order; all are there once `run` is left.
        session_closing: Whether the session takes no more tasks (`--final`); None if that was not asked for.
    """

    def __init__(self, context: Context) -> None:
        self.outcomes: list[TaskSummary] = []
        self.session_closing = False if context.options.final else None
        self._context = context
        self._queue: TaskQueue[FileItem] = context.queue
        self._several = context.options.records
        self._waiting = deque(context.options.inputs)
        self._gave_up = False
        context.console.total = len(self._waiting)

    def run(self) -> Exit:
        """Execute them all; one that fails keeps the others from nothing, unless they would fail as well.

        Returns:
            The highest of their exit codes.

        Raises:
            Stopped: A signal came. What was submitted is cancelled, as far as there was time.
        """
        try:
            self._run()
        except Stopped as stop:
            self._queue.abandon(stop)
            self._leave_out(Exit.CANCELLED, f"stopped by {stop.name}")
            raise
        finally:
            self._leave_out(Exit.COMPLETED, "")
        if self._several:
            self._report()
        return Exit(max(outcome.exit_code for outcome in self.outcomes))

    def _run(self) -> None:
        while True:
            while self._waiting and len(self._queue.items) < self._context.options.jobs:
                self._begin()
            item = self._queue.next_due()
            if item is None:
                return
            self._context.console.sleep(item.due.left)
            if self._queue.poll(item):
                self._ended(item)

    def _begin(self) -> None:
        source, place = self._waiting.popleft()
        console = self._context.console.task(source if self._several else "")
        item = FileItem(self._context, source, place, console)
        self.outcomes.append(item.outcome)
        if not self._queue.begin(item):
            self._ended(item)
        if self._context.options.final and not self._waiting and not self._gave_up:
            self._close_session()

    def _ended(self, item: FileItem) -> None:
        """Forget an item; if it shows that the others would fail as well, they are not tried."""
        outcome = item.outcome
        self._context.console.ended(item.console)
        if self._waiting and item.error and self._is_hopeless(item.error, outcome.task_id):
            self._leave_out(Exit(outcome.exit_code), f"{item.source}: {outcome.message}")
            self._gave_up = True

    def _is_hopeless(self, error: BaseException, task_id: str | None) -> bool:
        """Tell whether what happened to one will happen to all."""
        if isinstance(error, ServiceError):
            return not self._queue.session.may_go_on()
        if isinstance(error, OutputError):
            return task_id is not None  # the disk is full: not after one more task
        return not isinstance(error, QpuSlurmError)

    def _leave_out(self, code: Exit, why: str) -> None:
        """Write down that the inputs that wait are not executed."""
        for source, place in self._waiting:
            outcome = TaskSummary(input=source, output=None if place is None else str(place))
            outcome.end(code, why, reason=NOT_EXECUTED)
            self.outcomes.append(outcome)
        self._waiting.clear()

    def _close_session(self) -> None:
        """Have the service close the session when its tasks are over; the job's end would do that, too."""
        tasks = [outcome for outcome in self.outcomes if outcome.task_id]
        if not tasks:
            return  # nothing was submitted, by a mistake that may be mended
        console = self._context.console
        try:
            # The last task may be in another one than the job has by now, if an earlier call submitted it.
            last = tasks[-1].session_id if tasks[-1].exit_reason != ALREADY_DONE else None
            for session_id in dict.fromkeys(filter(None, (last, self._queue.session.current()))):
                self._queue.close_session(session_id)
                console.say(f"session {session_id} takes no more tasks, and closes when it has none")
            self.session_closing = True
        except ServiceError as error:
            console.error(f"warning: the session stays open until the job ends: {error}")

    def _report(self) -> None:
        """Say how many came to what."""
        reasons = [outcome.exit_reason for outcome in self.outcomes]
        before, left = reasons.count(ALREADY_DONE), reasons.count(NOT_EXECUTED)
        done = reasons.count(Exit.COMPLETED.reason) + before
        parts = [f"{done} of {len(reasons)} completed" + (f" ({before} of them before)" if before else "")]
        parts += [f"{left} not executed"] if left else []
        say = self._context.console.say if done == len(reasons) else self._context.console.error
        say(", ".join(parts))
