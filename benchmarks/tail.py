# SPDX-License-Identifier: Apache-2.0
"""The tail: from the task's end to the result on disk.

Tasks up to 10 seconds are run as they are, by the command. Longer ones are run by the same code on a
simulated clock: what it would sleep, the emulator's clock is moved forward. Every request is sent.
"""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING, NamedTuple
from unittest import mock

from benchmarks.figures import Figure
from benchmarks.processes import rounded
from benchmarks.step import Step
from qpu_slurm.system import deadline
from qpu_slurm.system.atomic_file import Output
from qpu_slurm.tasks import execution, payload

if TYPE_CHECKING:
    from collections.abc import Iterator

_REAL = {0.1: 7, 0.3: 5, 1.0: 5, 3.0: 3, 10.0: 1}
"""How many times a task of so many seconds is run."""

_SIMULATED = {30.0: 5, 60.0: 5, 600.0: 5}

_ALLOWED = 0.05
_ALLOWED_SECONDS = 0.06


class _Tail(NamedTuple):
    duration: float
    seconds: list[float]
    polls: int
    simulated: bool

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


class _Clock:
    """Stands for the module `time`: sleeping moves the emulator's clock and this one."""

    def __init__(self, step: Step) -> None:
        self._step = step
        self.moved = 0.0

    def monotonic(self) -> float:
        return time.monotonic() + self.moved

    def time(self) -> float:
        return time.time() + self.moved

    def sleep(self, seconds: float) -> None:
        self._step.emulator.advance(seconds)
        self.moved += seconds


def measure() -> Iterator[Figure]:
    """Measure tails of tasks from 0.1 seconds to 10 minutes."""
    tails = [*(_real(*of) for of in _REAL.items()), *(_simulated(*of) for of in _SIMULATED.items())]
    long = [tail for tail in tails if tail.duration * _ALLOWED > _ALLOWED_SECONDS]
    short = [tail for tail in tails if tail not in long]
    details = {
        f"{tail.duration:g} s": {
            "tail_seconds": rounded(tail.seconds),
            "fraction": round(tail.median / tail.duration, 4),
            "polls": tail.polls,
            "simulated_clock": tail.simulated,
        }
        for tail in tails
    }
    worst = max(long, key=lambda tail: tail.median / tail.duration)
    yield Figure(
        key="runner.tail_fraction",
        what="task's end to result on disk, over its duration of 3 s to 10 min",
        value=worst.median / worst.duration,
        at_most=_ALLOWED,
        details=details,
        note=(
            f"The worst is the task of {worst.duration:g} s. From 30 s on, the clock is simulated. "
            f"A task of 10 minutes is polled {tails[-1].polls} times."
        ),
    )
    worst = max(short, key=lambda tail: tail.median)
    yield Figure(
        key="runner.tail_short_seconds",
        what="the same in seconds, for tasks of 0.1 s to 1 s",
        value=worst.median,
        at_most=_ALLOWED_SECONDS,
        unit="s",
        note=f"The worst is the task of {worst.duration:g} s.",
    )


def _real(duration: float, times: int) -> _Tail:
    """Run the command; when the result is in its place, the file system tells."""
    seconds = []
    with Step(task_seconds=duration, result_bytes=1000) as step:
        for _ in range(times):
            step.run_ours()
            done_at = step.emulator.tasks()[-1].done_at or 0
            seconds.append(step.output.stat().st_ctime - done_at)
        polls = sum(request.path.count("/") == 2 for request in step.emulator.requests()) // times  # noqa: PLR2004 - /jobs/ID
    return _Tail(duration, seconds, polls, simulated=False)


def _simulated(duration: float, times: int) -> _Tail:
    """Run the command's own code on a clock of ours; durations that differ meet the polls otherwise."""
    seconds, polls = [], 0
    for number in range(times):
        with Step(task_seconds=duration * (1 + number / 100), result_bytes=1000) as step:
            clock = _Clock(step)
            task_input = payload.read(step.input)
            with (
                # All that waits for a task reads the clock in one of the two.
                mock.patch.object(execution, "time", clock),
                mock.patch.object(deadline, "time", clock),
                Output(step.output) as output,
                execution.Execution(step.provider) as running,
            ):
                running.submit(task_input, session_id=step.session_id, tags=("tail",))
                running.wait()
                output.write(running.result())
            over = clock.time()
            seconds.append(over - (step.emulator.tasks()[-1].done_at or 0))
            polls = max(polls, running.polls + 1)
    return _Tail(duration, seconds, polls, simulated=True)
