# SPDX-License-Identifier: Apache-2.0
"""The thread in which a program's tasks on one QPU come to their results."""

from __future__ import annotations

import atexit
import logging
import queue
import tempfile
import threading
from concurrent.futures import Future
from contextlib import ExitStack, suppress
from typing import IO, TYPE_CHECKING, Any, Final

from qpu_slurm.errors import ServiceError, TaskCancelledError, TaskFailedError
from qpu_slurm.providers.base import TaskStatus
from qpu_slurm.system import structs
from qpu_slurm.system.atomic_file import Output
from qpu_slurm.tasks.queue import Item, TaskQueue

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from qpu_slurm.job.variables import JobQpu
    from qpu_slurm.providers import base
    from qpu_slurm.providers.base import Provider
    from qpu_slurm.tasks.execution import Execution, Pace
    from qpu_slurm.tasks.payload import Payload

GRACE: Final = 10.0
"""Seconds that a program that ends, or has been asked to, waits until its tasks are cancelled."""

_log = logging.getLogger(__name__)


class FutureItem(Item):
    """An input that a program has submitted, and waits for.

    Args:
        source: What to call the input.
        task_input: The input.
        output: Where the result goes; None is a file without a name, to be decoded.
        tags: See `new_tags`.
        close_session: Whether to close the session once the task is submitted.
        any_backend: Whether to submit even what was transpiled for another QPU and does not fit this one.
        execution: The task's way.

    Attributes:
        session_id: The session that the task is in, once it is submitted.
        submitted: Comes to the task's id.
        over: Comes to None when the result is there. Whoever cancels it wants the task cancelled.

    Raises:
        OutputError: The result cannot be written there.
    """

    execution: Execution

    def __init__(
        self,
        *,
        source: str,
        task_input: Payload,
        output: Path | None,
        tags: tuple[str, ...],
        close_session: bool,
        any_backend: bool,
        execution: Execution,
    ) -> None:
        super().__init__(source, execution)
        self.close_session = close_session
        self.session_id = ""
        self.submitted: Future[str] = Future()
        self.over: Future[None] = Future()
        self._task_input: Payload | None = task_input
        self._tags = tags
        self._any_backend = any_backend
        self._place = output
        self._stack = ExitStack()
        self._output = None if output is None else self._stack.enter_context(Output(output))
        self._text: IO[bytes] | None = None
        self._result: Any = None

    def begin(self, queue: TaskQueue[FutureItem]) -> bool:
        """Submit it, unless its program has thought better of it."""
        if self.over.cancelled() or self._task_input is None:
            self.submitted.cancel()
            return False
        insist = None if self._any_backend else "To submit it all the same: any_backend=True."
        queue.submit(self, self._task_input, tags=self._tags, how_to_insist=insist)
        return True

    def accepted(self, session_id: str) -> None:
        """Tell the task's id."""
        self._task_input = None
        self.session_id = session_id
        self.submitted.set_result(self.execution.task_id or "")

    def take(self, task: base.Task) -> None:
        """Write the result of a task that is over.

        Raises:
            TaskFailedError: It has none.
            OutputError: It could not be written.
            ServiceError: It could not be read.
        """
        if task.status is not TaskStatus.COMPLETED:
            cancelled = task.status is TaskStatus.CANCELLED
            kind, what = (TaskCancelledError, "was cancelled") if cancelled else (TaskFailedError, "failed")
            error = kind(f"Task {task.id} {what}. {task.reason}".rstrip(), task_id=task.id)
            if not cancelled and (log := self.execution.log_tail()):
                error.add_note("The end of its log:\n" + "\n".join(f"  {line}" for line in log))
            raise error
        if self._output is not None:
            self._output.write(self.execution.result())
        else:
            text = tempfile.TemporaryFile()  # noqa: SIM115 - closed when it is decoded
            text.writelines(self.execution.result())
            self._text = text

    def end(self, error: BaseException | None = None) -> None:
        """Give back what it holds, and tell those who wait."""
        with suppress(OSError):  # a draft that cannot be removed is no reason to keep anybody waiting
            self._stack.close()
        self._task_input = None
        if error is not None and not self.submitted.done():
            self.submitted.set_exception(error)
        # Whoever has cancelled it meanwhile waits no more.
        if not self.over.done() and self.over.set_running_or_notify_cancel():
            if error is None:
                self.over.set_result(None)
            else:
                self.over.set_exception(error)

    def result(self) -> Any:  # noqa: ANN401 - the path, or a PrimitiveResult
        """Return the result, decoded once."""
        if self._place is not None:
            return self._place
        if self._text is not None:
            from qpu_slurm.api.results import decode  # noqa: PLC0415 - only who reads it needs it

            with self._text as text:
                text.seek(0)
                self._result = decode(text, source=f"the result of task {self.execution.task_id}")
            self._text = None
        return self._result


