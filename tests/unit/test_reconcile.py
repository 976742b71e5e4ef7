# SPDX-License-Identifier: Apache-2.0
"""The reaper compares the leases of running jobs with the service, and forgets what was over long ago."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import msgspec
import pytest

from qpu_slurm.admin import tables
from qpu_slurm.errors import UnavailableError
from qpu_slurm.journal.journal import Journal
from qpu_slurm.journal.model import Hold, LeaseState
from qpu_slurm.leases.broker import Broker
from qpu_slurm.leases.reaper import Reaper
from tests.unit.memory_service import KEY, Service, request
from tests.unit.power import left_of, power
from tests.unit.test_leases import bind, raises
from tests.unit.test_reaper import Slurm, reaper, slurm

if TYPE_CHECKING:
    from qpu_slurm.config import Config

__all__ = ["power", "reaper", "slurm"]  # fixtures


def backdate(journal: Journal, column: str, lease_id: int) -> None:
    """Let time pass."""
    journal._database._db.execute(  # noqa: SLF001 - time passes
        f"UPDATE leases SET {column} = '2026-01-01T00:00:00.000000Z' WHERE id = ?",  # noqa: S608 - our own names
        (lease_id,),
    )


def test_a_lease_loses_the_session_that_the_service_has_closed(
    reaper: Reaper, broker: Broker, journal: Journal, service: Service, slurm: Slurm
) -> None:
    gone, kept = (broker.acquire(request("ibm_fez", job_id=job_id))[0] for job_id in (7, 8))
    for job_id in (7, 8):
        slurm.add(job_id)
    service.close(str(gone.session_id))
    service.calls.clear()
    report = reaper.run()
    # One question, however many leases there are.
    assert service.calls == ["closed ibm_fez"]
    [parted] = report.reaped
    assert (parted.lease.id, parted.lease.state, parted.lease.session_id) == (gone.id, LeaseState.BOUND, None)
    assert journal.lease(kept.id) == kept
    assert "ibm_fez: without a session, until the next task (" in tables.report_as_text(report)
    assert "2 leases: 0 to be ended, 2 left to their jobs." in tables.report_as_text(report)
    assert reaper.run().reaped == ()
    # A later task opens another.
    assert broker.open_session(gone.id).session_id in service.open_sessions()


def test_a_session_on_a_users_own_account_is_asked_for_when_its_time_is_over(
    reaper: Reaper, broker: Broker, journal: Journal, service: Service, slurm: Slurm
) -> None:
    [lease] = broker.acquire(request("ibm_torino"))
    slurm.add(7)
    service.close(str(lease.session_id))
    assert reaper.run().reaped == ()
    backdate(journal, "expires_at", lease.id)
    assert [reaped.lease.state for reaped in reaper.run().reaped] == [LeaseState.BOUND]


def test_a_service_that_is_away_keeps_nobody(
    reaper: Reaper, broker: Broker, service: Service, slurm: Slurm
) -> None:
    broker.acquire(request("ibm_fez"))
    slurm.add(7)
    service.before["closed ibm_fez"] = raises(UnavailableError("away"))
    report = reaper.run()
    assert (report.reaped, report.complete) == ((), True)


@pytest.mark.parametrize("opened", [True, False])
def test_who_was_opening_a_session_for_a_task_died(
    reaper: Reaper, broker: Broker, journal: Journal, service: Service, slurm: Slurm, *, opened: bool
) -> None:
    wanted = msgspec.structs.replace(request("ibm_fez"), hold=Hold.TASK)
    [lease] = broker.acquire(wanted)
    slurm.add(7)
    journal.begin_session(lease.id, datetime.now(UTC) + timedelta(hours=1))
    if opened:
        service.create("ibm_fez")
    # He may be at work yet,
    assert reaper.run().reaped == ()
    # and is not any more.
    backdate(journal, "intended_at", lease.id)
    [settled] = reaper.run().reaped
    assert settled.lease.state is (LeaseState.HELD if opened else LeaseState.BOUND)
    assert settled.lease.session_id == ("s1" if opened else None)
    assert settled.why == "Whoever was opening the session died."
    broker.release(7, "The job ended.")
    assert service.open_sessions() == []


@pytest.mark.parametrize("qpu", ["ibm_fez", "ibm_torino"], ids=["the admin's key", "the user's key"])
def test_a_session_that_comes_late_is_ended(
    reaper: Reaper, broker: Broker, journal: Journal, service: Service, qpu: str
) -> None:
    in_an_hour = datetime.now(UTC) + timedelta(hours=1)
    key = KEY if qpu == "ibm_torino" else None
    intent = journal.intend(job_id=7, user_id=1000, qpu=qpu, expires_at=in_an_hour, api_key=key)
    # Who was opening it died, and the job is over.
    assert [lease.state for lease in broker.release(7, "The job ended.")] == [LeaseState.RELEASED]
    assert reaper.run().reaped == ()
    service.before[f"look {qpu}"] = raises(UnavailableError("away"))
    assert reaper.run().reaped == ()
    service.before.clear()

    service.create(qpu)
    [late] = reaper.run().reaped
    assert (late.lease.id, late.why) == (intent.id, "Its session came after it was over.")
    assert service.open_sessions() == []
    assert [session.session_id for session in journal.history.sessions(intent.id)] == ["s1"]
    assert_settled(reaper, journal, service, intent.id)


@pytest.mark.parametrize("what", ["late", "opening"])
def test_one_look_takes_no_longer_than_it_may(
    reaper: Reaper,
    broker: Broker,
    journal: Journal,
    service: Service,
    slurm: Slurm,
    *,
    monkeypatch: pytest.MonkeyPatch,
    what: str,
) -> None:
    in_an_hour = datetime.now(UTC) + timedelta(hours=1)
    for job_id in (7, 8, 9):
        if what == "late":
            journal.intend(job_id=job_id, user_id=1000, qpu="ibm_fez", expires_at=in_an_hour)
            broker.release(job_id, "The job ended.")
        else:
            slurm.add(job_id)
            wanted = msgspec.structs.replace(request("ibm_fez", job_id=job_id), hold=Hold.TASK)
            [lease] = broker.acquire(wanted)
            journal.begin_session(lease.id, in_an_hour)
            backdate(journal, "intended_at", lease.id)
    monkeypatch.setattr("qpu_slurm.leases.reaper._BUDGET", 0.2)
    service.before["look ibm_fez"] = lambda: time.sleep(0.3)
    service.calls.clear()
    reaper.run()
    assert service.calls.count("look ibm_fez") == 1
    # The others are taken up by the next looks.
    service.before.clear()
    reaper.run()
    assert service.calls.count("look ibm_fez") >= 3


def test_after_a_while_none_comes_any_more(
    reaper: Reaper, broker: Broker, journal: Journal, service: Service
) -> None:
    in_an_hour = datetime.now(UTC) + timedelta(hours=1)
    intent = journal.intend(job_id=7, user_id=1000, qpu="ibm_torino", expires_at=in_an_hour, api_key=KEY)
    broker.release(7, "The job ended.")
    backdate(journal, "intended_at", intent.id)
    assert reaper.run().reaped == ()
    # One of somebody who works without Slurm.
    service.create("ibm_torino")
    assert_settled(reaper, journal, service, intent.id)
    assert service.open_sessions() == ["s1"]


def assert_settled(reaper: Reaper, journal: Journal, service: Service, lease_id: int) -> None:
    service.calls.clear()
    assert reaper.run().reaped == ()
    assert service.calls == []
    assert journal.events(lease_id)[-1].what == "settled"
    assert journal.api_key(lease_id) is None


@pytest.mark.usefixtures("power")
def test_a_job_that_runs_keeps_its_session_after_a_power_loss(
    config: Config, broker: Broker, service: Service, slurm: Slurm
) -> None:
    """Two jobs have sessions that look alike: none may get the other's."""
    held = [broker.acquire(request("ibm_fez", job_id=job_id))[0] for job_id in (7, 8)]
    for job_id in (7, 8):
        slurm.add(job_id)
    with Journal(left_of(config.journal)) as journal:
        broker = Broker(config, journal, service.connect, settle=0)
        assert [(it.id, it.session_id) for it in journal.leases()] == [(it.id, it.session_id) for it in held]
        assert Reaper(config, broker, journal, slurm).run().reaped == ()
        for job_id in (7, 8):
            broker.release(job_id, "The job ended.")
        assert service.open_sessions() == []


