# SPDX-License-Identifier: Apache-2.0
"""Jobs that start at the same time get their sessions in the order in which they asked.

Each account has a queue. `starts_at_once` jobs have their turn at a time; the others hold no thread. A job's
time counts from the arrival of its request. If its client has hung up, or the job has ended, the request is
dropped when its turn comes. If that happens later, what the job got is given back.
"""

from __future__ import annotations

import asyncio
import bisect
import itertools
import time
from collections import defaultdict
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, NamedTuple

from qpu_slurm.errors import (
    BudgetSpentError,
    JournalError,
    MustWaitError,
    NoLeaseError,
    QpuFullError,
    QpuSlurmError,
    RefusedError,
    ServiceError,
    UnavailableError,
    about,
)
from qpu_slurm.system.deadline import Deadline

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from qpu_slurm.gateway.metrics import Metrics
    from qpu_slurm.gateway.pools import Pool
    from qpu_slurm.journal.model import Lease, LeaseRequest
    from qpu_slurm.leases.broker import Broker


class Starts:
    """Lets jobs start.

    Args:
        pool: The threads in which sessions are opened.
        metrics: Counts and times the starts.
    """

    def __init__(self, pool: Pool, metrics: Metrics) -> None:
        self._pool = pool
        self._metrics = metrics
        self._queues: dict[str, Queue] = {}
        self._choices: dict[int, tuple[asyncio.Lock, int]] = {}
        self._askers: defaultdict[int, list[_Asker]] = defaultdict(list)

    async def acquire(
        self,
        broker: Broker,
        request: LeaseRequest,
        *,
        arrived: float,
        seconds: float,
        is_there: Callable[[], bool],
    ) -> tuple[Lease, ...]:
        """Acquire what a job asks for, when it is its turn; see `Broker.acquire` for what is raised.

        Args:
            broker: Grants it.
            request: Who asks, for what.
            arrived: When the request arrived (`time.monotonic`).
            seconds: How long it may take from then on.
            is_there: Tells whether the client still waits for the answer; called in any thread.

        Raises:
            MustWaitError: Its turn has not come.
            NoLeaseError: Nobody waits for it any more.
        """
        deadline = Deadline.after(seconds, since=arrived)
        with self._timed(arrived), self._asking(request, is_there) as wanted:
            choosing = broker.choosing(request)
            if choosing is None:
                return await self._acquire(broker, request, arrived, deadline, wanted)
            async with self._one_choice(request.job_id):
                while True:
                    chosen = await self._pool.run(choosing.next, deadline=deadline)
                    try:
                        attempt = choosing.attempt(deadline)
                        return await self._acquire(broker, chosen, arrived, attempt, wanted)
                    except (UnavailableError, BudgetSpentError) as error:
                        choosing.failed(error, chosen, deadline=deadline)

    async def _acquire(
        self,
        broker: Broker,
        request: LeaseRequest,
        arrived: float,
        deadline: Deadline,
        wanted: Callable[[], bool],
    ) -> tuple[Lease, ...]:
        """Acquire QPUs that have names."""
        await self._pool.run(broker.prepare, request, deadline=deadline)
        async with AsyncExitStack() as turns:
            for account, qpu in sorted(broker.accounts(request).items()):
                queue = self._queues.setdefault(account, Queue())
                turn = queue.turn(
                    qpu.starts_at_once, qpu.name, arrived=arrived, deadline=broker.turn_by(deadline)
                )
                await turns.enter_async_context(turn)
            if not wanted():
                raise NoLeaseError(f"Job {request.job_id} does not want its QPUs any more.")
            return await self._pool.run(broker.acquire, request, deadline=deadline, wanted=wanted)

    @asynccontextmanager
    async def _one_choice(self, job_id: int) -> AsyncIterator[None]:
        """Have components of one job that start at once make one choice, one after the other."""
        lock, waiting = self._choices.get(job_id, (asyncio.Lock(), 0))
        self._choices[job_id] = (lock, waiting + 1)
        try:
            async with lock:
                yield
        finally:
            lock, waiting = self._choices[job_id]
            if waiting > 1:
                self._choices[job_id] = (lock, waiting - 1)
            else:
                del self._choices[job_id]

    def release(
        self, broker: Broker, job_id: int, reason: str, *, run: str = "", others: bool = False
    ) -> tuple[Lease, ...]:
        """End what a job holds, and drop what it still asks for; see `Broker.release`. This blocks."""
        self.end(job_id, run, others=others)
        return broker.release(job_id, reason, run=run, others=others)

    def end(self, job_id: int, run: str, *, others: bool) -> None:
        """Have the requests dropped of a job that has ended; see `Broker.release` for the arguments."""
        for asker in tuple(self._askers.get(job_id, ())):
            if asker.is_of(run) is not others:
                asker.ended.append(True)

    @contextmanager
    def _timed(self, arrived: float) -> Iterator[None]:
        """Count a start and its time, by how it ends."""
        outcome = "granted"
        try:
            yield
        except BaseException as error:
            outcome = outcome_of(error)
            raise
        finally:
            self._metrics.starts.labels(outcome).observe(time.monotonic() - arrived)
            if outcome == "full":
                self._metrics.limits.labels("max_leases").inc()

    @contextmanager
    def _asking(self, request: LeaseRequest, is_there: Callable[[], bool]) -> Iterator[Callable[[], bool]]:
        """Note who asks; the value tells whether the job still wants what it asked for."""
        asker = _Asker(request.run, is_there, [])
        askers = self._askers[request.job_id]
        askers.append(asker)
        try:
            # A client that lost its connection asks again: both get the same.
            yield lambda: any(asker.waits() for asker in tuple(askers))
        finally:
            askers.remove(asker)
            if not askers:
                self._askers.pop(request.job_id, None)


