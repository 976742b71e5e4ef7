# SPDX-License-Identifier: Apache-2.0
"""Deadlines: points in time that bound work."""

from __future__ import annotations

import math
import time

import pytest

from qpu_slurm.system.deadline import NEVER, Deadline


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The monotonic clock, which stands still; its only element is the time that it shows."""
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_a_deadline_counts_down_and_passes(clock: list[float]) -> None:
    deadline = Deadline.after(5)
    assert (deadline.left, deadline.passed) == (5, False)
    clock[0] += 4.5
    assert (deadline.left, deadline.passed) == (0.5, False)
    clock[0] += 0.5
    assert (deadline.left, deadline.passed) == (0, True)
    clock[0] += 60
    assert (deadline.left, deadline.passed) == (0, True)


def test_a_deadline_in_no_time_has_passed() -> None:
    assert Deadline.after(0).passed
    assert Deadline.after(-1).passed


def test_a_deadline_counts_from_a_requests_arrival(clock: list[float]) -> None:
    arrived = time.monotonic()
    clock[0] += 3  # it waited in a queue
    assert Deadline.after(5, since=arrived).left == 2


def test_the_earliest_of_several_deadlines_counts() -> None:
    deadlines = [NEVER, Deadline.after(7), Deadline.after(5), Deadline.after(9)]
    assert min(deadlines) == Deadline.after(5)


@pytest.mark.parametrize(("seconds", "left"), [(2, 2), (5, 5), (8, 5), (math.inf, 5), (-1, 0)])
def test_a_steps_deadline_is_never_later_than_the_whole_works(seconds: float, left: float) -> None:
    assert Deadline.after(5).sooner(seconds).left == left


@pytest.mark.parametrize(("seconds", "allowed"), [(0, True), (4.9, True), (5, False), (6, False)])
def test_a_deadline_allows_what_ends_before_it(seconds: float, *, allowed: bool) -> None:
    assert Deadline.after(5).allows(seconds) is allowed


def test_a_deadline_that_has_passed_allows_nothing() -> None:
    assert not Deadline.after(-1).allows(0)


def test_never_does_not_pass(clock: list[float]) -> None:
    clock[0] += 1e12
    assert NEVER.left == math.inf
    assert not NEVER.passed
    assert NEVER.allows(1e12)
    assert NEVER.sooner(5) == Deadline.after(5)


def test_a_deadline_does_not_change() -> None:
    with pytest.raises(AttributeError):
        Deadline.after(5).moment = 0.0  # type: ignore[misc] # what must not work
