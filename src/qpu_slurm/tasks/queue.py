# SPDX-License-Identifier: Apache-2.0
"""Several tasks on one QPU, in one thread: the engine of task_runner and of the Python API.

A queue submits tasks to the job's session, polls each when it is due, and has its item take the result. One
thread is enough, since what takes time is the QPU's work. Items know where inputs come from, where results go
and who is told: task_runner's are in runner/item.py, the Python API's in api/worker.py.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import nullcontext, suppress
from functools import cached_property
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from qpu_slurm import providers
from qpu_slurm.errors import NotFoundError
from qpu_slurm.system.deadline import Deadline
from qpu_slurm.tasks.calibration import Calibration
from qpu_slurm.tasks.execution import Pace
from qpu_slurm.tasks.session import JobSession

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import AbstractContextManager

    from qpu_slurm.job.variables import JobQpu
    from qpu_slurm.providers.base import Provider, Task
    from qpu_slurm.tasks.execution import Execution
    from qpu_slurm.tasks.payload import Payload


class Item(ABC):
    """One input on its way to its result.

    Args:
        source: What to call the input.
        execution: Its task's way; None as long as nothing can be submitted.
    """

    def __init__(self, source: str, execution: Execution | None = None) -> None:
        self.source = source
        self.execution = execution

    @property
    def due(self) -> Deadline:
        """When to ask for its task next."""
        return self.execution.due if self.execution else Deadline.after(0)

    @abstractmethod
    def begin(self, queue: TaskQueue[Any]) -> bool:
        """Have the queue submit a task (`TaskQueue.submit`), or go on with one (`TaskQueue.adopt`).

        Returns:
            Whether there is a task to wait for.
        """

    @abstractmethod
    def accepted(self, session_id: str) -> None:
        """Note that the service has the task, in this session."""

    @abstractmethod
    def take(self, task: Task) -> None:
        """Take what the task has come to."""

    @abstractmethod
    def end(self, error: BaseException | None = None) -> None:
        """Give back what the item holds, and report. Nothing is called after this.

        Args:
            error: What has ended it; None if it came to its end.
        """


AnyItem = TypeVar("AnyItem", bound=Item)


class TaskQueue(Generic[AnyItem]):
    """The tasks of one program on one QPU.

    Args:
        qpu: The job's QPU.
        environ: The step's environment.
        guard: What to enter around a submission, such as what holds signals back.
        failures: The exceptions that end one item. All others end the call that they are raised in.

    Attributes:
        items: Those with the service, in the order of their submission.
        pace: What their tasks have shown so far.
    """

    def __init__(
        self,
        qpu: JobQpu,
        environ: Mapping[str, str],
        *,
        guard: Callable[[], AbstractContextManager[None]] = nullcontext,
        failures: type[BaseException] = Exception,
    ) -> None:
        self.items: list[AnyItem] = []
        self.pace = Pace()
        self._qpu = qpu
        self._environ = environ
        self._guard = guard
        self._failures = failures

    @cached_property
    def provider(self) -> Provider:
        """The QPU's service; what speaks HTTP is imported when it is first needed."""
        return providers.connect(self._qpu.access())

    @cached_property
    def session(self) -> JobSession:
        """The session that the job's tasks run in.

        Raises:
            NoLeaseError: The job is only bound to the QPU, or over.
        """
        return JobSession(self._qpu, self.provider, self._environ)

    @cached_property
    def calibration(self) -> Calibration:
        """What tells whether inputs were transpiled for this QPU as it is now."""
        return Calibration(self.provider, self._qpu.backend)

    def next_due(self) -> AnyItem | None:
        """Return the item to poll next; None if there is none."""
        return min(self.items, key=lambda item: item.due, default=None)

    def begin(self, item: AnyItem) -> bool:
        """Begin with an item.

        Returns:
            Whether its task is with the service. If not, the item has ended.
        """
        self.items.append(item)
        try:
            waits = item.begin(self)
        except self._failures as error:  # whatever it is, it is this item's alone
            self._end(item, error)
            return False
        if not waits:
            self._end(item)
        return waits

    def submit(
        self, item: AnyItem, task_input: Payload, *, tags: tuple[str, ...], how_to_insist: str | None
    ) -> None:
        """Submit an item's task.

        Args:
            item: The item.
            task_input: Its input.
            tags: See `new_tags`.
            how_to_insist: What the user does to submit even what was transpiled for another QPU and does not
                fit; None if that is what he wants.

        Raises:
            PayloadError: The input does not fit the QPU.
            ServiceError: The service does not take the task.
        """
        if how_to_insist is not None:
            self.calibration.refuse_misfit(item.source, task_input.transpiled_for, how_to_insist)
        with self._guard():
            session_id = self.session.submit(
                _execution(item), task_input, tags=tags, cost=self._qpu.task_timeout
            )
        item.accepted(session_id)
        self._compare(item, task_input)

    def adopt(self, item: AnyItem, task_input: Payload, task_id: str) -> None:
        """Go on with a task that was submitted before."""
        _execution(item).adopt(task_id)
        self._compare(item, task_input)

    def poll(self, item: AnyItem) -> bool:
        """Ask whether an item's task is over, and take the result.

        Returns:
            Whether the item has ended.
        """
        try:
            task = _execution(item).poll(is_next=item is self.items[0])
            if task is None:
                return False
            item.take(task)
        except self._failures as error:  # likewise
            self._end(item, error)
        else:
            self._end(item)
        return True

    def cancel(self, item: AnyItem) -> None:
        """Cancel an item's task, which nothing waits for any more.

        Raises:
            ServiceError: The service does not, or does not answer. The item has ended all the same.
        """
        if item in self.items:
            try:
                _execution(item).cancel()
            finally:
                self._end(item)

    def abandon(self, error: BaseException) -> None:
        """Cancel all tasks, since the program ends.

        Args:
            error: Why. When one of its kind is raised again meanwhile, the rest is not cancelled.
        """
        leave = False
        for item in self.items:
            try:
                try:
                    if item.execution is not None:
                        item.execution.leave = leave
                        item.execution.abandon(error)
                finally:
                    item.end(error)
            except type(error):
                leave = True
        self.items.clear()

    def close_session(self, session_id: str) -> None:
        """Have the service close a session when its tasks are over; the job's end would do that, too.

        Raises:
            ServiceError: It does not, or does not answer.
        """
        with suppress(NotFoundError):
            self.provider.close_session(session_id)

    def _compare(self, item: AnyItem, task_input: Payload) -> None:
        # Now, since the QPU is at work. An input that says nothing of it costs no request.
        if task_input.transpiled_for is not None:
            self.calibration.compare(item.source, task_input.transpiled_for)

    def _end(self, item: AnyItem, error: BaseException | None = None) -> None:
        """Let go of an item; those that waited behind it have waited for no fault of theirs."""
        try:
            if error is not None and item.execution is not None:
                item.execution.abandon(error)
        except self._failures as another:  # a fault of ours: it is to be reported
            error = another
        finally:
            was_next = item is self.items[0]
            self.items.remove(item)
            item.end(error)
        if was_next and self.items:
            _execution(self.items[0]).starts()
        for other in self.items:
            _execution(other).restart_clock()


def _execution(item: Item) -> Execution:
    if item.execution is None:
        raise RuntimeError("nothing was submitted")
    return item.execution
