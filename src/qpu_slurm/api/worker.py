# SPDX-License-Identifier: Apache-2.0
"""The thread that brings a program's tasks on one QPU to their results."""

from __future__ import annotations

import atexit
import logging
import queue
import tempfile
import threading
import time
from concurrent.futures import Future
from contextlib import ExitStack, suppress
from typing import IO, TYPE_CHECKING, Any, Final

from qpu_slurm import providers
from qpu_slurm.errors import ServiceError, TaskCancelled, TaskFailed
from qpu_slurm.providers.base import TaskStatus
from qpu_slurm.system.atomic_file import Output
from qpu_slurm.tasks.calibration import Calibration
from qpu_slurm.tasks.session import JobSession

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from qpu_slurm.job.variables import JobQpu
    from qpu_slurm.providers import base
    from qpu_slurm.tasks.execution import Execution
    from qpu_slurm.tasks.payload import Payload

GRACE: Final = 10.0
"""Seconds that a program that ends, or has been asked to, waits until its tasks are cancelled."""

_log = logging.getLogger(__name__)


class Work:
    """All that a worker has to know of a task, and what it comes to.

    Args:
        source: What to call the input.
        task_input: The input.
        output: Where the result goes; None is a file without a name, to be decoded.
        tags: See `new_tags`.
        cost: Seconds of QPU time that it may take.
        final: Whether to close the session once the task is submitted.
        any_backend: Whether to submit even what was transpiled for another QPU and does not fit this one.
        execution: The task's way.

    Attributes:
        submitted: Comes to the task's id.
        over: Comes to None when the result is there. Whoever cancels it wants the task cancelled.

    Raises:
        OutputError: The result cannot be written there.
    """

    def __init__(
        self,
        *,
        source: str,
        task_input: Payload,
        output: Path | None,
        tags: tuple[str, ...],
        cost: int | None,
        final: bool,
        any_backend: bool,
        execution: Execution,
    ) -> None:
        self.source = source
        self.task_input: Payload | None = task_input
        self.tags = tags
        self.cost = cost
        self.final = final
        self.any_backend = any_backend
        self.execution = execution
        self.submitted: Future[str] = Future()
        self.over: Future[None] = Future()
        self._place = output
        self._stack = ExitStack()
        self._output = None if output is None else self._stack.enter_context(Output(output))
        self._text: IO[bytes] | None = None
        self._result: Any = None

    def write(self, task: base.Task) -> None:
        """Write the result of a task that is over.

        Raises:
            TaskFailed: It has none.
            OutputError: It could not be written.
            ServiceError: It could not be read.
        """
        if task.status is not TaskStatus.COMPLETED:
            cancelled = task.status is TaskStatus.CANCELLED
            kind, what = (TaskCancelled, "was cancelled") if cancelled else (TaskFailed, "failed")
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
        self.task_input = None
        if error is not None and not self.submitted.done():
            self.submitted.set_exception(error)
        # Whoever has cancelled it meanwhile waits no more.
        if not self.over.done() and self.over.set_running_or_notify_cancel():
            if error is None:
                self.over.set_result(None)
            else:
                self.over.set_exception(error)

    def take(self) -> Any:  # noqa: ANN401 - the path, or a PrimitiveResult
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
        NoLease: The job is only bound to the QPU.
    """

    def __init__(self, qpu: JobQpu, environ: Mapping[str, str]) -> None:
        self.provider = providers.connect(qpu.access())
        self._session = JobSession(qpu, self.provider, environ)
        self._calibration = Calibration(self.provider, qpu.backend)
        self._orders: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._works: set[Work] = set()
        self._flying: list[Work] = []
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._open = 0
        atexit.register(self._stop)

    def add(self, work: Work) -> None:
        """Submit a task, and see to it; whoever cancels its future has it cancelled."""

        def over(future: Future[None]) -> None:
            self._works.discard(work)
            if future.cancelled():
                self._order(lambda: self._drop(work))

        self._works.add(work)
        self._order(lambda: self._submit(work))
        work.over.add_done_callback(over)

    def cancel(self, work: Work) -> None:
        """Cancel a task, and wait until the service has heard of that, for `GRACE` seconds at most."""
        work.over.cancel()
        heard = threading.Event()
        self._order(heard.set)
        heard.wait(GRACE)

    # In the caller's thread.

    def _order(self, order: Callable[[], None]) -> None:
        with self._lock:
            self._orders.put(order)
            self._open += 1
            if self._thread is None:
                # A daemon: a program that ends is not kept from it; `_stop` cancels what is left.
                self._thread = threading.Thread(target=self._run, name="qpu_slurm", daemon=True)
                self._thread.start()

    def _stop(self) -> None:
        for work in list(self._works):
            work.over.cancel()
        thread = self._thread
        if thread is not None:
            thread.join(GRACE)

    # In the worker's thread.

    def _run(self) -> None:
        while True:
            self._obey()
            if self._flying:
                self._poll(min(self._flying, key=lambda work: work.execution.due))
                continue
            with self._lock:
                if not self._open:
                    self._thread = None
                    return

    def _obey(self) -> None:
        """Do what is wanted, until a task is due."""
        while True:
            due = min((work.execution.due for work in self._flying), default=0.0)
            try:
                order = self._orders.get(timeout=max(due - time.monotonic(), 0))
            except queue.Empty:
                return
            with self._lock:
                self._open -= 1
            order()

    def _submit(self, work: Work) -> None:
        if work.over.cancelled() or work.task_input is None:
            work.submitted.cancel()
            work.end()
            return
        try:
            with work.execution:
                if not work.any_backend:
                    self._calibration.refuse_misfit(
                        work.source,
                        work.task_input.transpiled_for,
                        "To submit it all the same: any_backend=True.",
                    )
                session_id = self._session.submit(
                    work.execution, work.task_input, tags=work.tags, cost=work.cost
                )
                if work.task_input.transpiled_for is not None:
                    self._calibration.compare(work.source, work.task_input.transpiled_for)
        except BaseException as error:  # noqa: BLE001 - it is for who waits for the task
            work.end(error)
            return
        work.task_input = None
        work.submitted.set_result(work.execution.task_id or "")
        self._flying.append(work)
        if work.final:
            self._close_session(session_id)

    def _close_session(self, session_id: str) -> None:
        """Have the service close the session when its tasks are over; the job's end would do that, too."""
        try:
            self.provider.close_session(session_id)
        except ServiceError as error:
            _log.warning("The session stays open until the job ends: %s", error)

    def _poll(self, work: Work) -> None:
        """Look whether a task is over, and take its result."""
        try:
            with work.execution:
                task = work.execution.poll()
                if task is None:
                    return
                work.write(task)
        except BaseException as error:  # noqa: BLE001 - likewise
            self._settle(work, error)
        else:
            self._settle(work)

    def _drop(self, work: Work) -> None:
        """Cancel a task that nobody waits for any more."""
        if work not in self._flying:
            return
        try:
            work.execution.cancel()
        except Exception as error:  # noqa: BLE001 - whatever it is, the other tasks go on
            _log.warning("Task %s could not be cancelled: %s", work.execution.task_id, error)
        self._settle(work)

    def _settle(self, work: Work, error: BaseException | None = None) -> None:
        """Let go of a task; those that waited behind it have waited for no fault of theirs."""
        self._flying.remove(work)
        work.end(error)
        for other in self._flying:
            other.execution.restart_clock()