class Worker:
    """Sees to all tasks of a program on one QPU, in one thread, which lives as long as there are tasks.

    What others want of it comes through a queue; it alone asks the service.

    Args:
        qpu: The job's QPU.
        environ: The step's environment.

    Raises:
        NoLeaseError: The job is only bound to the QPU.
    """

    def __init__(self, qpu: JobQpu, environ: Mapping[str, str]) -> None:
        self._queue: TaskQueue[FutureItem] = TaskQueue(qpu, environ, failures=BaseException)
        self._queue.session  # noqa: B018 - a job that is only bound is refused now
        self._orders: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._items: set[FutureItem] = set()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._open = 0
        atexit.register(self._stop)

    @property
    def provider(self) -> Provider:
        """The QPU's service."""
        return self._queue.provider

    @property
    def pace(self) -> Pace:
        """What the program's tasks have shown so far."""
        return self._queue.pace

    def add(self, item: FutureItem) -> None:
        """Submit a task, and see to it; whoever cancels its future has it cancelled."""

        def over(future: Future[None]) -> None:
            self._items.discard(item)
            if future.cancelled():
                self._order(lambda: self._drop(item))

        self._items.add(item)
        self._order(lambda: self._submit(item))
        item.over.add_done_callback(over)

    def cancel(self, item: FutureItem) -> None:
        """Cancel a task, and wait until the service has heard of that, for `GRACE` seconds at most."""
        item.over.cancel()
        heard = threading.Event()
        self._order(heard.set)
        heard.wait(GRACE)

    # In the caller's thread.

    def _order(self, order: Callable[[], None]) -> None:
        with self._lock:
            self._orders.put(order)
            self._open += 1
            if self._thread is None:
                structs.prepare()
                # A daemon: a program that ends is not kept from it; `_stop` cancels what is left.
                self._thread = threading.Thread(target=self._run, name="qpu_slurm", daemon=True)
                self._thread.start()

    def _stop(self) -> None:
        for item in list(self._items):
            item.over.cancel()
        thread = self._thread
        if thread is not None:
            thread.join(GRACE)

    # In the worker's thread.

    def _run(self) -> None:
        while True:
            self._obey()
            item = self._queue.next_due()
            if item is not None:
                self._queue.poll(item)
                continue
            with self._lock:
                if not self._open:
                    self._thread = None
                    return

    def _obey(self) -> None:
        """Do what is wanted, until a task is due."""
        while True:
            item = self._queue.next_due()
            try:
                order = self._orders.get(timeout=0 if item is None else item.due.left)
            except queue.Empty:
                return
            with self._lock:
                self._open -= 1
            order()

    def _submit(self, item: FutureItem) -> None:
        if self._queue.begin(item) and item.close_session:
            try:
                self._queue.close_session(item.session_id)
            except ServiceError as error:
                _log.warning("The session stays open until the job ends: %s", error)

    def _drop(self, item: FutureItem) -> None:
        """Cancel a task that nobody waits for any more."""
        try:
            self._queue.cancel(item)
        except Exception as error:  # noqa: BLE001 - whatever it is, the other tasks go on
            _log.warning("Task %s could not be cancelled: %s", item.execution.task_id, error)
