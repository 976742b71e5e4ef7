# SPDX-License-Identifier: Apache-2.0
"""Jobs that start at once are served in the order in which they came, and in time."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import pytest

from qpu_slurm.errors import MustWaitError, NoLeaseError
from qpu_slurm.gateway.metrics import Metrics
from qpu_slurm.gateway.pools import Pool
from qpu_slurm.gateway.starts import Queue, Starts
from qpu_slurm.journal.journal import Journal
from qpu_slurm.journal.model import Lease, LeaseState
from qpu_slurm.leases.broker import Broker
from qpu_slurm.system.deadline import Deadline
from tests.unit.memory_service import Service, configure, request
from tests.unit.no_state import NoState

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def test_a_queue_serves_in_order_of_arrival_and_so_many_at_once() -> None:
    served: list[int] = []
    busy: list[int] = []

    async def one(queue: Queue, number: int) -> None:
        deadline = Deadline.after(30)
        async with queue.turn(2, "ibm_fez", arrived=float(number), deadline=deadline):
            served.append(number)
            busy.append(1)
            assert len(busy) <= 2
            await asyncio.sleep(0.001)
            busy.pop()

    async def all_at_once() -> None:
        queue = Queue()
        async with queue.turn(2, "ibm_fez", arrived=0, deadline=Deadline.after(30)):
            # They get in line in another order than they arrived in.
            await asyncio.gather(*(one(queue, number) for number in (5, 3, 9, 1, 7)))

    asyncio.run(all_at_once())
    # The first found nobody before it.
    assert served == [5, 1, 3, 7, 9]


def test_who_gives_up_leaves_the_queue_to_the_others() -> None:
    async def play() -> None:
        queue = Queue()
        async with queue.turn(1, "ibm_fez", arrived=0, deadline=Deadline.after(30)):
            waiting = [asyncio.create_task(turn(queue, number, seconds=30)) for number in (1, 3)]
            await asyncio.sleep(0)
            with pytest.raises(MustWaitError, match="2 jobs were before this one"):
                await turn(queue, 2, seconds=0.01)
            waiting[0].cancel()
        await waiting[1]
        # The queue is free again.
        await turn(queue, 4, seconds=1)

    async def turn(queue: Queue, number: int, seconds: float) -> None:
        async with queue.turn(1, "ibm_fez", arrived=number, deadline=Deadline.after(seconds)):
            pass

    asyncio.run(play())


class Gate:
    """A gateway's part that jobs start through."""

    def __init__(self, directory: Path) -> None:
        self.config = configure(directory)
        self.service = Service()
        self.journal = Journal(self.config.journal)
        self.broker = Broker(self.config, self.journal, self.service.connect, settle=0)
        self.starts = Starts(Pool("acquire", 4), Metrics(NoState()))

    async def ask(
        self,
        *,
        run: str = "",
        waited: float = 0,
        is_there: Callable[[], bool] = lambda: True,
    ) -> tuple[Lease, ...]:
        return await self.starts.acquire(
            self.broker,
            request("ibm_fez", run=run),
            arrived=time.monotonic() - waited,
            seconds=5,
            is_there=is_there,
        )


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return Gate(tmp_path)


def test_a_job_gets_its_session(gate: Gate) -> None:
    [lease] = asyncio.run(gate.ask())
    assert gate.service.open_sessions() == [lease.session_id]


def test_time_counts_from_the_arrival_of_the_request(gate: Gate) -> None:
    with pytest.raises(MustWaitError, match="Many jobs start on ibm_fez at once"):
        asyncio.run(gate.ask(waited=5))
    assert gate.service.sessions == {}


def test_a_client_that_has_hung_up_gets_nothing(gate: Gate) -> None:
    with pytest.raises(NoLeaseError):
        asyncio.run(gate.ask(is_there=lambda: False))
    assert gate.service.sessions == {}
    assert gate.journal.leases(over=True) == []


def test_what_a_client_got_that_has_hung_up_is_given_back(gate: Gate) -> None:
    with pytest.raises(NoLeaseError):
        asyncio.run(gate.ask(is_there=lambda: not gate.service.sessions))
    assert len(gate.service.sessions) == 1
    assert gate.service.open_sessions() == []


def test_a_client_that_asks_again_keeps_what_it_got_at_first(gate: Gate) -> None:
    """Its connection broke while the session was being opened, and it asked over another one at once."""

    async def play() -> Lease:
        first = asyncio.create_task(gate.ask(is_there=lambda: not gate.service.sessions))
        [lease] = await gate.ask()
        await asyncio.wait([first])
        return lease

    lease = asyncio.run(play())
    assert gate.service.open_sessions() == [lease.session_id]
    assert gate.journal.lease(lease.id).state is LeaseState.HELD


@pytest.mark.parametrize(
    ("run", "others", "opened"),
    [("", False, False), ("1", False, False), ("2", False, True), ("2", True, False)],
)
def test_a_job_that_ends_while_it_waits_gets_nothing(
    gate: Gate, run: str, *, others: bool, opened: bool
) -> None:
    gate.service.before["open ibm_fez"] = lambda: gate.starts.end(7, run, others=others)
    if opened:
        asyncio.run(gate.ask(run="1"))
    else:
        with pytest.raises(NoLeaseError):
            asyncio.run(gate.ask(run="1"))
    assert len(gate.service.open_sessions()) == opened
