# SPDX-License-Identifier: Apache-2.0
"""Executing one task in a job's session: what task_runner and the Python API share."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Final, Self

from qpu_slurm.errors import ServiceError, Unavailable
from qpu_slurm.providers.base import Task, TaskStatus

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from types import TracebackType

    from qpu_slurm.providers.base import Provider
    from qpu_slurm.tasks.payload import Payload

SHORTEST_PAUSE: Final = 0.02
LONGEST_PAUSE: Final[dict[TaskStatus, float]] = {TaskStatus.QUEUED: 1.0, TaskStatus.RUNNING: 30.0}
TAIL: Final = 0.04
"""The pause as a part of the time that a task has been in its state: what is added to it at most."""

PATIENCE: Final = 300.0
"""Seconds that a service may be away before a task that was submitted is given up."""

LOG_LINES: Final = 20


def pause(status: TaskStatus, seconds: float) -> float:
    """Say how long to wait before asking for a task's state again.

    It grows with the time that has passed: a short task is not kept waiting, and a long one is not asked for
    more than some hundred times (10 minutes of running: about 200).

    Args:
        status: The state that the task is in.
        seconds: How long it has been seen in that state.

    Returns:
        Seconds.
    """
    return min(max(SHORTEST_PAUSE, TAIL * seconds), LONGEST_PAUSE.get(status, SHORTEST_PAUSE))


def new_tags(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Make up a task's tags: its Slurm job's, and one that no other task has.

    Args:
        environ: A step's environment; there, SLURM_JOB_ID is the heterogeneous job's leader.
    """
    job_id = environ.get("SLURM_JOB_ID")
    own = f"qpu-slurm-task:{os.urandom(8).hex()}"
    return (f"slurm-job:{job_id}", own) if job_id else (own,)


class Observer:
    """Is told what becomes of a task; overwrite what is of interest."""

    def submitting(self) -> None:
        """Take note that from now on, the service may have a task."""

    def submitted(self, task_id: str) -> None:
        """Take note that the service has the task."""

    def changed(self, task: Task) -> None:
        """Take note of its new state."""

    def unreachable(self, error: Unavailable) -> None:
        """Take note that the service did not say what the state is; it is asked again."""

    def cancelling(self, task_id: str) -> None:
        """Take note that the task is about to be cancelled, since nobody waits for it any more."""

    def cancelled(self, task_id: str) -> None:
        """Take note that the service has cancelled it."""


class Execution:
    """One task's way, from its submission to its result.

    Use it as a context manager: a task that is not over when the block is left, by whatever exception, is
    cancelled.

    Args:
        provider: The QPU's service.
        observer: Who wants to know.
    """

    def __init__(self, provider: Provider, observer: Observer | None = None) -> None:
        self._provider = provider
        self._observer = observer or Observer()
        self.task_id: str | None = None
        self.task: Task | None = None
        self.polls = 0

    def submit(
        self, payload: Payload, *, session_id: str, tags: tuple[str, ...], cost: int | None = None
    ) -> str:
        """Submit the task.

        Args:
            payload: The input.
            session_id: The session to run in.
            tags: See `new_tags`.
            cost: Seconds of QPU time that it may take.

        Returns:
            The task's id.

        Raises:
            Refused: The service does not take it.
            Unavailable: The service did not answer, and has no task with these tags.
        """
        self._observer.submitting()
        task_id = self._provider.submit(
            payload.program_id, payload.parameters, session_id=session_id, tags=tags, cost=cost
        )
        self.task_id = task_id
        self._observer.submitted(task_id)
        return task_id

    def wait(self) -> Task:
        """Wait until the task is over.

        Returns:
            Its final state.

        Raises:
            Refused: The service does not let us look at it any more.
            Unavailable: The service has been away for `PATIENCE` seconds.
        """
        status = TaskStatus.QUEUED
        since = answered = time.monotonic()
        while True:
            try:
                task = self._provider.task(self._id())
            except Unavailable as error:
                if time.monotonic() - answered > PATIENCE:
                    raise
                self._observer.unreachable(error)
            else:
                answered = time.monotonic()
                if self.task is None or task.status is not status:
                    status, since = task.status, answered
                    self.task = task
                    self._observer.changed(task)
                if task.status.final:
                    return task
            self.polls += 1
            time.sleep(pause(status, time.monotonic() - since))

    def result(self) -> Iterator[bytes]:
        """Read the completed task's result text, in pieces.

        Raises:
            ServiceError: It cannot be read, or there is nothing in it.
        """
        empty = True
        for piece in self._provider.result(self._id()):
            empty = empty and not piece
            yield piece
        if empty:
            raise Unavailable(f"The service gave an empty result for task {self.task_id}.")

    def log_tail(self) -> list[str]:
        """Read the last lines that the service logged of the task: none where it gives none."""
        try:
            return self._provider.logs(self._id()).splitlines()[-LOG_LINES:]
        except ServiceError:
            return []

    def cancel(self) -> None:
        """Cancel the task, if there is one and it is not over.

        Raises:
            ServiceError: The service does not, or does not answer.
        """
        if self.task_id is None or (self.task and self.task.status.final):
            return
        self._observer.cancelling(self.task_id)
        self._provider.cancel_task(self.task_id)
        self._observer.cancelled(self.task_id)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            return
        try:
            self.cancel()
        except ServiceError as failure:
            # The first error is the one to hear of; the end of the session will take the task with it.
            error.add_note(f"It could not be cancelled: {failure}")

    def _id(self) -> str:
        if self.task_id is None:
            raise RuntimeError("nothing was submitted")
        return self.task_id
