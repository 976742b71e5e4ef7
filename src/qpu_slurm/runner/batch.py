# SPDX-License-Identifier: Apache-2.0
"""Brings one input or many to their results, in one thread: what takes time is the QPU's work."""

from __future__ import annotations

import time
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING

from qpu_slurm.errors import NotFound, OutputError, QpuSlurmError, ServiceError
from qpu_slurm.runner.exit_codes import Exit
from qpu_slurm.runner.item import Item
from qpu_slurm.runner.signals import Stopped
from qpu_slurm.runner.summary import ALREADY_DONE, NOT_EXECUTED, TaskSummary

if TYPE_CHECKING:
    from pathlib import Path

    from qpu_slurm.runner.context import Context
    from qpu_slurm.runner.summary import Summary


class Batch:
    """Works through the inputs of a call, in their order.

    Args:
        context: What they have in common.
        summary: Where what becomes of them is written down.
    """

    def __init__(self, context: Context, summary: Summary) -> None:
        self._context = context
        self._summary = summary
        self._several = context.options.records
        self._waiting: deque[tuple[TaskSummary, Path | None]] = deque()
        self._flying: list[Item] = []
        self._gave_up = False
        for source, output in context.options.inputs:
            task = TaskSummary(input=source, output=None if output is None else str(output))
            summary.tasks.append(task)
            self._waiting.append((task, output))
        context.console.total = len(summary.tasks)
        if context.options.final:
            summary.session_closing = False

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
            self._abandon(stop)
            raise
        if self._several:
            self._report()
        return Exit(max(task.exit_code for task in self._summary.tasks))

    def _run(self) -> None:
        while self._waiting or self._flying:
            while self._waiting and len(self._flying) < self._context.options.jobs:
                self._begin()
            if not self._flying:
                continue
            item = min(self._flying, key=lambda item: item.due)
            self._context.console.sleep(max(item.due - time.monotonic(), 0))
            item.poll()
            self._settle(item)

    def _begin(self) -> None:
        summary, output = self._waiting.popleft()
        console = self._context.console.task(summary.input if self._several else "")
        item = Item(self._context, summary, output, console)
        self._flying.append(item)
        item.begin()
        self._settle(item)
        if self._context.options.final and not self._waiting and not self._gave_up:
            self._close_session()

    def _settle(self, item: Item) -> None:
        """Let go of what is over; if it shows that the others would fail as well, they are not tried."""
        if not item.over:
            return
        self._flying.remove(item)
        self._context.console.ended(item.console)
        for other in self._flying:
            other.restart_clock()
        if self._waiting and item.error and self._is_hopeless(item.error, item.summary.task_id):
            for summary, _ in self._waiting:
                summary.end(
                    Exit(item.summary.exit_code),
                    f"{item.summary.input}: {item.summary.message}",
                    reason=NOT_EXECUTED,
                )
            self._waiting.clear()
            self._gave_up = True

    def _is_hopeless(self, error: BaseException, task_id: str | None) -> bool:
        """Tell whether what happened to one will happen to all."""
        if isinstance(error, ServiceError):
            return not self._context.session.may_go_on()
        if isinstance(error, OutputError):
            return task_id is not None  # the disk is full: not after one more task
        return not isinstance(error, QpuSlurmError)

    def _close_session(self) -> None:
        """Have the service close the session when its tasks are over; the job's end would do that, too."""
        tasks = [task for task in self._summary.tasks if task.task_id]
        if not tasks:
            return  # nothing was submitted, by a mistake that may be mended
        console = self._context.console
        try:
            # The last task may be in another one than the job has by now, if an earlier call submitted it.
            last = tasks[-1].session_id if tasks[-1].exit_reason != ALREADY_DONE else None
            for session_id in dict.fromkeys(filter(None, (last, self._context.session.current()))):
                with suppress(NotFound):
                    self._context.provider.close_session(session_id)
                console.say(f"session {session_id} takes no more tasks, and closes when it has none")
            self._summary.session_closing = True
        except ServiceError as error:
            console.error(f"warning: the session stays open until the job ends: {error}")

    def _abandon(self, stop: Stopped) -> None:
        """Cancel what is with the service, as long as there is time."""
        cancel = True
        for item in self._flying:
            try:
                item.abandon(stop, cancel=cancel)
            except Stopped:
                cancel = False
        for summary, _ in self._waiting:
            summary.end(Exit.CANCELLED, f"stopped by {stop.name}", reason=NOT_EXECUTED)

    def _report(self) -> None:
        """Say how many came to what."""
        reasons = [task.exit_reason for task in self._summary.tasks]
        before, left = reasons.count(ALREADY_DONE), reasons.count(NOT_EXECUTED)
        done = reasons.count(Exit.COMPLETED.reason) + before
        parts = [f"{done} of {len(reasons)} completed" + (f" ({before} of them before)" if before else "")]
        parts += [f"{left} not executed"] if left else []
        say = self._context.console.say if done == len(reasons) else self._context.console.error
        say(", ".join(parts))
