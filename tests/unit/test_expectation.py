# SPDX-License-Identifier: Apache-2.0
"""When a task is looked at, by how long the last ones of its session took."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from qpu_slurm.providers.expectation import Expectation, pause

if TYPE_CHECKING:
    from collections.abc import Sequence

WAY = 0.15
"""Seconds that a look takes; the task is seen as it is in the middle."""

durations = st.floats(0.05, 600)


def run(expectation: Expectation, duration: float, way: float = WAY) -> tuple[float, int]:
    """Look at one task until it is over; return how late that was known, and how many looks it took."""
    now = running = 0.0
    for looks in range(1, 10_000):
        sent = max(now, expectation.next_look(now))
        assert sent > now or looks == 1
        now = sent + way
        if sent + way / 2 >= duration:
            expectation.learn(running, sent)
            return now - duration - way / 2, looks
        running = sent
    raise AssertionError("it never ends")


def runs(expectation: Expectation, tasks: Sequence[float]) -> list[tuple[float, int]]:
    return [run(expectation, duration) for duration in tasks]


def test_nothing_is_expected_of_a_first_task() -> None:
    expectation = Expectation()
    assert expectation.seconds is None
    assert not expectation.is_near(1)
    assert expectation.next_look(1) == 1 + pause(1)


def test_tasks_that_take_as_long_as_each_other_need_one_look_each() -> None:
    expectation = Expectation()
    runs(expectation, [1.0] * 8)
    late, looks = zip(*runs(expectation, [1.0] * 9), strict=True)
    assert sorted(late)[-2] < 0.03
    assert sum(looks) <= 12


@given(durations)
def test_the_end_is_found_within_a_part_of_the_time(duration: float) -> None:
    expectation = Expectation()
    runs(expectation, [duration] * 12)
    late, looks = run(expectation, duration)
    assert late <= WAY + 0.03 * duration + 0.02
    assert looks <= 20


@given(durations, durations)
def test_tasks_that_take_another_time_now_are_followed(before: float, after: float) -> None:
    """Whether they got longer or shorter: none is seen late by more than it took."""
    expectation = Expectation()
    runs(expectation, [before] * 10)
    late, _ = run(expectation, after)
    assert late <= max(1.0, 0.9 * after) + 2 * WAY
    runs(expectation, [after] * 25)
    late, _ = run(expectation, after)
    assert late <= WAY + 0.05 * after + 0.05


@given(st.lists(durations, min_size=1, max_size=30))
def test_looks_are_bounded_whatever_tasks_take(tasks: list[float]) -> None:
    expectation = Expectation()
    for duration in tasks:
        late, looks = run(expectation, duration)
        assert late <= max(1.0, 0.9 * duration) + 2 * WAY
        assert looks <= 100 + duration / 4  # some hundred in ten minutes, where nothing is known


@given(st.floats(0, 1e6), st.floats(0, 1e6))
def test_a_look_is_never_in_the_past(running: float, over: float) -> None:
    expectation = Expectation()
    expectation.learn(running, max(over, 0.001))
    for seconds in (0.0, 0.5, 1.0, 100.0, 1e5):
        assert expectation.next_look(seconds) > seconds
