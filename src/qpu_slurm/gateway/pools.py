# SPDX-License-Identifier: Apache-2.0
"""The threads in which the gateway does what blocks: a pool for each kind of work.

Work of one kind waits for work of the same kind only. A user who opens sessions in a loop fills the pool of
sessions; hooks, the reaper and MUNGE have threads of their own.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    P = ParamSpec("P")
    T = TypeVar("T")


class Pool:
    """Some threads.

    Args:
        name: What they do; a debugger shows it.
        threads: How many there are at most.

    Attributes:
        executor: The same threads, for what wants an executor.
    """

    def __init__(self, name: str, threads: int) -> None:
        self.executor = ThreadPoolExecutor(threads, name)
        self._work: set[Future[Any]] = set()

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run what blocks in one of the threads; return what it returns."""
        work = self.executor.submit(function, *args, **kwargs)
        self._work.add(work)
        work.add_done_callback(self._work.discard)
        return await asyncio.wrap_future(work)

    def close(self) -> list[Future[Any]]:
        """Begin nothing any more, and drop what waits; return what has begun."""
        self.executor.shutdown(wait=False, cancel_futures=True)
        return [work for work in list(self._work) if not work.done()]


class Pools:
    """The gateway's pools.

    Attributes:
        acquire: Hooks acquire: up to `acquire_timeout` each, in the order that `starts` keeps.
        release: Hooks release, and have five seconds for it.
        sessions: Jobs open and close sessions of their own.
        background: The reaper, the accounts, what is written for steps: no request waits for these.
        systems: Jobs ask QPUs on the premises, through a provider.
        queries: Users ask what a job did, for which Slurm is asked, and how the QPUs are.
        slurm: Slurm is asked and told for hooks and steps.
        comments: What Slurm's record of a job is to say, for which nobody waits.
        steps: Starts and ends of steps are written down, each after the one before.
        short: MUNGE and the service's tokens: what takes a moment, and each request needs.
        watch: Health and metrics, for who watches the gateway.
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
        """Stop them all: what has begun is finished, if it takes no longer than it may.

        Args:
            seconds: How long it may take.

        Returns:
            Whether all is finished. If not, the process has to end without waiting for its threads.
        """
        pools: list[Pool] = list(vars(self).values())
        begun = [asyncio.wrap_future(work) for pool in pools for work in pool.close()]
        if not begun:
            return True
        _, left = await asyncio.wait(begun, timeout=seconds)
        return not left
