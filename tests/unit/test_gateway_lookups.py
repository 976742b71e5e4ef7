# SPDX-License-Identifier: Apache-2.0
"""Slurm is asked for many jobs at once."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

import pytest

from qpu_slurm.errors import SlurmAwayError, SlurmError
from qpu_slurm.gateway.lookups import Lookups
from qpu_slurm.gateway.pools import Pool
from qpu_slurm.slurm.job import JobRecord

if TYPE_CHECKING:
    from collections.abc import Iterable


class Slurm:
    """Answers when it is let, and says what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, ...]] = []
        self.begun, self.let = threading.Event(), threading.Event()
        self.failures = 0

    def many(self, job_ids: Iterable[int]) -> dict[int, list[JobRecord]]:
        ids = tuple(job_ids)
        self.asked.append(ids)
        self.begun.set()
        assert self.let.wait(60)
        if self.failures:
            self.failures -= 1
            raise SlurmAwayError("slurmctld is away")
        return {job_id: [record(job_id)] for job_id in ids}

    def job(self, job_id: int) -> JobRecord | None:
        raise NotImplementedError

    def components(self, job_id: int) -> list[JobRecord]:
        raise NotImplementedError

    def jobs(self) -> list[JobRecord]:
        raise NotImplementedError


def record(job_id: int) -> JobRecord:
    return JobRecord(
        job_id=job_id,
        het_job_id=None,
        user_id=0,
        state="RUNNING",
        batch=True,
        gres=(),
        time_left=None,
        admin_comment="",
    )


def lookups(slurm: Slurm) -> Lookups:
    return Lookups(lambda: slurm, Pool("slurm", 1))


async def asked(found: Lookups, job_id: int, seconds: float = 60, *, fresh: bool = True) -> list[int]:
    return [job.job_id for job in await found.components(job_id, seconds=seconds, fresh=fresh)]


def test_those_who_ask_meanwhile_share_the_next_question() -> None:
    slurm = Slurm()

    async def main() -> None:
        found = lookups(slurm)
        first = asyncio.create_task(asked(found, 1))
        assert await asyncio.to_thread(slurm.begun.wait, 60)
        others = [asyncio.create_task(asked(found, job_id)) for job_id in (2, 3, 2, *range(4, 100))]
        await asyncio.sleep(0)
        slurm.let.set()
        assert await first == [1]
        assert [await other for other in others[:3]] == [[2], [3], [2]]
        await asyncio.gather(*others)
        assert await asked(found, 1) == [1]

    asyncio.run(main())
    assert slurm.asked == [(1,), tuple(range(2, 100)), (1,)]


def test_one_who_is_gone_takes_no_others_answer_along() -> None:
    slurm = Slurm()

    async def main() -> None:
        found = lookups(slurm)
        gone, stays = (asyncio.create_task(asked(found, 1)) for _ in range(2))
        assert await asyncio.to_thread(slurm.begun.wait, 60)
        gone.cancel()
        slurm.let.set()
        assert await stays == [1]

    asyncio.run(main())


@pytest.mark.parametrize("seconds", [0.3, 60])
def test_a_slurm_that_is_away_is_asked_again(seconds: float) -> None:
    slurm = Slurm()
    slurm.failures = 1
    slurm.let.set()

    async def main() -> list[int]:
        return await asked(lookups(slurm), 1, seconds)

    if seconds > 1:
        assert asyncio.run(main()) == [1]
    else:
        with pytest.raises(SlurmError, match="away"):
            asyncio.run(main())


def test_one_who_asks_again_gets_the_answer_that_is_on_its_way() -> None:
    slurm = Slurm()

    async def main() -> None:
        found = lookups(slurm)
        with pytest.raises(SlurmError, match=r"no answer within 0\.1 s"):
            await asked(found, 1, 0.1, fresh=False)
        again = asyncio.create_task(asked(found, 1, fresh=False))
        await asyncio.sleep(0)
        slurm.let.set()
        assert await again == [1]

    asyncio.run(main())
    assert slurm.asked == [(1,)]
