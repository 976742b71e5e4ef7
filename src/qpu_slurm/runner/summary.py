# SPDX-License-Identifier: Apache-2.0
"""What a program reads of a call of task_runner (`--json`). Its keys are a contract: docs/task_runner.md."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Final

import msgspec

from qpu_slurm.runner.exit_codes import Exit

if TYPE_CHECKING:
    from qpu_slurm.providers.base import TaskTimes

VERSION: Final = 1

ALREADY_DONE: Final = "already_done"
NOT_EXECUTED: Final = "not_executed"


class TaskSummary(msgspec.Struct, kw_only=True):
    """What became of one input.

    Attributes:
        input: The input, as it was named.
        output: Where its result goes; None is standard output.
        exit_code: What task_runner's would be, were this its only input.
        exit_reason: `Exit.reason`, `already_done` or `not_executed`.
        message: What went wrong, in one sentence; empty if nothing did.
        program_id: `sampler`, `estimator` or `executor`.
        task_id: The service's id; None if nothing was submitted.
        session_id: The session that the task is in.
        tags: The task's.
        submitted_at: When this call submitted it, by the clock of the node.
        total_seconds: From the submission to the result in its place, or to the end in another way.
        queue_seconds: Waited in the service's queue, by the service's clock.
        execution_seconds: Ran on the QPU, by the service's clock.
        quantum_seconds: What the service charges.
    """

    input: str
    output: str | None
    exit_code: int = Exit.COMPLETED
    exit_reason: str = NOT_EXECUTED
    message: str = ""
    program_id: str | None = None
    task_id: str | None = None
    session_id: str | None = None
    tags: tuple[str, ...] = ()
    submitted_at: datetime | None = None
    total_seconds: float | None = None
    queue_seconds: float | None = None
    execution_seconds: float | None = None
    quantum_seconds: float | None = None

    def end(self, code: Exit, message: str = "", *, reason: str = "") -> None:
        """Write down how it ended.

        Args:
            code: The exit code.
            message: What went wrong.
            reason: If the code's own is not the whole truth.
        """
        self.exit_code, self.exit_reason, self.message = int(code), reason or code.reason, message

    def took(self, times: TaskTimes) -> None:
        """Write down where the time went."""
        self.queue_seconds, self.execution_seconds, self.quantum_seconds = (
            times.queued,
            times.running,
            times.quantum,
        )


class PubReport(msgspec.Struct, kw_only=True):
    """What `--dry-run` found of one pub.

    Attributes:
        qubits: How many qubits the circuit uses; None if it could not be read.
        operations: How often it uses which.
        problems: What does not fit the QPU, or is refused before it gets there.
        warnings: What is executed, and probably not what was meant.
        unchecked: What was not looked at.
        shots: For each set of parameter values; None leaves them to the service.
        total_shots: For all of them.
    """

    qubits: int | None = None
    operations: dict[str, int] = {}
    problems: list[str] = []
    warnings: list[str] = []
    unchecked: list[str] = []
    shots: int | None = None
    total_shots: int | None = None


class InputReport(msgspec.Struct, kw_only=True):
    """What `--dry-run` found of one input.

    Attributes:
        input: The input, as it was named.
        program_id: `sampler`, `estimator` or `executor`; None if it is no input.
        problems: What is wrong with it as a whole.
        unchecked: What was not looked at.
        pubs: What was found of each.
        total_shots: Of all pubs; None if that cannot be told.
        max_quantum_seconds: How much QPU time the task may take; None leaves that to the service.
    """

    input: str
    program_id: str | None = None
    problems: list[str] = []
    unchecked: list[str] = []
    pubs: list[PubReport] = []
    total_shots: int | None = None
    max_quantum_seconds: int | None = None


class DryRun(msgspec.Struct, kw_only=True):
    """What `--dry-run` found.

    Attributes:
        online: Whether the QPU takes tasks now; None if it was not asked.
        reason: Why not.
        queue_length: How many tasks wait for it.
        qubits: How many it has.
        inputs: What was found of each.
    """

    online: bool | None = None
    reason: str = ""
    queue_length: int | None = None
    qubits: int | None = None
    inputs: list[InputReport] = []


class Summary(msgspec.Struct, kw_only=True):
    """What became of a call.

    Attributes:
        version: Of this form; another key is no other version.
        qpu: As in `--qpu`.
        backend: The service's name of it.
        session_id: The session that the last task ran in; without a task, the one that the job has.
        slurm_job_id: The job's.
        exit_code: task_runner's.
        exit_reason: `Exit.reason`.
        message: What went wrong before any input's turn came.
        session_closing: Whether the session takes no more tasks (`--final`); None if that was not asked for.
        tasks: One for each input, in their order.
        dry_run: What `--dry-run` found; None without it.
    """

    version: int = VERSION
    qpu: str
    backend: str | None = None
    session_id: str | None = None
    slurm_job_id: str | None = None
    exit_code: int = Exit.COMPLETED
    exit_reason: str = Exit.COMPLETED.reason
    message: str = ""
    session_closing: bool | None = None
    tasks: list[TaskSummary] = []
    dry_run: DryRun | None = None

    def end(self, code: Exit, message: str = "") -> None:
        """Write down how the call ended."""
        self.exit_code, self.exit_reason, self.message = int(code), code.reason, message

    def name_session(self) -> None:
        """Write down the session, if a task has shown which one it is."""
        sessions = [task.session_id for task in self.tasks if task.session_id]
        self.session_id = sessions[-1] if sessions else self.session_id

    def text(self) -> bytes:
        """Write it as JSON."""
        return msgspec.json.format(msgspec.json.encode(self), indent=2) + b"\n"
