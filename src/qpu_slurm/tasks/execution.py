# SPDX-License-Identifier: Apache-2.0
"""Executing one task in a job's session: what task_runner and the Python API share."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Final, Self

from qpu_slurm.errors import RefusedError, ServiceError, TaskTimeoutError, UnavailableError
from qpu_slurm.names import JOB_TAG, STEP_TAG, TASK_TAG
from qpu_slurm.providers.base import Task, TaskStatus
from qpu_slurm.providers.expectation import SHORTEST_PAUSE, Expectation, pause
from qpu_slurm.system.deadline import NEVER, Deadline

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from types import TracebackType

    from qpu_slurm.job.variables import JobQpu
    from qpu_slurm.providers.base import Provider
    from qpu_slurm.tasks.payload import Payload

LONGEST_QUEUED: Final = 1.0
"""The longest pause between two looks at a task that waits for the QPU."""

WAIT: Final = 1
"""Seconds that a service that waits for results is asked to wait: other tasks are not looked at meanwhile."""

STATE_EVERY: Final = 3
"""How many looks for a result there are to one for the state: the state alone shows that a task failed."""

PATIENCE: Final = 300.0
"""Seconds that a service may be away before a task that was submitted is given up."""

LOG_LINES: Final = 20

FIRST_POSITION: Final = 2.0
"""Seconds of waiting after which a task's place in the queue is asked for, if somebody wants to know."""

NEXT_POSITION: Final = (5.0, 0.1)
"""It is asked for again after so many seconds, or after this part of the time of waiting, if that is more."""


def job_tag(qpu: JobQpu, environ: Mapping[str, str]) -> str:
    """Return the tag of all tasks of a job on one QPU; empty outside of a job.

    Args:
        qpu: The job's QPU. Where it has no tag (upstream's plugin set the variables, or hooks of an older
            release did), the job's number has to do.
        environ: A step's environment; there, SLURM_JOB_ID is the heterogeneous job's leader.
    """
    job_id = environ.get("SLURM_JOB_ID")
    return qpu.tag or (f"{JOB_TAG}{job_id}" if job_id else "")


def new_tags(
    qpu: JobQpu, environ: Mapping[str, str], more: Sequence[str] = (), *, step: str | None = None
) -> tuple[str, ...]:
    """Make up a task's tags: its Slurm job's, one that no other task has, its step's, and the user's.

    Args:
        qpu: The job's QPU.
        environ: A step's environment.
        more: The user's own.
        step: The mark of the step that the task ends with: `qpu-slurm step-end` finds the task by a tag, and
            cancels it if its submitter was killed. Without, it goes on until the job ends.
    """
    own = f"{TASK_TAG}{os.urandom(8).hex()}"
    of_step = f"{STEP_TAG}{step}" if step else ""
    return tuple(filter(None, (job_tag(qpu, environ), own, of_step, *more)))


class Pace:
    """What a program has learned of its tasks on one QPU, so that it knows when to look at the next one.

    Attributes:
        expectation: How long the next one will run.
    """

    def __init__(self) -> None:
        self.expectation = Expectation()


class Observer:
    """Is told what becomes of a task; overwrite what is of interest.

    Attributes:
        wants_states: Whether it is worth a request that a task runs now.
        wants_position: Whether a waiting task's place in the queue is worth a request now and then.
    """

    wants_states = True
    wants_position = False

    def session_opened(self, session_id: str, instead_of: str | None) -> None:
        """Take note of a session that was opened for the task: the first, or one instead of another."""

    def submitting(self) -> None:
        """Take note that from now on, the service may have a task."""

    def refused(self, session_id: str) -> None:
        """Take note that the service has no task, since the session takes no more: another one is sought."""

    def submitted(self, task_id: str) -> None:
        """Take note that the service has the task."""

    def adopted(self, task_id: str) -> None:
        """Take note that the task was submitted before, by a process that is gone."""

    def changed(self, task: Task) -> None:
        """Take note of its new state."""

    def moved(self, position: int) -> None:
        """Take note of the waiting task's new place in the queue, from 1."""

    def sleep(self, seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)

    def unreachable(self, error: UnavailableError) -> None:
        """Take note that the service did not say what the state is; it is asked again."""

    def cancelling(self, task_id: str) -> None:
        """Take note that the task is about to be cancelled, since nobody waits for it any more."""

    def cancelled(self, task_id: str) -> None:
        """Take note that the service has cancelled it."""


