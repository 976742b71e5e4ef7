# SPDX-License-Identifier: Apache-2.0
"""Running jobs whose AdminComments lack leases: their gateway was killed before it wrote them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import msgspec
import pytest

from qpu_slurm.journal.model import Hold
from qpu_slurm.leases.comments import of_leases
from qpu_slurm.slurm.admin_comment import AdminComment, Usage
from tests.unit.memory_service import request
from tests.unit.test_reaper import Slurm, reaper, slurm

if TYPE_CHECKING:
    from qpu_slurm.journal.model import Lease
    from qpu_slurm.leases.broker import Broker
    from qpu_slurm.leases.reaper import Reaper

__all__ = ["reaper", "slurm"]  # fixtures

SUBMITTED_AT = datetime(2026, 11, 1, tzinfo=UTC)


class Site:
    """A cluster whose jobs have leases, and comments or none."""

    def __init__(self, broker: Broker, reaper: Reaper, slurm: Slurm) -> None:
        self.broker = broker
        self.reaper = reaper
        self.slurm = slurm

    def start(
        self, *qpus: str, job_id: int = 7, hold: Hold = Hold.JOB, submitted_at: datetime = SUBMITTED_AT
    ) -> tuple[Lease, ...]:
        """Start a job, up to the moment before its AdminComment is written."""
        run = str(round(submitted_at.timestamp()))
        leases = self.broker.acquire(
            msgspec.structs.replace(request(*qpus, job_id=job_id), hold=hold, bind=("ibm_torino",), run=run)
        )
        before = self.slurm.records.get(job_id)
        self.slurm.add(job_id, submitted_at=submitted_at)
        if before is not None:
            self.change(job_id, admin_comment=before.admin_comment)
        return leases

    def change(self, job_id: int, **what: object) -> None:
        record = self.slurm.records[job_id]
        self.slurm.records[job_id] = msgspec.structs.replace(record, **what)

    def unwritten(self) -> dict[int, AdminComment]:
        self.reaper.run()
        return {job.job_id: comment for job, comment in self.reaper.unwritten}


@pytest.fixture
def site(broker: Broker, reaper: Reaper, slurm: Slurm) -> Site:
    return Site(broker, reaper, slurm)


@pytest.mark.parametrize("hold", [Hold.JOB, Hold.TASK])
def test_a_running_job_without_a_comment_gets_that_of_its_leases(site: Site, hold: Hold) -> None:
    leases = site.start("ibm_fez", hold=hold)
    comment = of_leases(leases)
    assert comment.holds("ibm_fez") == hold
    assert site.unwritten() == {7: comment}
    site.change(7, admin_comment=comment.into_comment(""))
    assert site.unwritten() == {}


def test_what_others_wrote_and_what_was_used_stay(site: Site) -> None:
    leases = site.start("ibm_fez")
    used = AdminComment(usage={"ibm_fez": Usage(locked=2.5, executed=2.0)})
    site.change(7, admin_comment=used.into_comment("by hand"))
    comment = site.unwritten()[7]
    assert comment == msgspec.structs.replace(of_leases(leases), usage=used.usage)


def test_the_comment_of_an_earlier_run_is_replaced(site: Site) -> None:
    earlier = site.start("ibm_fez", hold=Hold.TASK)
    site.change(7, admin_comment=of_leases(earlier).into_comment(""))
    again = site.start("ibm_fez", submitted_at=SUBMITTED_AT + timedelta(minutes=1))
    assert {lease.id for lease in again}.isdisjoint(lease.id for lease in earlier)
    assert site.unwritten() == {7: of_leases(again)}


def test_a_job_that_was_requeued_does_not_wait_any_more(site: Site) -> None:
    leases = site.start("ibm_fez")
    waited = AdminComment(waiting="ibm_fez is closed.", qpus=("ibm_fez",), tries=3)
    site.change(7, admin_comment=waited.into_comment(""))
    assert site.unwritten() == {7: of_leases(leases)}


LEFT_ALONE = {
    "its prolog has not ended": {"state": "CONFIGURING"},
    "its user made a mistake": {"admin_comment": AdminComment(error="no").into_comment("")},
    "an operator wrote in our place": {"admin_comment": '{"qpu_slurm": "mine"}'},
}


@pytest.mark.parametrize("what", LEFT_ALONE.values(), ids=LEFT_ALONE)
def test_a_comment_is_left_alone_if(site: Site, what: dict[str, object]) -> None:
    site.start("ibm_fez")
    site.change(7, **what)
    assert site.unwritten() == {}


def test_a_lease_that_a_component_names_is_not_missing(site: Site) -> None:
    fez, torino = site.start("ibm_fez")
    site.change(7, het_job_id=7, admin_comment=of_leases([torino]).into_comment(""))
    site.slurm.add(8, submitted_at=SUBMITTED_AT)
    site.change(8, het_job_id=7, admin_comment=of_leases([fez]).into_comment(""))
    assert site.unwritten() == {}
    site.change(8, admin_comment="")
    assert site.unwritten() == {7: of_leases([torino, fez])}
