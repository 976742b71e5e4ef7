# SPDX-License-Identifier: Apache-2.0
"""What the gateway knows of the tasks that clients wait for, and of their sessions; see `watch`."""

from __future__ import annotations

import asyncio
import math
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import msgspec

from qpu_slurm.providers.expectation import Expectation

if TYPE_CHECKING:
    from qpu_slurm.gateway.relay import Copy
    from qpu_slurm.gateway.upstream import Query
    from qpu_slurm.system.deadline import Deadline

WANTED: Final = 3.0
"""Seconds for which a task is watched after a client asked for it."""

_FINAL: Final = ("completed", "cancelled", "canceled", "failed")
QUEUED: Final = "queued"

QUERIES: Final[tuple[Query, ...]] = ([], [("exclude_params", "true")])
"""The queries of clients that request a task's state: with its input, and without."""


class _State(msgspec.Struct, frozen=True):
    status: str = ""


class _Document(msgspec.Struct):
    """What is read of a task. If the service does not say whether it is private, it counts as private."""

    status: str = ""
    state: _State = _State()
    private: bool = True

    @property
    def text(self) -> str:
        return (self.state.status or self.status).lower()


class Line:
    """The tasks of one session, which run one after the other.

    Attributes:
        expectation: How long the next task is expected to take.
        pending: The tasks that are not over, as far as they were submitted here.
        last_over: When the end of a task was seen last, on the monotonic clock.
        is_loop: Whether a client has waited for the last task from its submission to its end.
        interval: Seconds from one request of the client to the next, if the service answered them.
        pause: Seconds between an answer and the client's next request.
        large_results: Whether results are too large to be fetched ahead.
        large_states: Whether states, with the input in them, are too large to be kept.
    """

    def __init__(self) -> None:
        self.expectation = Expectation()
        self.pending: dict[str, None] = {}
        self.last_over = -math.inf
        self.is_loop = False
        self.interval = 1.0
        self.pause = 0.0
        self.large_results = self.large_states = False

    def over(self, task_id: str) -> None:
        """Note that a task is over, and so are those before it."""
        while self.pending:
            first = next(iter(self.pending))
            if task_id not in self.pending:
                break
            del self.pending[first]
        self.last_over = time.monotonic()


class Watched:
    """A task, as far as its state is known.

    Args:
        line: Its session's tasks.
        private: Whether its result can be read only once; None if that is not known.
        submitted_at: When its submission was answered, on the monotonic clock; None if it went elsewhere.

    Attributes:
        document: The service's last answer with its state.
        status: The state in it.
        is_over: Whether it was seen to be over.
    """

    def __init__(self, line: Line, *, private: bool | None = None, submitted_at: float | None = None) -> None:
        self.line = line
        self.private = private
        self.is_exact = submitted_at is not None
        self.submitted_at = time.monotonic() if submitted_at is None else submitted_at
        self.document: Copy | None = None
        self.status = ""
        self.is_over = False
        self.seen_at = 0.0
        self.wanted_at, self.state_wanted_at = time.monotonic(), 0.0
        self.asked_at_once = False
        self.waiting = 0
        self.running_at = 0.0
        self.query: Query = QUERIES[-1]
        self.headers: dict[str, str] = {}
        self.looks = 0
        self.follower: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self._hurry = asyncio.Event()

    @property
    def is_wanted(self) -> bool:
        """Whether a client waits for it."""
        return self.waiting > 0 or time.monotonic() - self.wanted_at < WANTED

    @property
    def is_final(self) -> bool:
        """Whether its last state is known."""
        return self.status in _FINAL or self.status.startswith("cancelled")

    @property
    def started_at(self) -> float:
        """The earliest time at which it can have started."""
        return max(self.submitted_at, min(self.line.last_over, time.monotonic()))

    def see(self, document: Copy) -> None:
        """Record a state, unless the final one is known."""
        try:
            read = msgspec.json.decode(document.body, type=_Document)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return
        if self.is_final:
            return
        if self.private is None:
            self.private = read.private
        if self.status == QUEUED and read.text != QUEUED and self.looks > 1:
            self.is_exact = False  # it waited for the QPU
        self.document, self.status, self.seen_at = document, read.text, time.monotonic()

    def notify(self) -> None:
        """Wake the clients that wait for a change."""
        self._changed.set()
        self._changed = asyncio.Event()

    def hurry(self) -> None:
        """Request a look now."""
        self._hurry.set()

    async def change(self, seconds: float) -> bool:
        """Wait until its state changes; return whether it has."""
        changed = self._changed
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await changed.wait()
        return changed.is_set()

    async def until(self, moment: Deadline) -> bool:
        """Wait until the next look is due; return whether one was requested before that."""
        with suppress(TimeoutError):
            async with asyncio.timeout(moment.left):
                await self._hurry.wait()
        hurried = self._hurry.is_set()
        self._hurry.clear()
        return hurried
