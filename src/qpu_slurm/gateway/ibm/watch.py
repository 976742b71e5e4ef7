# SPDX-License-Identifier: Apache-2.0
"""The tasks that clients wait for: the gateway looks at them when their end is likely, and clients wait here.

A client that polls requests the same state again and again. Each request goes to the service and back. The
gateway knows how long the last tasks of the session took. So it looks rarely at first, and requests state and
result together when the end is likely (`looks`). A client that polls again gets its answer when the state
changes, or after a second or two. Its next requests, for state and result, are answered from here.

- A task is watched only while a client asks for it.
- The service deletes the result of a private task when it is read. Only the client reads it.
- Everything is kept by lease and task. Each request is checked before: is the task the lease's?
"""

from __future__ import annotations

import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Final, NamedTuple
from weakref import WeakKeyDictionary

import structlog

from qpu_slurm.gateway.ibm.clients import LONGEST_WAIT, query_of, shaping_headers, wait_of
from qpu_slurm.gateway.ibm.looks import Looks
from qpu_slurm.gateway.ibm.results import Results
from qpu_slurm.gateway.ibm.watched import Line, Watched
from qpu_slurm.gateway.limits import AtOnce
from qpu_slurm.gateway.relay import Copy
from qpu_slurm.system.deadline import Deadline

if TYPE_CHECKING:
    from aiohttp import web

    from qpu_slurm.gateway.callers import Caller
    from qpu_slurm.gateway.gateway import Gateway
    from qpu_slurm.gateway.ibm.copies import Copies
    from qpu_slurm.gateway.upstream import Upstream

_USUAL_WAIT: Final = 1.5
"""Seconds that a request waits whose client asks for the same state again."""

_AT_ONCE: Final = 0.5
"""If a program asks for its task within so many seconds of submitting it, it does nothing else meanwhile."""

_AT_WORK: Final = 30.0
"""Seconds after the end of a task in which its session counts as open."""

_EARLIER: Final = 0.2
"""Seconds before the likely end. A client that pauses between requests has to ask again before that."""

_SHORTEST_PAUSE: Final = 0.1
"""Seconds that clients pause between two requests, at least."""

_WAITING: Final = 16
"""Requests of one lease that may wait at once."""

_OLD: Final = 10.0
"""Age, in seconds, from which a state is requested again before a client gets it."""

_REMEMBERED: Final = 120.0
"""Seconds for which a task that no client asks for is remembered."""

_MOST: Final = 20_000
"""How many tasks are remembered at most."""

_NONE_YET: Final = 204

_log = structlog.get_logger(__name__)


class _Told(NamedTuple):
    """A client's last request for a state: the task, the state that it got, and when."""

    task_id: str
    status: str
    at: float


