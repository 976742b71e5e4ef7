# SPDX-License-Identifier: Apache-2.0
"""Queries to Slurm about the jobs of hooks and steps, for many jobs at once.

A squeue for each hook would be too much for a busy slurmctld. So the first query starts at once, and all jobs
that arrive meanwhile share the next one.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from qpu_slurm.errors import SlurmAwayError, SlurmError
from qpu_slurm.system.deadline import Deadline

if TYPE_CHECKING:
    from collections.abc import Callable

    from qpu_slurm.gateway.pools import Pool
    from qpu_slurm.slurm.job import JobRecord
    from qpu_slurm.slurm.query import BatchQuery

_PAUSE = 0.5
"""Seconds between two queries to a Slurm that does not answer."""


class Lookups:
    """Queries Slurm about jobs.

    Args:
        query: Returns the way to query Slurm, by the current configuration.
        pool: The threads that wait for Slurm.
    """

    def __init__(self, query: Callable[[], BatchQuery], pool: Pool) -> None:
        self._query = query
        self._pool = pool
        self._waiting: dict[int, asyncio.Future[list[JobRecord]]] = {}
        self._under_way: dict[int, asyncio.Future[list[JobRecord]]] = {}
        self._asking: asyncio.Task[None] | None = None

    async def components(self, job_id: int, *, seconds: float, fresh: bool = True) -> list[JobRecord]:
        """Look up all components of a job; see `Query.components`.

        Args:
            job_id: The job, or a component.
            seconds: How long to wait for Slurm. A query without an answer is repeated.
            fresh: Whether a query that has begun already is too old.

        Raises:
            SlurmError: Slurm refuses, or does not answer.
        """
        deadline = Deadline.after(seconds)
        while True:
            answer = self._under_way.get(job_id)
            if fresh or answer is None:
                answer = self._waiting.get(job_id) or self._wait(job_id)
            try:
                return await asyncio.wait_for(asyncio.shield(answer), deadline.left)
            except TimeoutError:
                raise SlurmAwayError(f"Slurm had no answer within {seconds:g} s.") from None
            except SlurmAwayError:
                if deadline.left <= _PAUSE:
                    raise
            await asyncio.sleep(_PAUSE)

    def _wait(self, job_id: int) -> asyncio.Future[list[JobRecord]]:
        """Add a job to the next query."""
        answer = self._waiting[job_id] = asyncio.get_running_loop().create_future()
        # The hook or step may be gone by then.
        answer.add_done_callback(_seen)
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask())
        return answer

    async def _ask(self) -> None:
        """Query Slurm until no job waits."""
        while self._waiting:
            asked, self._waiting = self._waiting, {}
            self._under_way = asked
            try:
                found = await self._pool.run(self._query().many, tuple(asked))
            except BaseException as error:
                for answer in asked.values():
                    answer.set_exception(error if isinstance(error, SlurmError) else SlurmError(repr(error)))
                if not isinstance(error, SlurmError):
                    raise
            else:
                for job_id, answer in asked.items():
                    answer.set_result(found[job_id])
            finally:
                self._under_way = {}


def _seen(answer: asyncio.Future[list[JobRecord]]) -> None:
    answer.exception()
