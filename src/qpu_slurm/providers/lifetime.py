# SPDX-License-Identifier: Apache-2.0
"""The rule that no session outlives its job: every session's time to live comes from here."""

from __future__ import annotations


def session_ttl(longest: int, seconds_left: float | None) -> int:
    """Return the seconds that a session may live, of a job whose remaining time Slurm has just reported.

    Args:
        longest: The admin's limit, in seconds (`max_ttl`).
        seconds_left: What is left of the job's time limit; None if the job has no limit.
    """
    return longest if seconds_left is None else max(1, min(int(seconds_left), longest))


def later_session_ttl(longest: int, seconds_left: float | None) -> int:
    """Return the same, where what is left follows from the end that Slurm reported at the job's start.

    A job that runs beyond that end was given more time since: how much is not known here.

    Args:
        longest: The admin's limit, in seconds (`max_ttl`).
        seconds_left: Seconds until that end, negative after it; None if the job has no limit.
    """
    return longest if seconds_left is not None and seconds_left <= 0 else session_ttl(longest, seconds_left)
