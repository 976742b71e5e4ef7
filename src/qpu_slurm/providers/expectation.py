# SPDX-License-Identifier: Apache-2.0
"""When to look whether a task is over: often where its end is likely, and seldom before.

In a loop, a program submits one task after the other, and they take about as long as each other. While it
learns of the end of one, the QPU is locked and executes nothing. So the looks at a session's tasks are told
apart: those that found a task running, and the one that found it over. Between them lies the time after which
to look at the next one, and it is halved with each task.

`task_runner`, the Python API and the gateway look in this way.
"""

from __future__ import annotations

from typing import Final

SHORTEST_PAUSE: Final = 0.02
LONGEST_PAUSE: Final = 30.0
TAIL: Final = 0.04
"""The pause as a part of the time that a task has been in its state: what is added to it at most."""

_SELDOM: Final = (1.0, 0.35)
"""Before an end is likely: seconds between two looks, or this part of the time that has passed."""

_CLOSE: Final = 0.75
"""From this part of the expected time on, there is no look before the expected one."""

_EXACT: Final = (0.01, 0.015)
"""How exactly an end has to be known: seconds, or this part of the time."""

_LATE: Final = 1.5
"""Beyond this many times the expected time, nothing is known of the end."""

_TRUSTED: Final = 8
"""For how many tasks it counts that one was found running after so long."""

_BEFORE: Final = 0.97
"""After that, the next one is looked at a bit sooner: after this part of that time."""

_SHORTER: Final = 0.8
"""Where none was found running: the part of the time after which to look whether tasks are shorter."""


def pause(seconds: float, longest: float = LONGEST_PAUSE) -> float:
    """Return how long to wait before the next look at a task of which nothing is known.

    It grows with the time that has passed: a short task is not kept waiting, and a long one is not asked for
    more than some hundred times (10 minutes of running: about 200).

    Args:
        seconds: How long the task has been seen in its state.
        longest: Seconds that it is at most.

    Returns:
        Seconds.
    """
    return min(max(SHORTEST_PAUSE, TAIL * seconds), longest)


class Expectation:
    """How long the next task of a session will run, by what was seen of the last ones.

    All times are in seconds from a task's start, as far as that is known: when its submission was answered,
    or when the task before it was seen to be over.
    """

    def __init__(self) -> None:
        self._running = 0.0
        self._over: float | None = None
        self._tasks_since = 0

    @property
    def seconds(self) -> float | None:
        """After how long to look first; None as long as nothing is known."""
        if self._over is None:
            return None
        if not self._running:
            return self._over * _SHORTER
        if self._tasks_since >= _TRUSTED:
            return self._running * _BEFORE
        return self._between(self._running, self._over)

    def next_look(self, seconds: float) -> float:
        """Return when to look at a task again.

        Args:
            seconds: How long it has been running.
        """
        first = self.seconds
        if self._over is None or first is None or seconds > _LATE * self._over:
            return seconds + pause(seconds)
        if seconds < first:
            least, part = _SELDOM
            early = seconds + max(least, part * seconds)
            return early if early < _CLOSE * first else first
        if seconds < self._over:
            known = max(seconds, self._running)
            return max(self._between(known, self._over), seconds + SHORTEST_PAUSE)
        return seconds + max(SHORTEST_PAUSE, TAIL / 2 * seconds)

    def is_near(self, seconds: float) -> bool:
        """Tell whether the end of a task that has been running for so long is likely."""
        first = self.seconds
        return first is not None and seconds >= _CLOSE * first

    def learn(self, running: float, over: float) -> None:
        """Take note of how long a task ran.

        Args:
            running: When it was last found running; 0 if it never was.
            over: When it was found to be over.
        """
        self._tasks_since += 1
        if self._over is None or not (self._running < over and running < self._over):
            # The tasks take another time now.
            self._running, self._over, self._tasks_since = running, over, 0
            return
        if running >= self._running:
            self._running, self._tasks_since = running, 0
        elif self._tasks_since >= _TRUSTED and running >= _BEFORE * self._running - SHORTEST_PAUSE:
            self._tasks_since = 0  # they did not get shorter: what was known is still true
        self._over = min(over, self._over)

    def _between(self, running: float, over: float) -> float:
        """Halve the time in which the end lies; where that is short, choose its end."""
        least, part = _EXACT
        exact = max(least, part * over)
        return over + exact / 2 if over - running <= exact else (running + over) / 2
