# SPDX-License-Identifier: Apache-2.0
"""The tasks that clients wait for: the gateway looks when they are likely to be over, and clients wait here.

A client that polls asks for the same state again and again, each time a whole way to the service and back.
The gateway knows how long the last tasks of the session took. So it looks seldom at first, and at the likely
end asks for state and result at once. A client that asks again is answered when the state changes, or after
a second or two. Its next questions, for the state and for the result, are answered from here.

- Only tasks that a client asks for are watched, and only as long as it does.
- What is asked here unasked is paid from what was answered here (`limits.Credit`).
- The service deletes the result of a private task when it is read: that is left to the client.
- Everything is kept by lease and task. Whether a task is the lease's is found out before, at each request.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from contextlib import suppress
from typing import TYPE_CHECKING, Final, NamedTuple
from weakref import WeakKeyDictionary

import structlog

from qpu_slurm.gateway.answers import ApiError, CutOffError
from qpu_slurm.gateway.ibm.answers import retry_after_of
from qpu_slurm.gateway.ibm.clients import LONGEST_WAIT, query_of, shaping_headers, wait_of
from qpu_slurm.gateway.ibm.results import LARGEST, Results
from qpu_slurm.gateway.ibm.watched import QUEUED, WANTED, Line, Watched
from qpu_slurm.gateway.limits import AtOnce
from qpu_slurm.gateway.relay import Copy, copy
from qpu_slurm.providers.expectation import pause
from qpu_slurm.system.deadline import Deadline

if TYPE_CHECKING:
    from aiohttp import web

    from qpu_slurm.gateway.callers import Caller
    from qpu_slurm.gateway.gateway import Gateway
    from qpu_slurm.gateway.ibm.copies import Copies
    from qpu_slurm.gateway.upstream import Answer, Upstream

_USUAL_WAIT: Final = 1.5
"""Seconds that a request is kept whose client asks for the same state again."""

_AT_ONCE: Final = 0.5
"""Seconds from a submission in which a program asks for its task that does nothing else meanwhile."""

_UNKNOWN: Final = 0.15
"""Seconds between two looks at least, where nothing is known of the end."""

_AT_WORK: Final = 30.0
"""Seconds after the end of a task for which its session is taken to be open."""

_EARLIER: Final = 0.2
"""Seconds before the likely end in which a client that pauses between its questions has to be back."""

_SHORTEST_PAUSE: Final = 0.1
"""Seconds between two questions that clients leave at least."""

_WAITING: Final = 16
"""Requests of one lease that are kept at once."""

_OLD: Final = 10.0
"""Seconds after which a state is asked of the service again before a client gets it."""

_REMEMBERED: Final = 120.0
"""Seconds for which a task that no client asks for is remembered."""

_MOST: Final = 20_000
"""How many tasks are remembered at most."""

_LOOK: Final = 20.0
"""Seconds that a look may take."""

_STATE_EVERY: Final = 4
"""How many looks for a result there are to one for the state, where no client asks for that."""

_IN_FLIGHT: Final = 3
"""Looks at one task that may be on their way at once, while its end is not known exactly."""

_DOCUMENT: Final = 1 << 20
"""Bytes of a task's state that is kept; one with a large input in it streams from service to client."""

_NONE_YET: Final = 204
_TOO_MANY: Final = 429
_NOT_THERE: Final = (404, 410)

_log = structlog.get_logger(__name__)


class _Told(NamedTuple):
    """The task that a client has asked for last, the state that it got, and when."""

    task_id: str
    status: str
    at: float


