# SPDX-License-Identifier: Apache-2.0
"""Executing inputs from Python, just as task_runner does: the same checks, tags, session and errors.

One thread handles all tasks of a QPU, as in task_runner: it submits them, polls each when it is due, and
fetches the results. Many tasks at once therefore need one connection, and your program, with asyncio or
without, goes on meanwhile.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Literal, TypedDict, TypeVar, Unpack, overload

import msgspec

from qpu_slurm.api.qpu import Qpu
from qpu_slurm.api.worker import FutureItem
from qpu_slurm.errors import PayloadError, RequestError
from qpu_slurm.names import why_no_tag
from qpu_slurm.providers.base import TaskStatus
from qpu_slurm.tasks import overrides, payload
from qpu_slurm.tasks.execution import Execution, Observer, new_tags
from qpu_slurm.tasks.replacing import why_not_replace

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
    from concurrent.futures import Future

    from qiskit.primitives import PrimitiveResult
    from qiskit.primitives.containers import EstimatorPubLike, SamplerPubLike

    from qpu_slurm.providers import base
    from qpu_slurm.tasks.payload import Payload

    Input = str | os.PathLike[str] | Iterable[SamplerPubLike] | Iterable[EstimatorPubLike]

R = TypeVar("R")
T = TypeVar("T")

Program = Literal["sampler", "estimator"]
"""The primitive that pubs are for."""


class Progress(msgspec.Struct, frozen=True):
    """The progress of a task.

    Attributes:
        task_id: The service's id of the task.
        status: See `TaskStatus`.
        position: The place in the queue, counted from 1, if the service reports it.
    """

    task_id: str
    status: TaskStatus
    position: int | None = None


class Task(Generic[R]):
    """A submitted task, returned by `submit`. `await` it, or call its `result()`.

    Ctrl-C while you wait cancels the task. So does cancelling its `await`.
    """

    def __init__(self, item: FutureItem, cancel: Callable[[], None]) -> None:
        self._item = item
        self._cancel = cancel

    def job_id(self) -> str:
        """Wait for the service's id of the task (the service calls it a job), and return it.

        Raises:
            The errors of `result`, if the task could not be submitted.
        """
        return self._patiently(self._item.submitted)

    def status(self) -> TaskStatus | None:
        """Return the last known status of the task; None if the service does not have it yet."""
        execution = self._item.execution
        if execution.task is None:
            return None if execution.task_id is None else TaskStatus.QUEUED
        return execution.task.status

    def done(self) -> bool:
        """Return whether the task has ended: completed, failed or cancelled."""
        return self._item.over.done()

    def cancel(self) -> None:
        """Cancel the task, and wait until the service confirms it. Has no effect on a task that has ended."""
        self._cancel()

    def result(self) -> R:
        """Wait for the result.

        Returns:
            A PrimitiveResult, or the path of the file with the result.

        Raises:
            PayloadError: The input was transpiled for another QPU, and does not fit.
            TaskFailedError: The task has no result.
            TaskTimeoutError: The task took longer than `timeout`.
            OutputError: The result cannot be written.
            ServiceError: The service refused a request, or did not answer.
            concurrent.futures.CancelledError: This program cancelled the task.
        """
        self._patiently(self._item.over)
        result: R = self._item.result()
        return result

    def __await__(self) -> Generator[Any, None, R]:
        """Wait for the result; see `result`."""
        return self._wait().__await__()

    async def _wait(self) -> R:
        await asyncio.wrap_future(self._item.over)
        result: R = await asyncio.to_thread(self._item.result)
        return result

    def _patiently(self, future: Future[T]) -> T:
        try:
            return future.result()
        except Exception:
            raise
        except BaseException:  # Ctrl-C
            self._cancel()
            raise


class _Settings(TypedDict, total=False):
    """The keyword arguments of `submit` but `output`."""

    program: Program
    qpu: str | Qpu | None
    timeout: float | None
    shots: int | None
    tags: Sequence[str]
    close_session: bool
    any_backend: bool
    on_progress: Callable[[Progress], object] | None


@overload
def submit(
    input: Input, *, output: None = None, **settings: Unpack[_Settings]
) -> Task[PrimitiveResult[Any]]: ...
@overload
def submit(input: Input, *, output: str | os.PathLike[str], **settings: Unpack[_Settings]) -> Task[Path]: ...
def submit(
    input: Input,  # noqa: A002 - the word for it
    *,
    output: str | os.PathLike[str] | None = None,
    program: Program = "sampler",
    qpu: str | Qpu | None = None,
    timeout: float | None = None,
    shots: int | None = None,
    tags: Sequence[str] = (),
    close_session: bool = False,
    any_backend: bool = False,
    on_progress: Callable[[Progress], object] | None = None,
) -> Task[PrimitiveResult[Any]] | Task[Path]:
    """Submit an input to the job's session, and return at once.

    If the job has no session yet, this opens one. Tasks run one after the other, in the order of submission.

    Args:
        input: A file as task_runner reads it, or pubs as for Qiskit's `SamplerV2.run` (`EstimatorV2.run` with
            `program="estimator"`).
        output: The result's file. It appears complete or not at all. None returns the result instead.
        program: What pubs are for. A file states it itself.
        qpu: One of the job's QPUs; None is the first.
        timeout: Seconds from the submission, after which the task is cancelled.
        shots: For every pub of a sampler, in place of its own.
        tags: More tags for the task at the service.
        close_session: Whether this is the job's last task. The session then takes no others, and the QPU is
            free as soon as its tasks end.
        any_backend: Whether to submit even an input that was transpiled for another QPU and does not fit.
        on_progress: Called with each `Progress`, in another thread. If it raises an error, the task is ended.

    Raises:
        NoLeaseError: The job has no such QPU, or no session on it.
        PayloadError: The input is not valid, or the output file holds an input.
        OutputError: The result cannot be written there.
        RequestError: A tag is not a line of text, or is reserved for qpu_slurm.
    """
    return _begin(
        input,
        output=output,
        program=program,
        qpu=qpu,
        timeout=timeout,
        shots=shots,
        tags=tags,
        close_session=close_session,
        any_backend=any_backend,
        on_progress=on_progress,
        wants_states=True,
    )


@overload
def execute(input: Input, *, output: None = None, **settings: Unpack[_Settings]) -> PrimitiveResult[Any]: ...
@overload
def execute(input: Input, *, output: str | os.PathLike[str], **settings: Unpack[_Settings]) -> Path: ...
def execute(input: Input, **settings: Any) -> PrimitiveResult[Any] | Path:  # noqa: A002 - as `submit`
    """Execute an input in the job's session, and wait for its result: `submit(…).result()`.

    Args:
        input: See `submit`.
        settings: See `submit`.

    Returns:
        A PrimitiveResult, or the path of the file with the result.

    Raises:
        The errors of `submit` and `Task.result`.
    """
    task: Task[PrimitiveResult[Any] | Path] = _begin(
        input, wants_states=settings.get("on_progress") is not None, **settings
    )
    return task.result()


def _begin(
    given: Input,
    *,
    wants_states: bool,
    output: str | os.PathLike[str] | None = None,
    program: Program = "sampler",
    qpu: str | Qpu | None = None,
    timeout: float | None = None,
    shots: int | None = None,
    tags: Sequence[str] = (),
    close_session: bool = False,
    any_backend: bool = False,
    on_progress: Callable[[Progress], object] | None = None,
) -> Task[Any]:
    """Submit an input; see `submit`. `wants_states` is whether anything reads the state meanwhile."""
    found = qpu if isinstance(qpu, Qpu) else Qpu.of_job(qpu)
    worker = found.worker
    for tag in tags:
        if why := why_no_tag(tag):
            raise RequestError(f"{tag!r} cannot be a task's tag: it {why}.")
    if output is not None and (why := why_not_replace(Path(output))):
        raise PayloadError(f"{why}.")
    source, task_input = _load(given, program, shots)
    if task_input.program_id == "executor" and output is None:
        raise PayloadError(
            f"{source}: an executor's result is no PrimitiveResult. Give an output, and read it with "
            "qpu_slurm.read_executor_result."
        )
    task_input.warn(source)
    item = FutureItem(
        source=source,
        task_input=task_input,
        output=None if output is None else Path(output),
        tags=new_tags(found.binding, os.environ, tags),
        close_session=close_session,
        any_backend=any_backend,
        execution=Execution(
            worker.provider,
            _Teller(on_progress, wants_states=wants_states),
            timeout=timeout,
            pace=worker.pace,
        ),
    )
    worker.add(item)
    return Task(item, lambda: worker.cancel(item))


class _Teller(Observer):
    """Reports a task's progress to the program."""

    def __init__(self, tell: Callable[[Progress], object] | None, *, wants_states: bool) -> None:
        self.wants_states = wants_states
        self.wants_position = tell is not None
        self._tell = tell or (lambda _: None)
        self._task_id = ""

    def submitted(self, task_id: str) -> None:
        """Report that the service has the task."""
        self._task_id = task_id
        self._tell(Progress(task_id, TaskStatus.QUEUED))

    def changed(self, task: base.Task) -> None:
        """Report the new state."""
        if task.status is not TaskStatus.QUEUED:
            self._tell(Progress(task.id, task.status))

    def moved(self, position: int) -> None:
        """Report the place in the queue."""
        self._tell(Progress(self._task_id, TaskStatus.QUEUED, position))


def _load(given: Input, program: Program, shots: int | None) -> tuple[str, Payload]:
    """Read and check an input, and apply the settings to it. Returns its name in messages, too."""
    if isinstance(given, str | os.PathLike):
        source, task_input = str(given), payload.read(Path(given))
    else:
        source = "the input"
        with tempfile.TemporaryFile() as file:
            file.writelines(_pieces(given, program))
            file.seek(0)
            task_input = payload.receive(file, source=source)
    return source, task_input if shots is None else overrides.with_shots(task_input, shots)


def _pieces(pubs: Iterable[Any], program: Program) -> Iterator[bytes]:
    from qpu_slurm.api import inputs  # noqa: PLC0415 - only pubs need Qiskit

    document = inputs.estimator_document if program == "estimator" else inputs.sampler_document
    return inputs.pieces(document(pubs))
