# SPDX-License-Identifier: Apache-2.0
"""When a job was submitted, started and ended, as far as Slurm still knows."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec

from qpu_slurm.errors import SlurmError
from qpu_slurm.slurm._command_line import ALL
from qpu_slurm.slurm._commands import Commands, UnknownJob

if TYPE_CHECKING:
    from qpu_slurm.config import SlurmConfig

_FORMAT = "--Format=JobID:12,UserID:12,SubmitTime:20,StartTime:20,EndTime:20,Name:200"
_NUMBERS = 5
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
    try:
        output = Commands(config).run("squeue", *ALL, f"--jobs={job_id}", _FORMAT)
    except UnknownJob:
        return None
    return _times(output.decode(errors="replace"), job_id)


def _times(output: str, job_id: int) -> JobTimes | None:
    """Read the first line: of a heterogeneous job the leader's, of all tasks of an array the first."""
    line, _, _ = output.partition("\n")
    # Numbers and words of Slurm's own; what the user wrote comes last.
    values = line.split(None, _NUMBERS)
    if not values:
        return None
    if len(values) < _NUMBERS or not all(map(_NUMBER.fullmatch, values[:2])):
        raise SlurmError("squeue printed something that is not the table that it was asked for.")
    found, user_id, submitted_at, started_at, ended_at = values[:_NUMBERS]
    if int(found) != job_id:
        return None
    name = "".join(values[_NUMBERS:]).rstrip()
    return JobTimes(
        job_id=job_id,
        user_id=int(user_id),
        name="".join(letter for letter in name if letter.isprintable()),
        submitted_at=_past(submitted_at),
        started_at=_past(started_at),
        ended_at=_past(ended_at),
    )


def _past(text: str) -> datetime | None:
    """Read a time. What is not over yet is Slurm's guess, or a limit."""
    if not _NUMBER.fullmatch(text):
        return None
    time = datetime.fromtimestamp(int(text), UTC)
    return time if time <= datetime.now(UTC) else None
