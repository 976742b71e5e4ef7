# SPDX-License-Identifier: Apache-2.0
"""The emulator's time: real, but it can be moved forward.

Sessions live for hours and tokens for one; a test that waits for their end moves the clock.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_TURNS_TO_SETTLE = 10


class Alarm:
    """Something that will happen at a time, unless it is cancelled before."""

    __slots__ = ("action",)

    def __init__(self, action: Callable[[], None]) -> None:
        self.action: Callable[[], None] | None = action

    def cancel(self) -> None:
        """Make it not happen."""
        self.action = None


class Clock:
    """Time since the epoch that never steps back, whatever happens to the system's clock."""

    def __init__(self) -> None:
        self._epoch = time.time() - time.monotonic()
        self._alarms: list[tuple[float, int, Alarm]] = []
        self._number = itertools.count()
        self._timer: asyncio.TimerHandle | None = None

    def reset(self) -> None:
        """Go back to the real time, and forget whatever was to happen."""
        self._epoch = time.time() - time.monotonic()
        self._alarms.clear()
        self._arm()

    def now(self) -> float:
        """Return the seconds since the epoch."""
        return self._epoch + time.monotonic()

    def at(self, when: float, action: Callable[[], None]) -> Alarm:
        """Do something at a time, or at once if that is past."""
        alarm = Alarm(action)
        heapq.heappush(self._alarms, (when, next(self._number), alarm))
        self._arm()
        return alarm

    async def sleep(self, seconds: float) -> None:
        """Wait on this clock: moving it forward shortens the wait."""
        done = asyncio.Event()
        alarm = self.at(self.now() + seconds, done.set)
        try:
            await done.wait()
        finally:
            alarm.cancel()

    async def advance(self, seconds: float) -> None:
        """Move forward, stopping at whatever was to happen in between, in its order."""
        target = self.now() + seconds
        while self._alarms and self._alarms[0][0] <= target:
            self._epoch += max(0.0, self._alarms[0][0] - self.now())
            self._ring()
            # Whoever slept until now acts now, not at the target.
            for _ in range(_TURNS_TO_SETTLE):
                await asyncio.sleep(0)
        self._epoch += max(0.0, target - self.now())
        self._arm()

    def _arm(self) -> None:
        """Wake up for the next alarm."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._alarms:
            delay = max(0.0, self._alarms[0][0] - self.now())
            self._timer = asyncio.get_running_loop().call_later(delay, self._ring)

    def _ring(self) -> None:
        """Do what is due."""
        while self._alarms and self._alarms[0][0] <= self.now():
            alarm = heapq.heappop(self._alarms)[2]
            if alarm.action is not None:
                alarm.action()
        self._arm()


def timestamp(when: float | None) -> str | None:
    """Write a time as the service does: ISO 8601, milliseconds, in UTC."""
    if when is None:
        return None
    return datetime.fromtimestamp(when, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
