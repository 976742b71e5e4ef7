# SPDX-License-Identifier: Apache-2.0
"""The gateway's own looks at tasks: when it asks for a task's state and result, and what it learns.

- A look is paid for from what was answered here (`limits.Credit`). Without credit, there is none.
- A service that has too much to do (429), or does not answer, is left alone for a while.
- A look waits for the answer to the last one. Looks that overlap find the ends of a loop's first tasks a bit
  sooner, but the service gets more requests then than from the client alone.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import structlog

from qpu_slurm.gateway.answers import ApiError, CutOffError
from qpu_slurm.gateway.ibm.answers import retry_after_of
from qpu_slurm.gateway.ibm.results import LARGEST
from qpu_slurm.gateway.ibm.watched import QUEUED, WANTED
from qpu_slurm.gateway.relay import Copy, copy
from qpu_slurm.providers.expectation import pause
from qpu_slurm.system.deadline import Deadline

if TYPE_CHECKING:
    from qpu_slurm.gateway.callers import Caller
    from qpu_slurm.gateway.gateway import Gateway
    from qpu_slurm.gateway.ibm.copies import Copies
    from qpu_slurm.gateway.ibm.results import Results
    from qpu_slurm.gateway.ibm.watched import Watched
    from qpu_slurm.gateway.upstream import Answer, Upstream

_UNKNOWN: Final = 0.15
"""Seconds between two looks at least, where nothing is known of the end."""

_LOOK: Final = 20.0
"""Seconds that a look may take."""

_STATE_EVERY: Final = 4
"""How many looks for a result there are to one for the state, where no client asks for that."""

_DOCUMENT: Final = 1 << 20
"""Bytes of a task's state that is kept; one with a large input in it streams from service to client."""

_NONE_YET: Final = 204
_TOO_MANY: Final = 429
_NOT_THERE: Final = (404, 410)

_log = structlog.get_logger(__name__)


class Looks:
    """Looks at the tasks on one QPU that clients wait for.

    Args:
        gateway: The gateway.
        upstream: The service.
        copies: Copies of the service's other answers.
        results: Where results are put that were fetched ahead.

    Attributes:
        way: Seconds that the last request for a state took, to the service and back.
    """

    def __init__(self, gateway: Gateway, upstream: Upstream, copies: Copies, results: Results) -> None:
        self._gateway = gateway
        self._upstream = upstream
        self._copies = copies
        self._results = results
        self.way = 0.0
        self._quiet_until = Deadline.after(0)
        self._refusals = 0
        self._early_results = True

    def follow(self, caller: Caller, task_id: str, watched: Watched) -> None:
        """Look at a task for as long as a client waits for it."""
        if watched.follower is None and not watched.is_over:
            watched.follower = self._gateway.meanwhile(self._look_on(caller, task_id, watched))

    async def _look_on(self, caller: Caller, task_id: str, watched: Watched) -> None:
        lease_id, line = caller.lease.id, watched.line
        try:
            while watched.is_wanted and not (watched.is_over or line.large_states or self.is_ending):
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
                await self._look(lease_id, task_id, watched, with_result=with_result, with_state=with_state)
        except Exception:  # noqa: BLE001 - clients are answered all the same: by the service
            _log.exception("a task could not be watched", task=task_id)
        finally:
            watched.follower = None

    @property
    def is_ending(self) -> bool:
        """Whether the gateway is stopping: clients ask the next one."""
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
            if answer.status == _NONE_YET:
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
            self.way = time.monotonic() - begin
            self._is_refusal(answer)
            if (answer.content_length or 0) <= _DOCUMENT:
                with suppress(ApiError):  # it is too large, and did not say so
                    return await copy(answer, _DOCUMENT)
            answer.close()
        watched.line.large_states = True
        return None

    async def show(self, task_id: str, watched: Watched) -> Copy | None:
        """Request a task's state for a client, which gets any answer."""
        sent_at = time.monotonic()
        found = await self._ask_state(task_id, watched)
        self._settle(task_id, watched, found, sent_at, has_result=False)
        return found

    def _settle(
        self, task_id: str, watched: Watched, state: Copy | None, sent_at: float, *, has_result: bool
    ) -> None:
        """Record what a look has shown, and wake the task's clients if its state has changed."""
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
        """Return whether the service refuses requests because there are too many, and respect that."""
        if answer.status != _TOO_MANY:
            self._refusals = 0
            return False
        self._be_quiet(retry_after_of(answer.headers) or 0)
        return True

    def _be_quiet(self, asked: int = 0) -> None:
        """Send no requests of the gateway's own for a while, and not before the service allows it."""
        self._refusals += 1
        self._quiet_until = Deadline.after(max(asked, min(0.5 * 2**self._refusals, 30.0)))


async def _no_result() -> bool:
    return False


async def _no_state() -> None:
    return None
