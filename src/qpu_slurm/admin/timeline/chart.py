# SPDX-License-Identifier: Apache-2.0
"""What a timeline shows: for each job rows of bars, in seconds since its workflow was submitted."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING

import msgspec

from qpu_slurm.journal.model import LeaseState

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from qpu_slurm.journal.history import LeaseHistory, Lock, SessionHistory, Step
    from qpu_slurm.leases.job_history import JobHistory

_SCRIPT = frozenset({"batch", "extern"})
"""Steps that last as long as their job, which has a row of its own."""


class Kind(StrEnum):
    """What a bar means; the words are the legend's."""

    WAITING = "waits in a queue"
    JOB = "job runs"
    STEP = "step runs"
    SESSION = "session is open"
    EXECUTING = "QPU executes"
    IDLE = "QPU is locked, and idle"


class Bar(msgspec.Struct, frozen=True, kw_only=True):
    """A time, in seconds since the workflow's first submission.

    Attributes:
        kind: What it means.
        begin: Since when.
        end: Until when.
        going_on: Whether it is not over, as far as is known: `end` is now, or the job's.
    """

    kind: Kind
    begin: float
    end: float
    going_on: bool = False

    @property
    def seconds(self) -> float:
        """How long it is."""
        return self.end - self.begin


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """A line of a timeline.

    Attributes:
        label: What it is about.
        bars: What happened; later ones are drawn over earlier ones.
        note: What its bars come to.
        locks: Whether it shows when a QPU was locked, which is what it is all about.
    """

    label: str
    bars: tuple[Bar, ...] = ()
    note: str = ""
    locks: bool = False


class JobRows(msgspec.Struct, frozen=True, kw_only=True):
    """A job's part: its title and its rows."""

    job_id: int
    title: str
    rows: tuple[Row, ...]


class Workflow(msgspec.Struct, frozen=True, kw_only=True):
    """Jobs that belong together.

    Attributes:
        label: What it is called.
        submitted_at: When its first job was submitted: the zero of its bars.
        jobs: Its jobs.
        seconds: When its last job was over, or now.
        locked_seconds: How long QPUs were locked, as far as the service has told.
        executed_seconds: How long they executed; likewise.
        untold: Of how many sessions the service has not told, yet or ever.
    """

    label: str
    submitted_at: datetime
    jobs: tuple[JobRows, ...]
    seconds: float
    locked_seconds: float
    executed_seconds: float
    untold: int

    @property
    def summary(self) -> str:
        """What it comes to, in a line."""
        idle = max(self.locked_seconds - self.executed_seconds, 0.0)
        unknown = f"; {self.untold} session{'s' * (self.untold > 1)} not known" if self.untold else ""
        return (
            f"{self.seconds:.1f} s in all; QPU locked {self.locked_seconds:.1f} s: "
            f"executing {self.executed_seconds:.1f} s, idle {idle:.1f} s{unknown}"
        )


def workflow(histories: Sequence[JobHistory], label: str = "") -> Workflow:
    """Lay out the jobs of a workflow.

    Args:
        histories: What is known of its jobs, in the order in which they are shown.
        label: What it is called; by default by its jobs' numbers.
    """
    times = [_Times(history) for history in histories]
    zero = min(moment.first for moment in times)
    jobs = tuple(
        _job(history, moment, _Scale(zero)) for history, moment in zip(histories, times, strict=True)
    )
    sessions = [past.session for history in histories for past in _sessions(history)]
    plural = "s" if len(histories) > 1 else ""
    return Workflow(
        label=label or f"Job{plural} {', '.join(str(history.job_id) for history in histories)}",
        submitted_at=zero,
        jobs=jobs,
        seconds=max(((moment.ended_at or _now()) - zero).total_seconds() for moment in times),
        locked_seconds=sum(session.locked_seconds or 0.0 for session in sessions),
        executed_seconds=sum(session.executed_seconds or 0.0 for session in sessions),
        untold=sum(session.locked_seconds is None for session in sessions),
    )


class _Scale:
    """Makes bars of times."""

    def __init__(self, zero: datetime) -> None:
        self._zero = zero

    def bar(
        self, kind: Kind, begin: datetime | None, end: datetime | None, *, open_end: bool = False
    ) -> list[Bar]:
        """Return a bar, in a list; an empty one if it is not known when it began or ended."""
        if begin is None or (end is None and not open_end):
            return []
        seconds = [max((time - self._zero).total_seconds(), 0.0) for time in (begin, end or _now())]
        return [Bar(kind=kind, begin=seconds[0], end=max(seconds), going_on=end is None)]


class _Times:
    """When a job was submitted, started and ended: by the journal, else by Slurm, to the second."""

    def __init__(self, history: JobHistory) -> None:
        leases = [past.lease for past in history.leases]
        slurm = history.slurm
        submitted = [lease.submitted_at for lease in leases if lease.submitted_at]
        self.submitted_at = min(submitted, default=slurm.submitted_at if slurm else None)
        # The prolog's acquire is what a job begins with.
        self.started_at = min(
            (lease.created_at for lease in leases), default=slurm.started_at if slurm else None
        )
        ended = [lease.ended_at for lease in leases]
        if not leases:
            self.ended_at = slurm.ended_at if slurm else None
        elif None in ended:
            self.ended_at = None
        else:
            self.ended_at = max(time for time in ended if time is not None)
        known = [time for time in (self.submitted_at, self.started_at, self.ended_at) if time is not None]
        self.first = min(known, default=_now())


