# SPDX-License-Identifier: Apache-2.0
"""Points in time that bound work."""

from __future__ import annotations

import math
import time
from typing import Self

import msgspec


class Deadline(msgspec.Struct, frozen=True, order=True):
    """The point in time by which some work has to end, however many steps it takes.

    The code that starts the work makes the deadline. Each step takes it, and shares what is left:

        deadline = Deadline.after(20)
        provider = connect(access, deadline=deadline)
        with locked(path, deadline=deadline.sooner(5)):
            ...

    Deadlines compare by time: `min` returns the earliest. A clock that is set moves none of them.

    Attributes:
        moment: Seconds on the monotonic clock.
    """

    moment: float

    @classmethod
    def after(cls, seconds: float, *, since: float | None = None) -> Self:
        """Return the deadline so many seconds from now, or from when a request arrived (`time.monotonic`)."""
        return cls((time.monotonic() if since is None else since) + seconds)

    @property
    def left(self) -> float:
        """The seconds that are left; 0 once the deadline has passed."""
        return max(self.moment - time.monotonic(), 0.0)

    @property
    def passed(self) -> bool:
        """Whether no time is left."""
        return time.monotonic() >= self.moment

    def allows(self, seconds: float) -> bool:
        """Return whether something that takes so many seconds ends before the deadline."""
        return time.monotonic() + seconds < self.moment

    def sooner(self, seconds: float) -> Self:
        """Return the deadline of a step that may take so many seconds, but no longer than the whole work."""
        return min(self, self.after(seconds))


NEVER = Deadline(math.inf)
"""The deadline that does not pass."""
