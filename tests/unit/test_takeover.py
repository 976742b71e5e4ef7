# SPDX-License-Identifier: Apache-2.0
"""A journal that is lost: what the reaper takes over from Slurm and from the service."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec
import pytest

from qpu_slurm.admin import tables
from qpu_slurm.errors import UnavailableError
from qpu_slurm.gateway.keys import JobKeys
from qpu_slurm.journal.journal import Journal
from qpu_slurm.journal.model import Hold, Lease, LeaseState
from qpu_slurm.leases.broker import Broker
from qpu_slurm.leases.comments import of_leases
from qpu_slurm.leases.reaper import Reaper
from qpu_slurm.system.users import user_name
from tests.unit.memory_service import Service, request
from tests.unit.test_leases import raises
from tests.unit.test_reaper import Slurm, slurm

if TYPE_CHECKING:
    from qpu_slurm.config import Config

__all__ = ["slurm"]  # fixtures

SUBMITTED_AT = datetime(2026, 11, 1, tzinfo=UTC)
RUN = str(round(SUBMITTED_AT.timestamp()))


class Site:
    """A journal that is lost after jobs have started, and the reaper of the one that is new."""

    def __init__(self, config: Config, service: Service, slurm: Slurm) -> None:
        self.config = config
        self.service = service
        self.slurm = slurm
        self.journal = Journal(config.journal)
        self.broker = Broker(config, self.journal, service.connect, settle=0)

    def start(self, *qpus: str, job_id: int = 7, hold: Hold = Hold.JOB, bind: tuple[str, ...] = ()) -> Lease:
        """Start a job, as its prolog does."""
        wanted = request(*qpus, job_id=job_id)
        leases = self.broker.acquire(msgspec.structs.replace(wanted, hold=hold, bind=bind, run=RUN))
        self.slurm.add(job_id, submitted_at=SUBMITTED_AT)
        self.change(job_id, admin_comment=of_leases(leases).into_comment(""))
        return leases[0]

    def change(self, job_id: int, **what: object) -> None:
        record = self.slurm.records[job_id]
        self.slurm.records[job_id] = msgspec.structs.replace(record, **what)

    def lose(self) -> Reaper:
        """Lose the journal; return the reaper that begins with a new one."""
        self.journal.close()
        self.config.journal.unlink()
        self.journal = Journal(self.config.journal)
        self.broker = Broker(self.config, self.journal, self.service.connect, settle=0)
        return Reaper(self.config, self.broker, self.journal, self.slurm)


@pytest.fixture
def site(config: Config, service: Service, slurm: Slurm) -> Site:
    return Site(config, service, slurm)


def test_a_running_jobs_lease_is_taken_over_with_its_number_and_its_key(site: Site) -> None:
    site.start("ibm_fez", job_id=6)
    before = site.start("ibm_fez")
    reaper = site.lose()

    report = reaper.run()

    assert [lease.job_id for lease in report.taken_over] == [6, 7]
    after = site.journal.lease(before.id)
    assert (after.state, after.session_id, after.hold) == (LeaseState.HELD, before.session_id, Hold.JOB)
    assert (after.user_id, after.run, after.tag) == (1000, RUN, before.tag)
    # A step that has started goes on with the key that it has.
    keys = JobKeys(b"s" * 32)
    assert keys.opens(keys.key(before).reveal(), after)
    text = tables.report_as_text(report)
    assert (
        f"job 7 ({user_name(1000)}), ibm_fez: taken over from Slurm, with session {before.session_id}" in text
    )
    # Once.
    assert reaper.run().taken_over == ()
    site.change(7, state="COMPLETED")
    reaper.run()
    assert site.service.open_sessions() == ["s1"]


def test_what_is_known_is_not_asked_for(site: Site) -> None:
    site.start("ibm_fez")
    released = site.start("ibm_fez", job_id=8)
    site.broker.release(8, "Released by hand.")
    reaper = Reaper(site.config, site.broker, site.journal, site.slurm)
    site.service.calls.clear()
    assert reaper.run().taken_over == ()
    assert site.service.calls == ["closed ibm_fez"]
    assert site.journal.lease(released.id).state is LeaseState.RELEASED


def test_a_session_that_was_opened_since_is_found_by_its_tasks(site: Site) -> None:
    lease = site.start("ibm_fez", hold=Hold.TASK)
    session = site.service.create("ibm_fez")
    site.service.tags[session.id] = lease.tag
    (taken,) = site.lose().run().taken_over
    assert (taken.state, taken.session_id, taken.hold) == (LeaseState.HELD, session.id, Hold.TASK)


def test_without_a_session_the_job_keeps_its_lease(site: Site) -> None:
    first = site.start("ibm_fez", hold=Hold.TASK, bind=("ibm_torino",))
    taken = site.lose().run().taken_over
    assert [(lease.qpu, lease.state, lease.hold) for lease in taken] == [
        ("ibm_fez", LeaseState.BOUND, Hold.TASK),
        ("ibm_torino", LeaseState.BOUND, Hold.NONE),
    ]
    assert site.broker.open_session(first.id).state is LeaseState.HELD


def test_a_session_that_the_service_has_closed_is_not_taken_over(site: Site) -> None:
    lease = site.start("ibm_fez")
    site.service.close(str(lease.session_id))
    (taken,) = site.lose().run().taken_over
    assert (taken.state, taken.session_id, taken.hold) == (LeaseState.BOUND, None, Hold.JOB)


@pytest.mark.parametrize("state", ["COMPLETED", "CANCELLED", "PENDING"])
def test_the_session_of_a_job_that_is_over_is_ended(site: Site, state: str) -> None:
    site.start("ibm_fez")
    site.change(7, state=state)
    reaper = site.lose()
    assert len(reaper.run().taken_over) == 1
    reaper.run()
    assert site.service.open_sessions() == []
    assert reaper.run().taken_over == ()


def test_a_job_whose_prolog_is_at_work_is_left_to_that(site: Site) -> None:
    site.start("ibm_fez")
    site.change(7, state="CONFIGURING")
    reaper = site.lose()
    assert reaper.run().taken_over == ()
    assert site.journal.leases() == []


def test_a_number_that_is_taken_becomes_another(site: Site) -> None:
    before = site.start("ibm_fez")
    reaper = site.lose()
    site.journal.bind(qpu="ibm_fez", job_id=9, user_id=1001, run="1")
    site.slurm.add(9, user_id=1001)
    (taken,) = reaper.run().taken_over
    assert taken.id != before.id
    assert taken.session_id == before.session_id
    keys = JobKeys(b"s" * 32)
    assert not keys.opens(keys.key(before).reveal(), site.journal.lease(before.id))


def test_a_service_that_is_away_is_asked_again(site: Site) -> None:
    site.start("ibm_fez")
    reaper = site.lose()
    site.service.before["read ibm_fez"] = raises(UnavailableError("away"))
    assert reaper.run().taken_over == ()
    site.service.before.clear()
    assert len(reaper.run().taken_over) == 1


def test_on_a_users_own_account_the_job_is_believed(site: Site) -> None:
    """Nobody else has the key."""
    before = site.start("ibm_torino")
    site.start("ibm_torino", job_id=8)
    site.change(8, state="COMPLETED")
    (taken,) = site.lose().run().taken_over
    assert (taken.job_id, taken.state, taken.session_id) == (7, LeaseState.HELD, before.session_id)


def test_a_comment_of_somebody_else_is_passed_over(site: Site) -> None:
    site.start("ibm_fez")
    site.change(7, admin_comment='{"qpu_slurm": {"sessions": 7}}')
    assert site.lose().run().taken_over == ()