class Watch:
    """Watches the tasks on one QPU.

    Args:
        gateway: The gateway.
        upstream: The service.
        copies: Copies of the service's other answers.
    """

    def __init__(self, gateway: Gateway, upstream: Upstream, copies: Copies) -> None:
        self._gateway = gateway
        self._results = Results()
        self._looks = Looks(gateway, upstream, copies, self._results)
        self._tasks: OrderedDict[tuple[int, str], Watched] = OrderedDict()
        self._lines: OrderedDict[tuple[int, str], Line] = OrderedDict()
        # By connection: a client's pool has one for each of its threads.
        self._told: WeakKeyDictionary[object, _Told] = WeakKeyDictionary()
        self._waiting = AtOnce(_WAITING, f"The job has {_WAITING} requests that wait", "requests_of_a_lease")

    # What clients do.

    def submitted(self, caller: Caller, session_id: str, task_id: str, *, private: bool | None) -> None:
        """Note that a client has submitted a task.

        Args:
            caller: The job.
            session_id: The task's session.
            task_id: The task; empty if the service's answer did not name it.
            private: Whether its result can be read only once; None if the service's answers will show that.
        """
        if not task_id:
            return
        line = self._line(caller, session_id)
        line.pending[task_id] = None
        self._remember(caller, task_id, Watched(line, private=private, submitted_at=time.monotonic()))

    def is_at_work(self, caller: Caller, session_id: str) -> bool:
        """Return whether a task of a session ended a moment ago. Such a session is open and takes tasks."""
        line = self._lines.get((caller.lease.id, session_id))
        return line is not None and time.monotonic() - line.last_over < _AT_WORK

    def touched(self, caller: Caller, task_id: str) -> None:
        """Note that a client has changed a task, so its known state may be wrong now."""
        watched = self._tasks.get((caller.lease.id, task_id))
        self._results.take(caller.lease.id, task_id)
        if watched is not None:
            if watched.is_final:
                del self._tasks[caller.lease.id, task_id]
            watched.hurry()

    async def state(self, request: web.Request, caller: Caller, session_id: str, task_id: str) -> Copy | None:
        """Answer a request for a task's state. A client that knows this state already waits for the next one.

        Returns:
            The answer; None if the service has to answer.

        Raises:
            ApiError: There is no answer.
            CutOffError: The answer broke off.
        """
        watched = self._watched(caller, session_id, task_id)
        if watched.line.large_states:
            return None
        query, headers, now = query_of(request), shaping_headers(request), time.monotonic()
        watched.wanted_at = watched.state_wanted_at = now
        watched.asked_at_once |= now - watched.submitted_at < _AT_ONCE
        is_new = watched.document is None or (watched.query, watched.headers) != (query, headers)
        if is_new:
            watched.query, watched.headers = query, headers
            if watched.line.expectation.seconds is not None:
                self._looks.follow(caller, task_id, watched)
            found = await self._looks.show(task_id, watched)
        else:
            self._gateway.credit.earn(caller.lease.id)
            found = watched.document
        self._looks.follow(caller, task_id, watched)
        seconds = self._seconds_to_wait(request, task_id, watched, is_new=is_new)
        if seconds and not watched.is_over:
            await self._wait(request, caller, watched, seconds)
            found = watched.document
        is_old = time.monotonic() - watched.seen_at > _OLD or (watched.is_over and not watched.is_final)
        if found is not None and found.ok and is_old:
            self._gateway.credit.spend(caller.lease.id)
            found = await self._looks.show(task_id, watched)
        if request.transport is not None:
            self._told[request.transport] = _Told(task_id, watched.status, time.monotonic())
        return found

    def _seconds_to_wait(
        self, request: web.Request, task_id: str, watched: Watched, *, is_new: bool
    ) -> float:
        """Return how long a client waits for the next state: until the end of its task, if that is near.

        A client that pauses between its requests gets its answer early enough not to sleep through the end.
        """
        line, told = watched.line, None
        if request.transport is not None:
            told = self._told.get(request.transport)
        now = time.monotonic()
        if told is not None and told[:2] == (task_id, watched.status):
            line.pause = min(now - told.at, 2.0)
            line.interval = max(line.pause, _SHORTEST_PAUSE) + self._looks.way
        elif wait_of(request):
            return wait_of(request)
        elif not (is_new and line.is_loop and list(line.pending) == [task_id]):
            return 0.0
        expected = line.expectation.seconds
        left = _USUAL_WAIT if expected is None else watched.started_at + expected + self._looks.way - now
        if left <= LONGEST_WAIT:
            return LONGEST_WAIT if left > 0 else _USUAL_WAIT
        if is_new:
            return 0.0
        return max(0.0, min(_USUAL_WAIT, left - line.pause - _EARLIER))

    async def result(
        self, request: web.Request, caller: Caller, session_id: str, task_id: str
    ) -> Copy | None:
        """Answer a request for a result; None if the service has to answer.

        A client that is willing to wait (`Prefer: wait=2`) gets 204 if there is no result after that time.
        """
        lease_id, seconds = caller.lease.id, wait_of(request)
        watched = self._tasks.get((lease_id, task_id))
        if seconds and watched is None:
            watched = self._watched(caller, session_id, task_id)
        if seconds and watched is not None and not watched.is_over and not watched.private:
            watched.wanted_at = time.monotonic()
            self._looks.follow(caller, task_id, watched)
            await self._wait(request, caller, watched, seconds, over=True)
        found = self._results.take(lease_id, task_id)
        if found is None and seconds and watched is not None and not (watched.is_over or watched.private):
            found = Copy(_NONE_YET, {}, b"")
        if found is not None:
            self._gateway.credit.earn(lease_id)
        return found

    async def _wait(
        self, request: web.Request, caller: Caller, watched: Watched, seconds: float, *, over: bool = False
    ) -> None:
        """Wait until a task's state changes, or it is over. The request counts in no limit meanwhile."""
        gateway, lease_id = self._gateway, caller.lease.id
        if self._waiting[lease_id] >= _WAITING or not gateway.limiter.may_wait(request.protocol):
            return
        watched.waiting += 1
        until = Deadline.after(seconds)
        try:
            with (
                self._waiting.one(lease_id),
                gateway.requests.waiting(lease_id),
                gateway.limiter.waiting(request.protocol),
            ):
                while left := until.left:
                    if await watched.change(min(left, watched.line.interval)):
                        if watched.is_over or not over:
                            break
                    elif self._looks.is_ending:
                        break
                    else:  # by now, it would have asked again
                        gateway.credit.earn(lease_id)
        finally:
            watched.waiting -= 1
        gateway.callers.still(caller)

    # What is remembered.

    def _watched(self, caller: Caller, session_id: str, task_id: str) -> Watched:
        key = (caller.lease.id, task_id)
        found = self._tasks.get(key)
        if found is None:
            found = Watched(self._line(caller, session_id))
            self._remember(caller, task_id, found)
        self._tasks.move_to_end(key)
        return found

    def _remember(self, caller: Caller, task_id: str, watched: Watched) -> None:
        self._tasks[caller.lease.id, task_id] = watched
        while self._tasks:
            oldest = next(iter(self._tasks.values()))
            idle = time.monotonic() - oldest.wanted_at
            if len(self._tasks) <= _MOST and (idle < _REMEMBERED or oldest.is_wanted):
                return
            self._tasks.popitem(last=False)

    def _line(self, caller: Caller, session_id: str) -> Line:
        key = (caller.lease.id, session_id)
        line = self._lines.setdefault(key, Line())
        self._lines.move_to_end(key)
        if len(self._lines) > _MOST:
            self._lines.popitem(last=False)
        return line