def outcome_of(error: BaseException) -> str:
    """Return the metrics' word for what ended a start."""
    match error:
        case QpuFullError():
            return "full"
        case RefusedError():
            return "refused"
        case ServiceError() | JournalError():
            return "postponed"
        case QpuSlurmError() if not isinstance(error, NoLeaseError):
            return "refused"
        case _:  # nobody waits for it any more
            return "dropped"


class _Asker(NamedTuple):
    """A client that asks for a job's QPUs."""

    run: str
    is_there: Callable[[], bool]
    ended: list[bool]

    def is_of(self, run: str) -> bool:
        return not (run and self.run) or self.run == run

    def waits(self) -> bool:
        return not self.ended and self.is_there()


class Queue:
    """Those who wait for their turn, by when they came; for the event loop alone."""

    def __init__(self) -> None:
        self._at_once = 1
        self._busy = 0
        self._numbers = itertools.count()
        self._waiting: list[tuple[float, int, asyncio.Future[None]]] = []

    @asynccontextmanager
    async def turn(
        self, at_once: int, qpu: str, *, arrived: float, deadline: Deadline
    ) -> AsyncIterator[None]:
        """Wait for a turn, and have it until the end of the block.

        Args:
            at_once: How many have a turn at a time.
            qpu: What is waited for.
            arrived: Who came first is served first.
            deadline: How long to wait.

        Raises:
            MustWaitError: It was not its turn until then.
        """
        self._at_once = at_once
        called = asyncio.get_running_loop().create_future()
        place = (arrived, next(self._numbers), called)
        bisect.insort(self._waiting, place, key=lambda place: place[:2])
        self._call()
        try:
            async with asyncio.timeout(deadline.left):
                await called
            if deadline.passed:
                raise TimeoutError  # noqa: TRY301 - as if it had waited
        except BaseException as error:
            if place in self._waiting:
                before = self._before(place)
                self._waiting.remove(place)
            else:  # it was called at this moment
                before = 0
                self._leave()
            if not isinstance(error, TimeoutError):
                raise
            with about(qpu):
                raise MustWaitError(
                    f"Many jobs start on {qpu} at once, and its service is asked for {at_once} sessions at a "
                    f"time. {before} jobs were before this one."
                ) from None
        try:
            yield
        finally:
            self._leave()

    def _before(self, place: tuple[float, int, object]) -> int:
        """Count who is served before one that waits, or is being served."""
        return self._busy + sum(other[:2] < place[:2] for other in self._waiting)

    def _leave(self) -> None:
        self._busy -= 1
        self._call()

    def _call(self) -> None:
        """Give a turn to those who came first."""
        while self._waiting and self._busy < self._at_once:
            _, _, called = self._waiting.pop(0)
            self._busy += 1
            if not called.done():
                called.set_result(None)
