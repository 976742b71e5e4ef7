# SPDX-License-Identifier: Apache-2.0
"""When a job was submitted, started and ended, as far as Slurm still knows."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from io import BytesIO
from typing import TYPE_CHECKING

import msgspec

from qpu_slurm.errors import SlurmError
from qpu_slurm.slurm._command_line import ALL, records
from qpu_slurm.slurm._commands import Commands, UnknownJobError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qpu_slurm.config import SlurmConfig

_FIELDS = {"JobID": 12, "UserID": 12, "SubmitTime": 20, "StartTime": 20, "EndTime": 20, "Name": 200}
_NUMBER = re.compile("[0-9]{1,11}")


class JobTimes(msgspec.Struct, frozen=True, kw_only=True):
    """A job's times, to the second.

    Attributes:
        job_id: The job; of a heterogeneous job, the leader.
        user_id: Whose it is.
        name: What its user called it.
        submitted_at: When it was submitted, or requeued.
        started_at: When it started; None if it has not.
        ended_at: When it was over; None if it is not.
    """

    job_id: int
    user_id: int
    name: str
    submitted_at: datetime | None
    started_at: datetime | None
    ended_at: datetime | None


def job_times(config: SlurmConfig, job_id: int) -> JobTimes | None:
    """Ask Slurm for a job's times; None if it does not know the job (any more).

    Args:
        config: Where Slurm's commands are, which cluster to ask, and how long to wait for an answer.
        job_id: The job; of a heterogeneous job, the leader.

    Raises:
        SlurmError: Slurm does not answer.
    """
    return next((times for times in _times(_squeue(config, str(job_id))) if times.job_id == job_id), None)


def number_of(config: SlurmConfig, element: str) -> int | None:
    """Ask Slurm for the number of an array's element; None if it does not know the element (any more).

    Args:
        config: As above.
        element: The element, such as `12_3`. Those that have not started yet share a number.

    Raises:
        SlurmError: Slurm does not answer.
    """
    return next((times.job_id for times in _times(_squeue(config, element))), None)


def _squeue(config: SlurmConfig, job: str) -> bytes:
    listed = ",".join(f"{name}:{width}" for name, width in _FIELDS.items())
    try:
        return Commands(config).run("squeue", *ALL, f"--jobs={job}", f"--Format={listed}")
    except UnknownJobError:
        return b""


def _times(output: bytes) -> Iterator[JobTimes]:
    """Read each line: a heterogeneous job has one for each component, an array one for each element.

    An array's number belongs to one of its elements, whose line need not be the first.
    """
    for values in records(BytesIO(output), _FIELDS):
        if not all(map(_NUMBER.fullmatch, (values["JobID"], values["UserID"]))):
            raise SlurmError("squeue printed something that is not the table that it was asked for.")
        yield JobTimes(
            job_id=int(values["JobID"]),
            user_id=int(values["UserID"]),
            name="".join(letter for letter in values["Name"] if letter.isprintable()),
            submitted_at=_past(values["SubmitTime"]),
            started_at=_past(values["StartTime"]),
            ended_at=_past(values["EndTime"]),
        )


def _past(text: str) -> datetime | None:
    """Read a time. What is not over yet is Slurm's guess, or a limit."""
    if not _NUMBER.fullmatch(text):
        return None
    time = datetime.fromtimestamp(int(text), UTC)
    return time if time <= datetime.now(UTC) else None
