# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import time

import pytest

from qpu_slurm.gateway.answers import ApiError
from qpu_slurm.gateway.limits import AtOnce, PerMinute


def test_only_so_many_are_under_way_at_once() -> None:
    at_once = AtOnce(2, "You have two")
    with at_once.one(7), at_once.one(7):
        with at_once.one(8):
            pass
        with pytest.raises(ApiError, match="You have two under way already") as raised, at_once.one(7):
            pass
        assert (raised.value.status, raised.value.retry_after) == (429, 1)
    with pytest.raises(ZeroDivisionError), at_once.one(7):
        _ = 1 / 0
    with at_once.one(7), at_once.one(7):
        pass


def test_only_so_many_are_done_in_any_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    per_minute = PerMinute(2, "You did {limit} things")
    per_minute.one(7)
    now += 10
    per_minute.one(7)
    per_minute.one(8)
    now += 20
    with pytest.raises(ApiError, match="You did 2 things within a minute already") as raised:
        per_minute.one(7)
    assert raised.value.retry_after == 31
    now += 31
    per_minute.one(7)
    with pytest.raises(ApiError):
        per_minute.one(7)
    # A limit that was lowered meanwhile.
    per_minute.limit = 1
    with pytest.raises(ApiError) as raised:
        per_minute.one(7)
    assert raised.value.retry_after == 61


def test_those_who_did_nothing_lately_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    per_minute = PerMinute(1, "You did it")
    for user in range(2000):
        per_minute.one(user)
    now += 61
    per_minute.one(5000)
    assert len(per_minute._done) == 1  # noqa: SLF001 - what it remembers