def _job(history: JobHistory, times: _Times, scale: _Scale) -> JobRows:
    name = f": {history.slurm.name}" if history.slurm and history.slurm.name else ""
    waiting = scale.bar(Kind.WAITING, times.submitted_at, times.started_at, open_end=times.ended_at is None)
    running = scale.bar(Kind.JOB, times.started_at, times.ended_at, open_end=True)
    rows = [Row(label="job", bars=(*waiting, *running), note=_took(running))]
    if history.waits and times.started_at is None:
        rows.append(Row(label="waits", bars=(), note=history.waits))
    rows += [_step(step, times.ended_at, scale) for step in history.steps if step.step not in _SCRIPT]
    for past in history.leases:
        if (chosen := past.lease.chosen) is not None and past.lease.granted:
            rows.append(Row(label=f"{past.lease.qpu}: chosen", note=f"for {chosen.asked}. {chosen.why}"))
        if past.sessions:
            rows += _lease(past, scale)
        elif past.lease.state is LeaseState.FAILED:
            rows.append(Row(label=f"{past.lease.qpu}: refused", note=past.lease.reason))
    return JobRows(job_id=history.job_id, title=f"Job {history.job_id}{name}", rows=tuple(rows))


def _step(step: Step, job_end: datetime | None, scale: _Scale) -> Row:
    bars = scale.bar(Kind.STEP, step.started_at, step.ended_at or job_end, open_end=True)
    if step.ended_at is None:  # it runs, or nobody has told of its end
        bars = [msgspec.structs.replace(bar, going_on=True) for bar in bars]
    return Row(label=f"step {step.step}: {step.name}", bars=tuple(bars), note=_took(bars))


def _lease(past: LeaseHistory, scale: _Scale) -> Iterator[Row]:
    qpu = past.lease.qpu
    sessions: list[Bar] = []
    tasks: list[Bar] = []
    locks: list[Bar] = []
    notes: list[str] = []
    for session in past.sessions:
        sessions += _session(session, scale)
        tasks += _tasks(session, scale)
        locks += _locks(session, scale)
        notes += [_unknown(session)] if session.session.locked_seconds is None else []
    executed = [bar for bar in tasks if bar.kind is Kind.EXECUTING]
    yield Row(label=f"{qpu}: session", bars=tuple(sessions), note=_took(sessions))
    yield Row(label=f"{qpu}: task", bars=tuple(tasks), note=_took(executed))
    locked = sum(session.session.locked_seconds or 0.0 for session in past.sessions)
    known = len(notes) < len(past.sessions)
    yield Row(
        label=f"{qpu}: locked",
        # What executes is drawn over what is locked: what is seen of that is idle.
        bars=(*locks, *executed) if locks else (),
        note="; ".join([f"{locked:.1f} s", *notes] if known else dict.fromkeys(notes)),
        locks=True,
    )


def _session(past: SessionHistory, scale: _Scale) -> list[Bar]:
    session = past.session
    # A session that was closed while its last task ran lives until that ends.
    ends = [lock.ended_at for lock in past.locks]
    end = session.ended_at and max(session.ended_at, *ends) if ends else session.ended_at
    # One that a step has opened by itself is recorded only as it is ended.
    begin = min([session.opened_at, *(task.created_at for task in past.tasks if task.created_at)])
    return scale.bar(Kind.SESSION, begin, end, open_end=True)


def _tasks(past: SessionHistory, scale: _Scale) -> Iterator[Bar]:
    for task in past.tasks:
        # One that was cancelled as it waited never started.
        yield from scale.bar(Kind.WAITING, task.created_at, task.started_at or task.ended_at)
    for task in past.tasks:
        yield from scale.bar(Kind.EXECUTING, task.started_at, task.ended_at)


def _locks(past: SessionHistory, scale: _Scale) -> Iterator[Bar]:
    for begin, end in _locked(past.locks, past):
        yield from scale.bar(Kind.IDLE, begin, end)


def _locked(locks: Iterable[Lock], past: SessionHistory) -> list[tuple[datetime, datetime]]:
    """Say when a session was active; where the service tells only how long, from its first task on."""
    told = [(lock.began_at, lock.ended_at) for lock in locks]
    begin = min((task.started_at for task in past.tasks if task.started_at), default=None)
    if told or begin is None or not past.session.locked_seconds:
        return told
    return [(begin, begin + timedelta(seconds=past.session.locked_seconds))]


def _unknown(past: SessionHistory) -> str:
    session = past.session
    if session.unknown:
        return f"unknown: {session.unknown}"
    return "not told yet" if session.ended_at else "known when the session is over"


def _sessions(history: JobHistory) -> Iterator[SessionHistory]:
    for past in history.leases:
        yield from past.sessions


def _took(bars: Sequence[Bar]) -> str:
    return f"{sum(bar.seconds for bar in bars):.1f} s" if bars else ""


def _now() -> datetime:
    return datetime.now(UTC)
