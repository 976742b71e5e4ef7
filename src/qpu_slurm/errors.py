# SPDX-License-Identifier: Apache-2.0
"""Every error that qpu_slurm raises on purpose.

    QpuSlurmError
    ├── ConfigError            what the admin wrote cannot be used
    ├── UserMistake            what the user asked for cannot be had: the job ends, with this sentence
    │   ├── PayloadError       a primitive input (or a result) is not in a form that we know
    │   └── NoLease            the job holds no QPU of that name
    ├── OutputError            a result could not be written
    ├── TimedOut               a task took longer than its user wanted to wait
    ├── TaskFailed             a task came to no result (task_runner says it by its exit code)
    │   └── TaskCancelled      it was cancelled on the service's side
    ├── JournalError           the record of leases cannot be read or written
    │   ├── NoJournalError     there is none on this host
    │   └── JournalDamagedError   what is in the file is no journal, or not all of it
    ├── SlurmError             Slurm did not answer, or answered what we do not understand
    └── ServiceError           the quantum service said no, or said nothing
        ├── Refused            it said no: asking again will not help
        │   └── NotFound       what was asked for is not there
        └── Unavailable        asking again later may help
            ├── MustWait       the QPU is closed, in maintenance, or in use by as many jobs as may
            └── AnswerLost     a request may have taken effect, and its answer never came

A message says what is wrong, then what to do about it: `str(error)` is the sentence that a user or an
admin reads, so it never holds a credential.
"""

from __future__ import annotations


def sentences(*texts: str) -> str:
    """Join what others said: each text once, and with one full stop at its end.

    Args:
        texts: In the words of a service, a system or a library, with a full stop or without.
    """
    said = filter(None, (text.strip().rstrip(". ") for text in texts))
    return " ".join(dict.fromkeys(text if text[-1] in "!?…" else f"{text}." for text in said))


class QpuSlurmError(Exception):
    """The base of every error that qpu_slurm raises on purpose."""


class ConfigError(QpuSlurmError):
    """What the admin wrote cannot be used.

    Args:
        problems: One sentence each; all that were found, since an admin wants to mend them in one go.
    """

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class UserMistake(QpuSlurmError):
    """What the user asked for cannot be had, now or later; the job ends with this sentence."""


class PayloadError(UserMistake):
    """A primitive input or result is not in a form that we know."""


class NoLease(UserMistake):
    """The job holds no QPU of the name that was asked for."""


class OutputError(QpuSlurmError):
    """A result could not be written where it was asked for."""


class TimedOut(QpuSlurmError):
    """A task took longer than its user wanted to wait."""


class TaskFailed(QpuSlurmError):
    """A task came to no result; the notes hold the end of its log.

    Args:
        message: What happened, in the service's words.
        task_id: The service's id of it; empty where it is not known.
    """

    def __init__(self, message: str, *, task_id: str = "") -> None:
        super().__init__(message)
        self.task_id = task_id


class TaskCancelled(TaskFailed):
    """A task was cancelled on the service's side: by somebody else, or since it ran too long."""


class JournalError(QpuSlurmError):
    """The record of leases cannot be read or written: locked, damaged, no room, no permission."""


class NoJournalError(JournalError):
    """There is no record of leases on this host: nothing was acquired yet, or it is kept elsewhere."""


class JournalDamagedError(JournalError):
    """The file of the record of leases is damaged, or holds something else."""


class SlurmError(QpuSlurmError):
    """Slurm did not answer, or answered something that we do not understand."""


class ServiceError(QpuSlurmError):
    """The quantum service said no, or said nothing.

    Args:
        message: What happened, in the service's words where it gave any.
        status: The HTTP status, if an answer came.
        code: The service's own number for the error, such as 1352.
        advice: What the service suggests to do (its field `solution`), where a user can do it.
        admin_advice: What only the admin can do about it; it goes into the log, and not to the user.
    """

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


class Refused(ServiceError):
    """The service said no; asking again will not help."""


class NotFound(Refused):
    """What was asked for is not there (any more)."""


class Unavailable(ServiceError):
    """The service could not be reached or is not able to serve; asking again later may help."""


class MustWait(Unavailable):
    """The QPU itself is not to be had now, while everything works: waiting helps, however long it takes."""


class AnswerLost(Unavailable):
    """A request may have taken effect, but its answer never came."""
