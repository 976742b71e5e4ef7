# SPDX-License-Identifier: Apache-2.0
"""The threads for the gateway's blocking work: a pool for each kind of work.

Work of one kind waits for work of the same kind only. A user who opens sessions in a loop fills the pool of
sessions; hooks, the reaper and MUNGE have threads of their own.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from qpu_slurm.system import structs

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    P = ParamSpec("P")
    T = TypeVar("T")


class Pool:
    """Some threads.

    Args:
        name: The name that a debugger shows.
        threads: How many there are at most.

    Attributes:
        executor: The same threads, as an executor.
    """

    def __init__(self, name: str, threads: int) -> None:
        structs.prepare()
        self.executor = ThreadPoolExecutor(threads, name)
        self._work: set[Future[Any]] = set()

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a blocking function in one of the threads; return its result."""
        work = self.executor.submit(function, *args, **kwargs)
        self._work.add(work)
        work.add_done_callback(self._work.discard)
        return await asyncio.wrap_future(work)

    def close(self) -> list[Future[Any]]:
        """Start no more work, and drop what waits; return what has begun."""
        self.executor.shutdown(wait=False, cancel_futures=True)
        return [work for work in list(self._work) if not work.done()]


class Pools:
    """The gateway's pools.

    Attributes:
        acquire: Acquires of hooks, up to `acquire_timeout` each, in the order that `starts` keeps.
        release: Releases of hooks, which have five seconds.
        sessions: Sessions that jobs open and close themselves.
        background: The reaper and the accountant. No request waits for these.
        systems: Requests of jobs to QPUs on the premises, through a provider.
        queries: Users' queries for histories, which query Slurm, and for the QPUs' state.
        slurm: Queries and commands to Slurm for hooks and steps.
        comments: Writes of AdminComments. No request waits for these.
        steps: Records of steps' starts and ends, one after the other.
        short: MUNGE and the service's tokens, which take a moment, and which each request needs.
        watch: Health and metrics.
    """

    def __init__(self) -> None:
        self.acquire = Pool("acquire", 48)
        self.release = Pool("release", 32)
        self.sessions = Pool("sessions", 16)
        self.background = Pool("background", 8)
        self.queries = Pool("queries", 4)
        self.systems = Pool("systems", 32)
        self.slurm = Pool("slurm", 8)
        self.comments = Pool("comments", 2)
        self.steps = Pool("steps", 1)
        self.short = Pool("short", 8)
        self.watch = Pool("watch", 2)

    async def stop(self, seconds: float) -> bool:
        """Stop them all, and wait for work that has begun.

        Args:
            seconds: How long to wait.

        Returns:
            Whether all work has finished. If not, the process has to exit without waiting for its threads.
        """
        pools: list[Pool] = list(vars(self).values())
        begun = [asyncio.wrap_future(work) for pool in pools for work in pool.close()]
        if not begun:
            return True
        _, left = await asyncio.wait(begun, timeout=seconds)
        return not left