class Watch:
    """Watches the tasks on one QPU.

    Args:
        gateway: Whose clients wait.
        upstream: The service.
        copies: What else is asked of it.
    """

    def __init__(self, gateway: Gateway, upstream: Upstream, copies: Copies) -> None:
        self._gateway = gateway
        self._upstream = upstream
        self._copies = copies
        self._results = Results()
        self._tasks: OrderedDict[tuple[int, str], Watched] = OrderedDict()
        self._lines: OrderedDict[tuple[int, str], Line] = OrderedDict()
        # By connection: a client's pool has one for each of its threads.
        self._told: WeakKeyDictionary[object, _Told] = WeakKeyDictionary()
        self._way = 0.0
        self._waiting = AtOnce(_WAITING, f"The job has {_WAITING} requests that wait", "requests_of_a_lease")
        self._quiet_until = Deadline.after(0)
        self._refusals = 0
        self._early_results = True

    # What clients do.

    def submitted(self, caller: Caller, session_id: str, task_id: str, *, private: bool | None) -> None:
        """Take note of a task that a client has submitted.

        Args:
            caller: Whose task it is.
            session_id: The session that it is in.
            task_id: The task; empty if the service did not say.
            private: Whether its result is read once; None leaves it to the service to say.
        """
        if not task_id:
            return
        line = self._line(caller, session_id)
        line.pending[task_id] = None
        self._remember(caller, task_id, Watched(line, private=private, submitted_at=time.monotonic()))

    def is_at_work(self, caller: Caller, session_id: str) -> bool:
        """Tell whether a task of a session was over a moment ago: it is open, and takes the next one."""
        line = self._lines.get((caller.lease.id, session_id))
        return line is not None and time.monotonic() - line.last_over < _AT_WORK

    def touched(self, caller: Caller, task_id: str) -> None:
        """Take note that a client has done something to a task: what was seen of it may be wrong now."""
        watched = self._tasks.get((caller.lease.id, task_id))
        self._results.take(caller.lease.id, task_id)
        if watched is not None:
            if watched.is_final:
                del self._tasks[caller.lease.id, task_id]
            watched.hurry()

    async def state(self, request: web.Request, caller: Caller, session_id: str, task_id: str) -> Copy | None:
        """Answer a client that asks for a task's state; one that has asked before waits for another.

        Returns:
            The answer; None leaves it to the service.

        Raises:
            ApiError: There is no answer.
            CutOffError: It broke off.
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
                self._follow(caller, task_id, watched)
            found = await self._show(task_id, watched)
        else:
            self._gateway.credit.earn(caller.lease.id)
            found = watched.document
        self._follow(caller, task_id, watched)
        seconds = self._seconds_to_wait(request, task_id, watched, is_new=is_new)
        if seconds and not watched.is_over:
            await self._wait(request, caller, watched, seconds)
            found = watched.document
        is_old = time.monotonic() - watched.seen_at > _OLD or (watched.is_over and not watched.is_final)
        if found is not None and found.ok and is_old:
            self._gateway.credit.spend(caller.lease.id)
            found = await self._show(task_id, watched)
        if request.transport is not None:
            self._told[request.transport] = _Told(task_id, watched.status, time.monotonic())
        return found

    def _seconds_to_wait(
        self, request: web.Request, task_id: str, watched: Watched, *, is_new: bool
    ) -> float:
        """Return how long a client waits for another state: until the end of its task, if that is near.

        One that pauses between its questions is not kept when it would sleep through the end then.
        """
        line, told = watched.line, None
        if request.transport is not None:
            told = self._told.get(request.transport)
        now = time.monotonic()
        if told is not None and told[:2] == (task_id, watched.status):
            line.pause = min(now - told.at, 2.0)
            line.interval = max(line.pause, _SHORTEST_PAUSE) + self._way
        elif wait_of(request):
            return wait_of(request)
        elif not (is_new and line.is_loop and list(line.pending) == [task_id]):
            return 0.0
        expected = line.expectation.seconds
        left = _USUAL_WAIT if expected is None else watched.started_at + expected + self._way - now
        if left <= LONGEST_WAIT:
            return LONGEST_WAIT if left > 0 else _USUAL_WAIT
        if is_new:
            return 0.0
        return max(0.0, min(_USUAL_WAIT, left - line.pause - _EARLIER))

    async def result(
        self, request: web.Request, caller: Caller, session_id: str, task_id: str
    ) -> Copy | None:
        """Answer a client that asks for a result; None leaves it to the service.

        A client that says that it waits (`Prefer: wait=2`) gets 204 if there is none after that time.
        """
        lease_id, seconds = caller.lease.id, wait_of(request)
        watched = self._tasks.get((lease_id, task_id))
        if seconds and watched is None:
            watched = self._watched(caller, session_id, task_id)
        if seconds and watched is not None and not watched.is_over and not watched.private:
            watched.wanted_at = time.monotonic()
            self._follow(caller, task_id, watched)
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
        """Keep a request until a task changes, or is over; it counts among none meanwhile."""
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
                    elif self._is_ending:
                        break
                    else:  # by now, it would have asked again
                        gateway.credit.earn(lease_id)
        finally:
            watched.waiting -= 1
        gateway.callers.still(caller)

    # What the gateway does.

    def _follow(self, caller: Caller, task_id: str, watched: Watched) -> None:
        """Look at a task as long as a client waits for it."""
        if watched.follower is None and not watched.is_over:
            watched.follower = self._gateway.meanwhile(self._look_on(caller, task_id, watched))

    async def _look_on(self, caller: Caller, task_id: str, watched: Watched) -> None:
        lease_id, line = caller.lease.id, watched.line
        looks: set[asyncio.Task[None]] = set()
        try:
            while watched.is_wanted and not (watched.is_over or line.large_states or self._is_ending):
                if len(looks) == _IN_FLIGHT:
                    looks = await _first_of(looks)
                hurried = await watched.until(max(self._next_look(task_id, watched), self._quiet_until))
                if watched.is_over:
                    return
                near = line.expectation.is_near(time.monotonic() - watched.started_at)
                with_result = (
                    near
                    and self._early_results
                    and not line.large_results
                    and watched.private is False
                    and watched.status != QUEUED
                )
                # Only the state shows that a task failed. A client that waits for the result needs it seldom.
                with_state = (
                    not with_result
                    or time.monotonic() - watched.state_wanted_at < WANTED
                    or watched.looks % _STATE_EVERY == _STATE_EVERY - 1
                )
                if self._gateway.credit[lease_id] < with_result + with_state:
                    with_result, with_state = False, True
                if not (self._gateway.credit.spend(lease_id, with_result + with_state) or hurried):
                    await watched.change(_UNKNOWN)
                    continue
                if near:
                    self._copies.foresee_submission(lease_id)
                look = self._gateway.meanwhile(
                    self._look(lease_id, task_id, watched, with_result=with_result, with_state=with_state)
                )
                # The answer to a look that came too early takes as long as any other. If the end is not known
                # exactly, and the client has saved enough requests, the next look does not wait for it.
                overlaps = with_result and not (hurried or line.expectation.is_exact)
                overlaps &= self._gateway.credit[lease_id] > _IN_FLIGHT
                looks |= await _first_of({look}, self._way / _IN_FLIGHT if overlaps else None)
        except Exception:  # noqa: BLE001 - clients are answered all the same: by the service
            _log.exception("a task could not be watched", task=task_id)
        finally:
            watched.follower = None

    @property
    def _is_ending(self) -> bool:
        """Whether the gateway ends: clients ask the next one."""
        return self._gateway.limiter.draining

    def _next_look(self, task_id: str, watched: Watched) -> Deadline:
        """Return when to look at a task next."""
        now = time.monotonic()
        if watched.status == QUEUED or next(iter(watched.line.pending), task_id) != task_id:
            return Deadline.after(max(_UNKNOWN, pause(now - watched.submitted_at, longest=1.0)))
        start, expectation = watched.started_at, watched.line.expectation
        if expectation.seconds is None:
            return Deadline.after(max(_UNKNOWN, pause(now - start)))
        return Deadline.after(expectation.next_look(now - start), since=start)

    async def _look(
        self, lease_id: int, task_id: str, watched: Watched, *, with_result: bool, with_state: bool
    ) -> None:
        """Ask for a task's result, for its state, or both at once: the state after the result."""
        sent_at = time.monotonic()
        watched.looks += 1
        try:
            async with asyncio.timeout(_LOOK):
                has_result, found = await asyncio.gather(
                    self._fetch_result(lease_id, task_id, watched) if with_result else _no_result(),
                    self._ask_state(task_id, watched) if with_state else _no_state(),
                )
        except (ApiError, CutOffError, TimeoutError):
            self._be_quiet()
        else:
            self._settle(task_id, watched, found, sent_at, has_result=has_result)

    async def _fetch_result(self, lease_id: int, task_id: str, watched: Watched) -> bool:
        """Ask for the result; return whether there is one."""
        headers = {"Accept-Encoding": "identity"} | {
            k: v for k, v in watched.headers.items() if k == "IBM-API-Version"
        }
        async with self._upstream.send("GET", "jobs", task_id, "results", headers=headers) as answer:
            if self._is_refusal(answer):
                return False
            if answer.status == _NONE_YET or watched.is_over:  # another look has found it over
                return False
            if not answer.ok:
                self._early_results = False
                return False
            if (answer.content_length or 0) > LARGEST:
                watched.line.large_results = True
                answer.close()
                return True
            try:
                found = await copy(answer, LARGEST)
            except ApiError:  # it is too large, and did not say so
                watched.line.large_results = True
                answer.close()
                return True
        self._results.put(lease_id, task_id, found)
        return True

    async def _ask_state(self, task_id: str, watched: Watched) -> Copy | None:
        """Ask the service for a task's state; return None if it is too large."""
        headers = watched.headers | {"Accept-Encoding": "identity"}
        begin = time.monotonic()
        async with self._upstream.send(
            "GET", "jobs", task_id, query=watched.query, headers=headers
        ) as answer:
            self._way = time.monotonic() - begin
            self._is_refusal(answer)
            if (answer.content_length or 0) <= _DOCUMENT:
                with suppress(ApiError):  # it is too large, and did not say so
                    return await copy(answer, _DOCUMENT)
            answer.close()
        watched.line.large_states = True
        return None

    async def _show(self, task_id: str, watched: Watched) -> Copy | None:
        """Ask for a task's state for a client, which gets the answer whatever it is."""
        sent_at = time.monotonic()
        found = await self._ask_state(task_id, watched)
        self._settle(task_id, watched, found, sent_at, has_result=False)
        return found

    def _settle(
        self, task_id: str, watched: Watched, state: Copy | None, sent_at: float, *, has_result: bool
    ) -> None:
        """Take note of what was seen of a task, and wake its clients if it has changed."""
        before = watched.status, watched.is_over
        if state is not None and state.ok:
            watched.see(state)
        if watched.is_over:
            return
        if state is not None and state.status in _NOT_THERE:
            watched.is_over = True  # whatever has become of it, the service tells
        elif has_result or watched.is_final:
            start = watched.started_at
            if watched.is_exact:
                running = max(0.0, watched.running_at - start)
                watched.line.expectation.learn(running, max(0.001, sent_at - start))
            watched.is_over = True
            watched.line.is_loop = watched.is_exact and watched.asked_at_once and watched.is_wanted
            watched.line.over(task_id)
        elif sent_at > watched.running_at:
            watched.running_at = sent_at
        if (watched.status, watched.is_over) != before:
            watched.notify()

    def _is_refusal(self, answer: Answer) -> bool:
        """Take note of a service that has too much to do."""
        if answer.status != _TOO_MANY:
            self._refusals = 0
            return False
        self._be_quiet(retry_after_of(answer.headers) or 0)
        return True

    def _be_quiet(self, asked: int = 0) -> None:
        """Ask nothing unasked for a while: for the seconds that the service asks for, at least."""
        self._refusals += 1
        self._quiet_until = Deadline.after(max(asked, min(0.5 * 2**self._refusals, 30.0)))

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


async def _first_of(looks: set[asyncio.Task[None]], seconds: float | None = None) -> set[asyncio.Task[None]]:
    """Wait until a look is answered, or for so many seconds; return those that are not."""
    answered, left = await asyncio.wait(looks, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    for look in answered:
        look.result()
    return left


async def _no_result() -> bool:
    return False


async def _no_state() -> None:
    return None
