# SPDX-License-Identifier: Apache-2.0
"""Signals that ask a program to end, as an exception."""

from __future__ import annotations

import signal
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

ENDING: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

GRACE: Final = 10.0
"""Seconds for what is done after a signal came: Slurm kills 30 s after SIGTERM (KillWait)."""

SAME_WISH: Final = 0.5
"""Seconds within which a second signal is the first one again: scancel may reach a task by two ways."""


class Stopped(BaseException):
    """Somebody wants this program to end.

    Not an `Exception`: no code that handles errors may swallow it.

    Args:
        name: The signal's name.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


class EndingSignals:
    """Raises `Stopped` in the main thread when SIGTERM, SIGINT or SIGHUP comes.

    It raises it again, in whatever is done meanwhile, when a second signal comes and when `GRACE` is over.
    A signal that the parent made this process ignore (nohup, a shell's background job) stays ignored.
    SIGCONT needs no care: Slurm sends it before SIGTERM and on resume, and it means nothing to us.
    """

    def __init__(self) -> None:
        self._name = ""
        self._since = 0.0
        self._holding = False

    def __enter__(self) -> Self:
        for number in ENDING:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._hear)
        signal.signal(signal.SIGALRM, self._lose_patience)
        return self

    def __exit__(self, *_: object) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number in (*ENDING, signal.SIGALRM):
            if signal.getsignal(number) in {self._hear, self._lose_patience}:
                signal.signal(number, signal.SIG_DFL)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Let the block finish before the first signal is raised, if it does within `GRACE`."""
        self._holding = True
        try:
            yield
        finally:
            self._holding = False
        if self._name:
            signal.setitimer(signal.ITIMER_REAL, GRACE)
            raise Stopped(self._name)

    def _hear(self, number: int, _frame: FrameType | None) -> None:
        """Handle a signal."""
        now = time.monotonic()
        if not self._name:
            self._name, self._since = signal.Signals(number).name, now
            signal.setitimer(signal.ITIMER_REAL, GRACE)
            if self._holding:
                return
        elif now - self._since < SAME_WISH:
            return
        raise Stopped(self._name)

    def _lose_patience(self, _number: int, _frame: FrameType | None) -> None:
        """Handle the alarm: there was time enough."""
        raise Stopped(self._name)
