# SPDX-License-Identifier: Apache-2.0
"""Every error that qpu_slurm raises on purpose.

    QpuSlurmError
    ├── ConfigError                 the admin's configuration is not valid
    ├── RequestError                a user's request cannot be met: the job ends, with this sentence
    │   ├── PayloadError            a primitive input or a result is not valid
    │   └── NoLeaseError            the job has no such QPU, or no session on it
    ├── OutputError                 a result cannot be written
    ├── TaskTimeoutError            a task took longer than its timeout
    ├── TaskFailedError             a task has no result (an exit code of task_runner)
    │   └── TaskCancelledError      it was cancelled at the service
    ├── JournalError                the record of leases cannot be read or written
    │   ├── NoJournalError          this host has no journal
    │   └── JournalDamagedError     the file is not a journal, or is damaged
    ├── SlurmError                  Slurm did not answer, or its answer is not understood
    │   └── SlurmAwayError          it did not answer: asking again later may help
    └── ServiceError                the quantum service refused a request, or did not answer
        ├── RefusedError            it refused: trying again does not help
        │   ├── NotFoundError       the requested object does not exist
        │   └── BudgetSpentError    a budget of QPU time, or money, is used up
        └── UnavailableError        trying again later may help
            ├── MustWaitError       the QPU is closed, in maintenance, or fully used
            │   ├── QpuFullError    as many jobs as may have the QPU
            │   ├── BudgetReservedError  running jobs have reserved what is left of a budget
            │   └── ThrottledError  the service takes no more requests of this kind for now
            └── AnswerLostError     a request may have taken effect, but its answer is lost

A message states what is wrong, then what to do about it. `str(error)` is the sentence that a user or an
admin reads. It never contains a credential.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


def sentences(*texts: str) -> str:
    """Join messages into sentences: each text once, with one full stop at its end.

    Args:
        texts: Messages of a service, a system or a library, with or without a full stop.
    """
    said = filter(None, (text.strip().rstrip(". ") for text in texts))
    return " ".join(dict.fromkeys(text if text[-1] in "!?…" else f"{text}." for text in said))


class QpuSlurmError(Exception):
    """The base class of all errors that qpu_slurm raises on purpose."""


class ConfigError(QpuSlurmError):
    """The admin's configuration is not valid.

    Args:
        problems: One sentence for each problem found, so that an admin can fix them all at once.
    """

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class RequestError(QpuSlurmError):
    """A user's request cannot be met, now or later; the job ends with this sentence."""


class PayloadError(RequestError):
    """A primitive input or a result is not valid."""


class NoLeaseError(RequestError):
    """The job has no such QPU, or no session on it."""


class OutputError(QpuSlurmError):
    """A result cannot be written to its file."""


class TaskTimeoutError(QpuSlurmError):
    """A task took longer than its timeout."""


class TaskFailedError(QpuSlurmError):
    """A task has no result; the error's notes are the end of its log.

    Args:
        message: What happened, in the service's words.
        task_id: The service's id of the task; empty if it is not known.
    """

    def __init__(self, message: str, *, task_id: str = "") -> None:
        super().__init__(message)
        self.task_id = task_id


class TaskCancelledError(TaskFailedError):
    """A task was cancelled at the service: by another user or program, or because it ran too long."""


class JournalError(QpuSlurmError):
    """The record of leases cannot be read or written: locked, damaged, disk full, no permission."""


class NoJournalError(JournalError):
    """This host has no record of leases: nothing was acquired yet, or another host keeps it."""


class JournalDamagedError(JournalError):
    """The file of the record of leases is damaged, or is another kind of file."""


class SlurmError(QpuSlurmError):
    """Slurm did not answer, or its answer is not understood."""


class SlurmAwayError(SlurmError):
    """Slurm did not answer: slurmctld or munged is away, or busy. Asking again later may help."""


class ServiceError(QpuSlurmError):
    """The quantum service refused a request, or did not answer.

    Args:
        message: What happened, in the service's words if there are any.
        status: The HTTP status, if there was an answer.
        code: The service's own number for the error, such as 1352.
        advice: What the service suggests that a user does (its field `solution`).
        admin_advice: What only the admin can do. It is logged, and not shown to the user.

    Attributes:
        qpu: The name of the QPU that it is about, where a job wanted several; else empty.
    """

    qpu: str = ""

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        code: int | None = None,
        advice: str = "",
        admin_advice: str = "",
    ) -> None:
        super().__init__(sentences(message, advice))
        self.message = message
        self.status = status
        self.code = code
        self.advice = advice
        self.admin_advice = admin_advice


@contextmanager
def about(qpu: str) -> Iterator[None]:
    """Note in a `ServiceError` that leaves the block which QPU it is about.

    Args:
        qpu: The QPU's name.
    """
    try:
        yield
    except ServiceError as error:
        error.qpu = error.qpu or qpu
        raise


class RefusedError(ServiceError):
    """The service refused the request; trying again does not help."""


class NotFoundError(RefusedError):
    """The requested object does not exist, or no longer."""


class BudgetSpentError(RefusedError):
    """A budget of QPU time, or of money, is used up.

    The gateway answers jobs with `STATUS` and `CODE`.

    Args:
        message: Whose budget, and how much of it is used.
        status: The HTTP status.
        code: The number by which clients of the gateway recognize it.
        advice: What a user can do.
        admin_advice: What only the admin can do.
    """

    STATUS = 403
    CODE = 9403

    def __init__(
        self,
        message: str,
        *,
        status: int | None = STATUS,
        code: int | None = CODE,
        advice: str = "",
        admin_advice: str = "",
    ) -> None:
        super().__init__(message, status=status, code=code, advice=advice, admin_advice=admin_advice)


class UnavailableError(ServiceError):
    """The service cannot be reached, or cannot serve now; trying again later may help."""


class MustWaitError(UnavailableError):
    """The QPU itself is not available now, though the service works: waiting helps, however long it takes."""


class QpuFullError(MustWaitError):
    """As many jobs as may have the QPU."""


class BudgetReservedError(MustWaitError):
    """Running jobs have reserved what is left of a budget."""


class ThrottledError(MustWaitError):
    """The service takes no more requests of this kind for now, and did nothing (429).

    Args:
        message: What happened, in the service's words.
        status: The HTTP status.
        code: The service's own number for the error.
        advice: What the service suggests that a user does.
        admin_advice: What only the admin can do.
        retry_after: The seconds after which the service wants to be asked again, if it says so.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        code: int | None = None,
        advice: str = "",
        admin_advice: str = "",
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message, status=status, code=code, advice=advice, admin_advice=admin_advice)
        self.retry_after = retry_after


class AnswerLostError(UnavailableError):
    """A request may have taken effect, but its answer is lost."""
