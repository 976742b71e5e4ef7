# SPDX-License-Identifier: Apache-2.0
"""task_runner's exit codes. They are a contract: docs/task_runner.md."""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from qpu_slurm.errors import (
    BudgetSpentError,
    ConfigError,
    OutputError,
    PayloadError,
    QpuSlurmError,
    RefusedError,
    RequestError,
    ServiceError,
    TaskTimeoutError,
)


class Exit(IntEnum):
    """An exit code. With several inputs, task_runner exits with the highest of theirs."""

    COMPLETED = 0
    FAILED = 1
    BAD_INPUT = 2
    REFUSED = 3
    UNAVAILABLE = 4
    OUTPUT = 5
    CANCELLED = 6
    TIMED_OUT = 7
    OVER_BUDGET = 8
    INTERNAL = 70

    @property
    def reason(self) -> str:
        """Its name in a summary."""
        return self.name.lower()


HELP: Final = """\
exit codes:
  0   completed: the result is written
  1   the task failed on the QPU
  2   bad input or usage: nothing was submitted
  3   refused: the job has no such QPU, or the service denies access, a session, or the task
  4   the service is not available
  5   the output cannot be written
  6   cancelled, by a signal or at the service
  7   cancelled after --timeout
  8   over budget: no QPU time is left for the task
  70  an error in task_runner itself
With several inputs, the exit code is the highest of theirs.
"""

# The first match counts, so subclasses come first.
_OF: Final[tuple[tuple[type[QpuSlurmError], Exit], ...]] = (
    (PayloadError, Exit.BAD_INPUT),
    (OutputError, Exit.OUTPUT),
    (TaskTimeoutError, Exit.TIMED_OUT),
    (BudgetSpentError, Exit.OVER_BUDGET),
    (RefusedError, Exit.REFUSED),
    (ServiceError, Exit.UNAVAILABLE),
    (RequestError, Exit.REFUSED),
    (ConfigError, Exit.REFUSED),
)


def exit_of(error: BaseException) -> Exit:
    """Return the exit code of an error; an error that was not raised on purpose is an internal one."""
    return next((code for kind, code in _OF if isinstance(error, kind)), Exit.INTERNAL)


def exit_and_message(error: BaseException) -> tuple[Exit, str]:
    """Say which exit code an error comes to, and what to print of it."""
    code = exit_of(error)
    if code is Exit.INTERNAL:
        return code, f"an error of task_runner itself: {type(error).__name__}: {error}"
    return code, str(error)