class Execution:
    """One task's way, from its submission to its result.

    Use it as a context manager: a task that is not over when the block is left, by whatever exception, is
    cancelled. Either `wait` for the task's end, or, with several in one thread, `poll` each when it is `due`.

    Args:
        provider: The QPU's service.
        observer: Who wants to know.
        timeout: Seconds from the submission (or `restart_clock`) within which the task has to be over.
        pace: What was learned of the tasks before it.

    Attributes:
        observer: Who wants to know.
        task_id: The service's id of it.
        task: Its state as it was last seen.
        polls: How often it was asked for without being over.
        due: When to poll next.
        leave: Whether to leave the task alone, whatever happens: nobody waits for it to be cancelled.
    """

    def __init__(
        self,
        provider: Provider,
        observer: Observer | None = None,
        *,
        timeout: float | None = None,
        pace: Pace | None = None,
    ) -> None:
        self._provider = provider
        self._expectation = (pace or Pace()).expectation
        self.observer = observer or Observer()
        self._timeout = timeout
        self.task_id: str | None = None
        self.task: Task | None = None
        self.polls = 0
        self.due = Deadline.after(0)
        self.leave = False
        self._since = self._answered = self._started = self._running = 0.0
        self._is_timed = True
        self._takes_early = provider.features.early_results
        self._misses = 0
        self._result: Iterator[bytes] | None = None
        self._deadline = NEVER
        self._position: int | None = None
        self._ask_position = NEVER

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
            RefusedError: The service does not take it.
            UnavailableError: The service did not answer, and has no task with these tags.
        """
        self.observer.submitting()
        task_id = self._provider.submit(
            payload.program_id, payload.parameters, session_id=session_id, tags=tags, cost=cost
        )
        self._take(task_id)
        self.observer.submitted(task_id)
        return task_id

    def adopt(self, task_id: str) -> None:
        """Go on with a task that was submitted before; its time is counted from now."""
        self._take(task_id)
        self.observer.adopted(task_id)

    def wait(self) -> Task:
        """Wait until the task is over.

        Returns:
            Its final state.

        Raises:
            As `poll` does.
        """
        while (task := self.poll()) is None:
            self.observer.sleep(self.due.left)
        return task

    def poll(self, *, is_next: bool = True) -> Task | None:
        """Look at the task: at its result where that is likely to be there, else at its state.

        Args:
            is_next: Whether it is the next of its program's tasks to be over.

        Returns:
            Its final state; None if it is not over.

        Raises:
            RefusedError: The service does not let us look at it any more.
            TaskTimeoutError: It should be over by now.
            UnavailableError: The service has been away for `PATIENCE` seconds.
        """
        sent = time.monotonic()
        self._is_timed = self._is_timed and is_next
        try:
            task = self._early_result() if is_next and self._expects_result(sent) else self._state()
        except UnavailableError as error:
            if time.monotonic() - self._answered > PATIENCE:
                raise
            self.observer.unreachable(error)
            self._is_timed = False
        else:
            if task is not None and task.status.final:
                self._learn(sent)
                return task
            self._running = sent
        self.polls += 1
        if self._deadline.passed:
            raise TaskTimeoutError(f"Task {self.task_id} was not over after {self._timeout:g} s.")
        self.due = self._deadline.sooner(self._pause(is_next=is_next))
        return None

    def starts(self) -> None:
        """Take note that the task before it is over: the QPU has this one now."""
        self._started = time.monotonic()
        self._is_timed = True
        self._running = 0.0
        self.due = min(self.due, Deadline.after(self._pause(is_next=True)))

    def restart_clock(self) -> None:
        """Count the time of a task that waits from now on: it waited behind one of its user's own."""
        if self._timeout is not None and (self.task is None or self.task.status is TaskStatus.QUEUED):
            self._deadline = Deadline.after(self._timeout)

    def result(self) -> Iterator[bytes]:
        """Read the completed task's result text, in pieces.

        Raises:
            ServiceError: It cannot be read, or there is nothing in it.
        """
        empty = True
        for piece in self._result or self._provider.result(self._id()):
            empty = empty and not piece
            yield piece
        if empty:
            raise UnavailableError(f"The service gave an empty result for task {self.task_id}.")

    def log_tail(self) -> list[str]:
        """Read the last lines that the service logged of the task, without its reason.

        Returns:
            The lines; an empty list where the service gives none.
        """
        try:
            lines = self._provider.logs(self._id()).splitlines()[-LOG_LINES:]
        except ServiceError:
            return []
        return _without_reason(lines, self.task.reason if self.task else "")

    def cancel(self) -> None:
        """Cancel the task, if there is one and it is not over.

        Raises:
            ServiceError: The service does not, or does not answer.
        """
        if self.task_id is None or self.leave or (self.task and self.task.status.final):
            return
        self.observer.cancelling(self.task_id)
        self._provider.cancel_task(self.task_id)
        self.observer.cancelled(self.task_id)

    def abandon(self, error: BaseException) -> None:
        """Cancel the task, as `cancel` does, since something went wrong.

        Args:
            error: What did. It is the one to hear of: that the task could not be cancelled becomes a note.
        """
        try:
            self.cancel()
        except ServiceError as failure:
            # The end of the session will take the task with it.
            error.add_note(f"It could not be cancelled: {failure}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self.abandon(error)

    def _take(self, task_id: str) -> None:
        """Begin to wait for a task."""
        self.task_id = task_id
        self._since = self._answered = self._started = time.monotonic()
        self.due = Deadline.after(0)
        if not self.observer.wants_states and not self._provider.waits:
            self.due = Deadline.after(self._pause(is_next=True))
        if self._timeout is not None:
            self._deadline = Deadline.after(self._timeout)
        if self.observer.wants_position:
            self._ask_position = Deadline.after(FIRST_POSITION)

    def _expects_result(self, now: float) -> bool:
        """Tell whether to ask for the result, and not for the state."""
        if not self._takes_early:
            return False
        if self.observer.wants_states and (self.task is None or self.task.status is TaskStatus.QUEUED):
            return False
        if self._misses and self._misses % STATE_EVERY == 0:
            self._misses += 1
            return False
        return self._provider.waits or self._expectation.is_near(now - self._started)

    def _early_result(self) -> Task | None:
        """Ask for the result, which is there if the task is completed."""
        wait = WAIT if self._provider.waits and self._deadline.allows(WAIT) else 0
        try:
            self._result = self._provider.early_result(self._id(), wait=wait)
        except RefusedError:  # if it lets us look at nothing, it says so when it is asked for the state
            self._takes_early = False
            return None
        self._answered = time.monotonic()
        if self._result is None:
            self._misses += 1
            return None
        task = Task(id=self._id(), status=TaskStatus.COMPLETED)
        self._see(task)
        return task

    def _state(self) -> Task:
        task = self._provider.task(self._id())
        self._see(task)
        return task

    def _learn(self, sent: float) -> None:
        """Have the next task looked at by what was seen of this one."""
        if self._is_timed:
            running = max(self._running - self._started, 0.0)
            self._expectation.learn(running, max(sent - self._started, SHORTEST_PAUSE))

    def _pause(self, *, is_next: bool) -> float:
        """Return the seconds until the next look."""
        now = time.monotonic()
        if is_next and self._provider.waits and (self.task is None or self.task.status is TaskStatus.RUNNING):
            return 0.0
        if self.task is not None and self.task.status is TaskStatus.QUEUED:
            return pause(now - self._since, LONGEST_QUEUED)
        if not is_next:
            return pause(now - self._since)
        running = now - self._started
        return max(self._expectation.next_look(running) - running, 0.0)

    def _see(self, task: Task) -> None:
        """Take note of the task's state, and ask for its place in the queue when that is due."""
        self._answered = time.monotonic()
        if self.task is None or task.status is not self.task.status:
            self.task = task
            self._since = self._answered
            self.observer.changed(task)
        if task.status is TaskStatus.QUEUED and self._ask_position.passed:
            try:
                position = self._provider.times(task.id).position
            except ServiceError:
                position = None
            if position is None:  # nothing to be had: not asked for again
                self._ask_position = NEVER
                return
            least, part = NEXT_POSITION
            self._ask_position = Deadline.after(max(least, part * (self._answered - self._since)))
            if position != self._position:
                self._position = position
                self.observer.moved(position)

    def _id(self) -> str:
        if self.task_id is None:
            raise RuntimeError("nothing was submitted")
        return self.task_id


def _without_reason(lines: list[str], reason: str) -> list[str]:
    """Leave out the end of a log that repeats a task's reason, as a traceback's last line does."""
    said = _plain(reason)
    first = next((start for start in range(len(lines)) if _plain(*lines[start:]) in said), len(lines))
    left = lines[:first]
    return left[:-1] if left and said and _plain(left[-1]).endswith(said) else left


def _plain(*lines: str) -> str:
    """Return lines as one, as a reason has them."""
    return " ".join(" ".join(lines).split()).rstrip(".…")
