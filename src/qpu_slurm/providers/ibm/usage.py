# SPDX-License-Identifier: Apache-2.0
"""What a session was used for: its own account of it, its tasks, and when each of them ran."""

from __future__ import annotations

from contextlib import suppress
from itertools import pairwise, repeat
from typing import TYPE_CHECKING

from qpu_slurm.errors import RefusedError, UnavailableError
from qpu_slurm.providers.base import SessionState, SessionUsage, TaskUsage
from qpu_slurm.providers.ibm import answers
from qpu_slurm.providers.ibm.http import part

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from qpu_slurm.providers.ibm.http import Http

_PAGE = 200
_PAGES = 50

_TIMED = 200
"""How many tasks of a session are asked when they ran: a request for each."""


def read(http: Http, session_id: str) -> SessionUsage:
    """Ask what a session was used for; what a version of the service does not say is left out.

    Args:
        http: The service's API.
        session_id: The session.

    Raises:
        ServiceError: The service does not tell.
    """
    session = http.call("GET", f"/sessions/{part(session_id)}", answers.reading(answers.UsedSession))
    jobs = sorted(_jobs(http, session_id), key=lambda job: job.created or "")
    state = SessionState(session.state) if session.state in tuple(SessionState) else SessionState.OPEN
    return SessionUsage(
        state=state,
        locked_seconds=None if session.elapsed_time is None else max(session.elapsed_time, 0.0),
        active=tuple(_active(session.timestamps or [])),
        tasks=tuple(map(_task, jobs, _timestamps(http, jobs))),
    )


def _jobs(http: Http, session_id: str) -> Iterator[answers.UsedJob]:
    for page in range(_PAGES):
        params: dict[str, str | list[str]] = {
            "exclude_params": "true",
            "session_id": session_id,
            "limit": str(_PAGE),
            "offset": str(page * _PAGE),
        }
        jobs = http.call("GET", "/jobs", answers.reading(answers.UsedJobs), params=params).jobs
        yield from jobs
        if len(jobs) < _PAGE:
            return


def _timestamps(http: Http, jobs: Sequence[answers.UsedJob]) -> Iterator[answers.Timestamps]:
    """Ask when each job ran: as long as there is time, since what it has used is known without."""
    with suppress(UnavailableError):
        for job in jobs[:_TIMED]:
            try:
                path = f"/jobs/{part(job.id)}/metrics"
                metrics = http.call("GET", path, answers.reading(answers.JobMetrics))
            except RefusedError:  # it has none
                metrics = answers.JobMetrics()
            yield metrics.timestamps or answers.Timestamps()
    yield from repeat(answers.Timestamps())


def _task(job: answers.UsedJob, times: answers.Timestamps) -> TaskUsage:
    seconds = None if job.usage is None else job.usage.seconds
    return TaskUsage(
        id=job.id,
        status=answers.status_of(job),
        seconds=max(seconds or 0.0, 0.0),
        created_at=answers.time_of(job.created) or answers.time_of(times.created),
        started_at=answers.time_of(times.running),
        ended_at=answers.time_of(times.finished) or answers.time_of(job.ended),
    )


def _active(changes: list[answers.StateChange]) -> Iterator[tuple[datetime, datetime]]:
    """Find the times between the state `active` and the one that came after it."""
    for before, after in pairwise(changes):
        begin, end = answers.time_of(before.timestamp), answers.time_of(after.timestamp)
        if before.status == SessionState.ACTIVE and begin is not None and end is not None and end > begin:
            yield begin, end
