# SPDX-License-Identifier: Apache-2.0
"""Limits for one job or one user."""

from __future__ import annotations

import time
from collections import Counter, OrderedDict, deque
from contextlib import contextmanager
from typing import TYPE_CHECKING

from qpu_slurm.gateway.answers import ApiError

if TYPE_CHECKING:
    from collections.abc import Iterator

_MINUTE = 60.0

_FORGET = 1000
"""Number of keys above which keys that were idle for a minute are dropped."""


class AtOnce:
    """Limits how many requests of one kind are under way at once, for each key.

    Args:
        limit: How many.
        what: The subject of the error: "The job has 64 requests".
        name: The metrics' name of the limit.
    """

    def __init__(self, limit: int, what: str, name: str = "") -> None:
        self._limit = limit
        self._what = what
        self._name = name
        self._busy: Counter[int] = Counter()

    @contextmanager
    def one(self, key: int) -> Iterator[None]:
        """Count one more request for the block.

        Raises:
            ApiError: The limit is reached.
        """
        if self._busy[key] >= self._limit:
            raise busy(f"{self._what} under way already.", "Wait for them.", 1, self._name)
        self._busy[key] += 1
        try:
            yield
        finally:
            self._busy[key] -= 1
            if not self._busy[key]:
                del self._busy[key]

    @contextmanager
    def waiting(self, key: int) -> Iterator[None]:
        """Exempt a request from the limit while it only waits."""
        self._busy[key] -= 1
        try:
            yield
        finally:
            self._busy[key] += 1

    def __getitem__(self, key: int) -> int:
        """Return how many are under way."""
        return self._busy[key]


class PerMinute:
    """Limits how often something is done within a minute, for each key.

    Args:
        limit: How often.
        what: The subject of the error; `{limit}` stands for the limit.
        name: The metrics' name of the limit.

    Attributes:
        limit: As above; it may change.
    """

    def __init__(self, limit: int, what: str, name: str = "") -> None:
        self.limit = limit
        self._what = what
        self._name = name
        self._done: dict[int, deque[float]] = {}

    def one(self, key: int) -> None:
        """Count it once more.

        Raises:
            ApiError: The limit is reached. The error names the time to wait.
        """
        now = time.monotonic()
        if len(self._done) > _FORGET:
            self._done = {key: done for key, done in self._done.items() if done[-1] > now - _MINUTE}
        done = self._done.setdefault(key, deque())
        while done and done[0] <= now - _MINUTE:
            done.popleft()
        if len(done) >= self.limit:
            wait = int(done[-self.limit] + _MINUTE - now) + 1
            what = self._what.format(limit=self.limit)
            raise busy(f"{what} within a minute already.", f"Try again in {wait} seconds.", wait, self._name)
        done.append(now)


class Credit:
    """Limits the gateway's own requests to a service by the requests that it saved, for each key.

    So a service never gets more requests than the clients would have sent themselves.

    Args:
        limit: How much a key can save up: what may be spent in a burst.
        advance: What a key has before it has saved anything.
    """

    def __init__(self, limit: int, advance: int = 0) -> None:
        self._limit = limit
        self._advance = advance
        self._saved: OrderedDict[int, int] = OrderedDict()

    def earn(self, key: int, requests: int = 1) -> None:
        """Note that so many requests of clients did not reach the service."""
        self._saved[key] = min(self[key] + requests, self._limit)
        self._saved.move_to_end(key)
        if len(self._saved) > _FORGET:
            self._saved.popitem(last=False)

    def spend(self, key: int, requests: int = 1) -> bool:
        """Take so much for requests to the service; return whether there was enough."""
        if self[key] < requests:
            return False
        self.earn(key, -requests)
        return True

    def __getitem__(self, key: int) -> int:
        """Return what there is."""
        return self._saved.get(key, self._advance)


def busy(why: str, solution: str, seconds: int, limit: str) -> ApiError:
    """Return the error for a limit that is reached; `limit` is the metrics' name for it."""
    return ApiError(429, why, solution, kind="busy", retry_after=seconds, limit=limit)
