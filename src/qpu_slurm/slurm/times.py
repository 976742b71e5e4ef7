# SPDX-License-Identifier: Apache-2.0
"""When a job was submitted, started and ended, as far as Slurm still knows."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec

from qpu_slurm.slurm._commands import Commands, UnknownJob
from qpu_slurm.slurm._records import format_option, number, records

if TYPE_CHECKING:
    from qpu_slurm.config import SlurmConfig

_FIELDS = {
    "JobID": 12,
    "UserID": 12,
    "SubmitTime": 20,
    "StartTime": 20,
    "EndTime": 20,
    "Name": 200,
}


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
    # Seconds since the epoch, in whatever time zone somebody lives.
    commands = Commands(config, {"SLURM_TIME_FORMAT": "%s"})
    try:
        output = commands.run(
            "squeue", "--noheader", "--all", "--states=all", f"--jobs={job_id}", format_option(_FIELDS)
        )
    except UnknownJob:
        return None
    return next(
        (_times(values) for values in records(output, _FIELDS) if number(values["JobID"]) == job_id), None
    )


def _times(values: dict[str, str]) -> JobTimes:
    return JobTimes(
        job_id=number(values["JobID"]),
        user_id=number(values["UserID"]),
        name="".join(letter for letter in values["Name"] if letter.isprintable()),
        submitted_at=_past(values["SubmitTime"]),
        started_at=_past(values["StartTime"]),
        ended_at=_past(values["EndTime"]),
    )


def _past(text: str) -> datetime | None:
    """Read a time. What is not over yet is Slurm's guess, or a limit."""
    if not (text.isascii() and text.isdigit()):
        return None
    time = datetime.fromtimestamp(int(text), UTC)
    return time if time <= datetime.now(UTC) else None
