# SPDX-License-Identifier: Apache-2.0
"""Long computations rest now and then."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from qpu_slurm.system import pace
from qpu_slurm.system.pace import paced

if TYPE_CHECKING:
    from collections.abc import Iterator


class Clock:
    """Stands for the module `time`: each item takes some CPU."""

    def __init__(self) -> None:
        self.used = 0.0
        self.slept: list[float] = []

    def thread_time(self) -> float:
        return self.used

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)

    def items(self, count: int, seconds: float) -> Iterator[int]:
        for number in range(count):
            self.used += seconds
            yield number


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(pace, "time", clock)
    return clock


def test_a_thread_that_computes_rests_four_times_as_long(clock: Clock) -> None:
    assert list(paced(clock.items(1000, 0.001))) == list(range(1000))
    assert sum(clock.slept) == pytest.approx(4 * clock.used, rel=0.05)
    assert max(clock.slept) <= 0.1


def test_what_takes_a_moment_is_not_slowed_down(clock: Clock) -> None:
    assert list(paced(clock.items(100, 0.00001))) == list(range(100))
    assert clock.slept == []
