# SPDX-License-Identifier: Apache-2.0
"""Executing inputs from Python, just as task_runner does: the same checks, tags, session and errors.

All tasks of a QPU are seen to by one thread, as in task_runner: it submits, asks for each when that is due,
and takes the results. So many tasks at once cost one connection, and the program goes on meanwhile, be it an
asyncio program or not.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, overload

import msgspec

from qpu_slurm.api.qpu import Qpu
from qpu_slurm.api.worker import Work
from qpu_slurm.errors import PayloadError, UserMistake
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
"""What pubs are for."""


class Progress(msgspec.Struct, frozen=True):
    """How far a task is.

    Attributes:
        task_id: The service's id of it.
        status: See `TaskStatus`.
        position: Its place in the queue, from 1, where the service says so.
    """

    task_id: str
    status: TaskStatus
    position: int | None = None


class Task(Generic[R]):
    """A task on its way; `submit` makes one. `await` it, or ask for its `result()`.

    Whoever stops waiting for it, by Ctrl-C or because its `await` is cancelled, cancels it.
    """

    def __init__(self, work: Work, cancel: Callable[[], None]) -> None:
        self._work = work
        self._cancel = cancel

    def job_id(self) -> str:
        """Return the service's id of the task, as soon as it has one (the service says "job").

        Raises:
            As `result` does, if it could not be submitted.
        """
        return self._patiently(self._work.submitted)

    def status(self) -> TaskStatus | None:
        """Say what has become of it, as far as was heard; None if the service does not have it yet."""
        execution = self._work.execution
        if execution.task is None:
            return None if execution.task_id is None else TaskStatus.QUEUED
        return execution.task.status

    def done(self) -> bool:
        """Say whether it is over: completed, failed or cancelled."""
        return self._work.over.done()

    def cancel(self) -> None:
        """Cancel it, and wait until the service has heard of that. One that is over already is fine."""
        self._cancel()

    def result(self) -> R:
        """Wait for the result.

        Returns:
            A PrimitiveResult, or the path that it was written to.

        Raises:
            PayloadError: The input was transpiled for another QPU, and does not fit.
            TaskFailed: The task came to no result.
            TimedOut: It took too long.
            OutputError: The result could not be written.
            ServiceError: The service said no, or said nothing.
            concurrent.futures.CancelledError: It was cancelled by this program.
        """
        self._patiently(self._work.over)
        result: R = self._work.take()
        return result

    def __await__(self) -> Generator[Any, None, R]:
        """Wait for the result; see `result`."""
        return self._wait().__await__()

    async def _wait(self) -> R:
        await asyncio.wrap_future(self._work.over)
        result: R = await asyncio.to_thread(self._work.take)
        return result

    def _patiently(self, future: Future[T]) -> T:
        try:
            return future.result()
        except Exception:
            raise
        except BaseException:  # Ctrl-C
            self._cancel()
            raise


@overload
def submit(
    input: Input,
    *,
    output: None = None,
    program: Program = ...,
    qpu: str | Qpu | None = ...,
    timeout: float | None = ...,
    shots: int | None = ...,
    tags: Sequence[str] = ...,
    final: bool = ...,
    any_backend: bool = ...,
    on_progress: Callable[[Progress], object] | None = ...,
) -> Task[PrimitiveResult[Any]]: ...
@overload
def submit(
    input: Input,
    *,
    output: str | os.PathLike[str],
    program: Program = ...,
    qpu: str | Qpu | None = ...,
    timeout: float | None = ...,
    shots: int | None = ...,
    tags: Sequence[str] = ...,
    final: bool = ...,
    any_backend: bool = ...,
    on_progress: Callable[[Progress], object] | None = ...,
) -> Task[Path]: ...
def submit(
    input: Input,  # noqa: A002 - the word for it
    *,
    output: str | os.PathLike[str] | None = None,
    program: Program = "sampler",
    qpu: str | Qpu | None = None,
    timeout: float | None = None,
    shots: int | None = None,
    tags: Sequence[str] = (),
    final: bool = False,
    any_backend: bool = False,
    on_progress: Callable[[Progress], object] | None = None,
) -> Task[PrimitiveResult[Any]] | Task[Path]:
    """Submit an input to the job's session, which is opened if need be, and return at once.

    Several that are submitted one after the other run one after the other, in the order of submission.

    Args:
        input: A file as task_runner reads it, or pubs as for Qiskit's `SamplerV2.run` (`EstimatorV2.run` with
            `program="estimator"`).
        output: Where the result is to be written; it appears whole or not at all. None returns it.
        program: What pubs are for; a file says it itself.
        qpu: Which of the job's QPUs; None is its first or only one.
        timeout: Seconds from the submission within which the task has to be over, or else it is cancelled.
        shots: For every pub of a sampler, in place of its own.
        tags: To find the task by at the service, besides those that every task gets.
        final: Whether the job needs its session no more: once this task is submitted, the session takes no
            others, and the QPU is free the moment its tasks are over.
        any_backend: Whether to submit even what was transpiled for another QPU and does not fit this one.
        on_progress: Is told what becomes of the task, in another thread. What it raises ends the task.

    Raises:
        NoLease: The job has no such QPU, or holds no session on it.
        PayloadError: The input is not in a form that the service takes, or the output holds an input.
        OutputError: The result cannot be written there.
        UserMistake: A tag is no line of text, or one that only qpu_slurm makes.
    """
    found = qpu if isinstance(qpu, Qpu) else Qpu.of_job(qpu)
    worker = found.worker
    for tag in tags:
        if why := why_no_tag(tag):
            raise UserMistake(f"{tag!r} cannot be a task's tag: it {why}.")
    if output is not None and (why := why_not_replace(Path(output))):
        raise PayloadError(f"{why}.")
    source, task_input = _load(input, program, shots)
    if task_input.program_id == "executor" and output is None:
        raise PayloadError(
            f"{source}: an executor's result is no PrimitiveResult. Give an output, and read it with "
            "qpu_slurm.read_executor_result."
        )
    task_input.warn(source)
    work = Work(
        source=source,
        task_input=task_input,
        output=None if output is None else Path(output),
        tags=new_tags(found.binding, os.environ, tags),
        cost=found.binding.task_timeout,
        final=final,
        any_backend=any_backend,
        execution=Execution(worker.provider, _Teller(on_progress), timeout=timeout),
    )
    worker.add(work)
    return Task(work, lambda: worker.cancel(work))


@overload
def execute(
    input: Input,
    *,
    output: None = None,
    program: Program = ...,
    qpu: str | Qpu | None = ...,
    timeout: float | None = ...,
    shots: int | None = ...,
    tags: Sequence[str] = ...,
    final: bool = ...,
    any_backend: bool = ...,
    on_progress: Callable[[Progress], object] | None = ...,
) -> PrimitiveResult[Any]: ...
@overload
def execute(
    input: Input,
    *,
    output: str | os.PathLike[str],
    program: Program = ...,
    qpu: str | Qpu | None = ...,
    timeout: float | None = ...,
    shots: int | None = ...,
    tags: Sequence[str] = ...,
    final: bool = ...,
    any_backend: bool = ...,
    on_progress: Callable[[Progress], object] | None = ...,
) -> Path: ...
def execute(input: Input, **settings: Any) -> PrimitiveResult[Any] | Path:  # noqa: A002 - as `submit`
    """Execute an input in the job's session, and wait for its result: `submit(…).result()`.

    Args:
        input: See `submit`.
        settings: See `submit`.

    Returns:
        A PrimitiveResult, or the path that it was written to.

    Raises:
        As `submit` and `Task.result` do.
    """
    task: Task[PrimitiveResult[Any] | Path] = submit(input, **settings)
    return task.result()


class _Teller(Observer):
    """Tells a program what becomes of its task."""

    def __init__(self, tell: Callable[[Progress], object] | None) -> None:
        self.wants_position = tell is not None
        self._tell = tell or (lambda _: None)
        self._task_id = ""

    def submitted(self, task_id: str) -> None:
        """Tell that the service has it."""
        self._task_id = task_id
        self._tell(Progress(task_id, TaskStatus.QUEUED))

    def changed(self, task: base.Task) -> None:
        """Tell its new state."""
        if task.status is not TaskStatus.QUEUED:
            self._tell(Progress(task.id, task.status))

    def moved(self, position: int) -> None:
        """Tell its place in the queue."""
        self._tell(Progress(self._task_id, TaskStatus.QUEUED, position))


def _load(given: Input, program: Program, shots: int | None) -> tuple[str, Payload]:
    """Read and check an input, and change in it what is asked for; say what to call it, too."""
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