def test_what_was_over_long_ago_is_forgotten(
    config: Config, broker: Broker, journal: Journal, slurm: Slurm
) -> None:
    old, recent = (broker.acquire(request("ibm_fez", job_id=job_id, run="1"))[0] for job_id in (7, 8))
    [running] = broker.acquire(bind("ibm_fez", job_id=9, run="1"))
    long_ago = datetime(2026, 1, 1, tzinfo=UTC)
    for job_id in (7, 8):
        journal.history.step_started(job_id, "0", "task_runner", long_ago)
        broker.release(job_id, "The job ended.")
    slurm.add(9, submitted_at=datetime.fromtimestamp(1, UTC))
    backdate(journal, "ended_at", old.id)
    Reaper(config, broker, journal, slurm).run()
    assert len(journal.leases(over=True)) == 3  # they are kept for good, unless the admin says otherwise

    reaper = Reaper(msgspec.structs.replace(config, keep=86_400), broker, journal, slurm)
    report = reaper.run()
    assert report.forgotten == 1
    assert [lease.id for lease in journal.leases(over=True)] == [recent.id, running.id]
    assert journal.history.sessions(old.id) == []
    assert journal.history.steps(7, "1") == []
    assert len(journal.history.steps(8, "1")) == 1
    assert "1 that were over long ago are deleted." in tables.report_as_text(report)
    assert reaper.run().forgotten == 0
