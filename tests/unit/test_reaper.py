# SPDX-License-Identifier: Apache-2.0
"""What the reaper ends, and what it leaves alone; Slurm and the service are in memory."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import msgspec
import pytest

from qpu_slurm.admin import tables
from qpu_slurm.errors import SlurmError, UnavailableError
from qpu_slurm.journal.model import LeaseState
from qpu_slurm.leases.broker import Broker
from qpu_slurm.leases.reaper import Reaper
from qpu_slurm.slurm.job import JobRecord
from tests.unit.memory_service import Service, request
from tests.unit.test_leases import bind, raises

if TYPE_CHECKING:
    from collections.abc import Callable

    from qpu_slurm.config import Config
    from qpu_slurm.journal.journal import Journal
    from qpu_slurm.journal.model import Lease
    from qpu_slurm.leases.reaper import Report


class Slurm:
    """What Slurm runs."""

    def __init__(self) -> None:
        self.records: dict[int, JobRecord] = {}
        self.asked: Callable[[], object] = lambda: None

    def add(
        self,
        job_id: int,
        state: str = "RUNNING",
        user_id: int = 1000,
        submitted_at: datetime | None = None,
    ) -> None:
        self.records[job_id] = JobRecord(
            job_id=job_id,
            het_job_id=None,
            user_id=user_id,
            state=state,
            batch=True,
            gres=(),
            time_left=60,
            submitted_at=submitted_at,
            admin_comment="",
        )

    def job(self, job_id: int) -> JobRecord | None:
        return self.records.get(job_id)

    def components(self, job_id: int) -> list[JobRecord]:
        return [self.records[job_id]]

    def jobs(self) -> list[JobRecord]:
        jobs = list(self.records.values())
        self.asked()
        return jobs


@pytest.fixture
def slurm() -> Slurm:
    return Slurm()


@pytest.fixture
def reaper(config: Config, broker: Broker, journal: Journal, slurm: Slurm) -> Reaper:
    return Reaper(config, broker, journal, slurm)


ENDED = {
    "gone": (None, 1000, "does not know"),
    "completed": ("COMPLETED", 1000, "COMPLETED"),
    "cancelled": ("CANCELLED", 1000, "CANCELLED"),
    "to be run again": ("PENDING", 1000, "PENDING"),
    "another user": ("RUNNING", 1001, "another user"),
}


@pytest.mark.parametrize("how", ENDED)
def test_what_no_job_holds_is_ended(
    reaper: Reaper, broker: Broker, service: Service, slurm: Slurm, how: str
) -> None:
    state, user_id, says = ENDED[how]
    broker.acquire(msgspec.structs.replace(request("ibm_torino"), bind=("ibm_fez",)))
    if state:
        slurm.add(7, state, user_id)

    report = reaper.run()

    assert [reaped.lease.state for reaped in report.reaped] == [LeaseState.RELEASED] * 2
    assert all(says in reaped.why and reaped.why == reaped.lease.reason for reaped in report.reaped)
    assert service.open_sessions() == []
    assert report.complete
    assert reaper.run().leases == 0


@pytest.mark.parametrize("state", ["RUNNING", "CONFIGURING", "SUSPENDED", "STOPPED", "RESIZING", "NEW_STATE"])
def test_what_a_live_job_holds_is_left_alone(
    reaper: Reaper, broker: Broker, journal: Journal, slurm: Slurm, state: str
) -> None:
    leases = broker.acquire(msgspec.structs.replace(request("ibm_torino"), bind=("ibm_fez",)))
    slurm.add(7, state)

    assert reaper.run().reaped == ()
    assert tuple(journal.leases()) == leases


def test_an_epilog_gets_its_time(reaper: Reaper, broker: Broker, slurm: Slurm) -> None:
    broker.acquire(request("ibm_fez"))
    slurm.add(7, "COMPLETING")
    assert reaper.run().reaped == ()
    (reaped,) = reaper.run().reaped
    assert reaped.lease.state is LeaseState.RELEASED


def test_a_release_that_failed_is_tried_again_whatever_slurm_says(
    reaper: Reaper, broker: Broker, journal: Journal, service: Service, slurm: Slurm
) -> None:
    (lease,) = broker.acquire(request("ibm_fez"))
    service.before["cancel ibm_fez"] = raises(UnavailableError("The service is away."))
    broker.release(7, "The job ended.")
    slurm.add(7)  # it runs again
    slurm.asked = raises(SlurmError("slurmctld is away."))
    for _ in range(3):
        report = reaper.run()
        assert [reaped.trouble for reaped in report.reaped] == ["The service is away."]
        assert report.trouble == "slurmctld is away."
        assert not report.complete
    # What is the same every minute is written down once.
    assert [event.what for event in journal.events(lease.id)].count("postponed") == 1
    assert "not released yet: The service is away." in tables.report_as_text(report)

    del service.before["cancel ibm_fez"]
    assert [reaped.lease.reason for reaped in reaper.run().reaped] == ["The job ended."]
    assert service.open_sessions() == []


def test_without_slurm_nothing_that_is_held_is_ended(reaper: Reaper, broker: Broker, slurm: Slurm) -> None:
    broker.acquire(request("ibm_fez"))
    slurm.asked = raises(SlurmError("slurmctld is away."))
    report = reaper.run()
    assert (report.leases, report.reaped, report.trouble) == (1, (), "slurmctld is away.")


@pytest.mark.parametrize("names", [("ibm_fez",), ()], ids=["held", "bound"])
def test_what_the_next_run_takes_over_meanwhile_is_left_alone(
    reaper: Reaper, broker: Broker, slurm: Slurm, names: tuple[str, ...]
) -> None:
    wanted = request(*names) if names else bind("ibm_fez")
    (before,) = broker.acquire(wanted)
    slurm.add(7, "PENDING")
    # The reaper was told that the job waits, and before it does anything the job is started again.
    found: list[tuple[Lease, ...]] = []
    slurm.asked = lambda: found.append(broker.acquire(wanted))

    assert reaper.run().reaped == ()
    assert found == [(before,)]


def test_what_was_ended_meanwhile_is_opened_anew_by_the_next_run(
    reaper: Reaper, broker: Broker, service: Service, slurm: Slurm
) -> None:
    (before,) = broker.acquire(request("ibm_fez"))
    slurm.add(7, "PENDING")
    service.before["cancel ibm_fez"] = raises(UnavailableError("away"))
    reaper.run()
    del service.before["cancel ibm_fez"]
    (after,) = broker.acquire(request("ibm_fez"))
    assert after.id != before.id
    assert service.open_sessions() == [after.session_id]


def test_an_intent_whose_process_died_is_resolved(
    reaper: Reaper, journal: Journal, service: Service, slurm: Slurm
) -> None:
    slurm.add(7, "CONFIGURING")
    later = datetime.now(UTC) + timedelta(hours=1)
    intent = journal.intend(job_id=7, user_id=1000, qpu="ibm_fez", expires_at=later)
    service.create("ibm_fez")
    # Its process may be at work yet,
    assert reaper.run().reaped == ()
    # and is not any more.
    journal._database._db.execute(  # noqa: SLF001 - time passes
        "UPDATE leases SET created_at = '2026-01-01T00:00:00.000000Z' WHERE id = ?", (intent.id,)
    )
    (reaped,) = reaper.run().reaped
    assert (reaped.lease.state, reaped.lease.session_id) == (LeaseState.RELEASED, "s1")
    assert service.open_sessions() == []


def test_a_clock_that_is_set_takes_no_session_from_who_is_opening_it(
    config: Config, broker: Broker, journal: Journal, service: Service, slurm: Slurm
) -> None:
    slurm.add(7, "CONFIGURING")
    looks: list[Report] = []

    def set_clock_and_reap() -> None:
        journal._database._db.execute(  # noqa: SLF001 - as if the clock had been set forward
            "UPDATE leases SET created_at = '2026-01-01T00:00:00.000000Z'"
        )
        other = Broker(config, journal, service.connect, settle=0)
        looks.append(Reaper(config, other, journal, slurm).run())

    service.before["open ibm_fez"] = set_clock_and_reap
    (lease,) = broker.acquire(request("ibm_fez"))
    assert [look.reaped for look in looks] == [()]
    assert lease.state is LeaseState.HELD


def test_two_reapers_at_once_end_each_session_once(
    config: Config, broker: Broker, journal: Journal, service: Service, slurm: Slurm
) -> None:
    for job_id in range(1, 6):
        broker.acquire(request("ibm_fez", job_id=job_id))
    other = Reaper(config, Broker(config, journal, service.connect, settle=0), journal, Slurm())
    slurm.asked = other.run
    report = Reaper(config, broker, journal, slurm).run()
    assert report.leases == 5
    assert service.calls.count("cancel ibm_fez") == 5
    assert service.open_sessions() == []


def test_ten_thousand_leases_are_looked_through(reaper: Reaper, journal: Journal, slurm: Slurm) -> None:
    with journal._database.transaction() as db:  # noqa: SLF001 - ten thousand by themselves take a minute to write
        db.executemany(
            "INSERT INTO leases (job_id, user_id, qpu, state, session_id, created_at)"
            " VALUES (?, 1000, 'ibm_fez', 'held', 's', '2026-01-01T00:00:00.000000Z')",
            [(job_id,) for job_id in range(10_000)],
        )
    for job_id in range(10_000):
        slurm.add(job_id)
    report = reaper.run()
    assert report.leases == 10_000
    assert len(journal.leases()) == 10_000
