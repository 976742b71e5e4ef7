# SPDX-License-Identifier: Apache-2.0
"""What Slurm is told of a QPU that is not to be had; Slurm and the service are in memory."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, cast

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qpu_slurm.admin import tables
from qpu_slurm.config import SlurmConfig
from qpu_slurm.errors import RefusedError, SlurmError, UnavailableError
from qpu_slurm.leases.availability import Availability, QpuReport, QpuState
from qpu_slurm.slurm.admin_comment import AdminComment
from qpu_slurm.slurm.job import JobRecord
from qpu_slurm.slurm.licenses import Licenses
from tests.unit.memory_service import Service, request
from tests.unit.test_leases import raises

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from qpu_slurm.config import Config
    from qpu_slurm.journal.journal import Journal
    from qpu_slurm.leases.broker import Broker
    from qpu_slurm.slurm.control import Control


class Slurm:
    """What Slurm was told."""

    def __init__(self) -> None:
        self.kept: dict[str, str] = {}
        self.started: list[int] = []
        self.gone: set[int] = set()

    def totals(self) -> dict[str, int]:
        return {"ibm_fez": 1, "ibm_torino": 5, "matlab": 2}

    def withheld(self) -> dict[str, str]:
        return self.kept

    def withhold(self, name: str, total: int, why: str, *, seconds: int) -> bool:
        assert total == self.totals()[name]
        assert seconds >= 900
        new = self.kept.get(name) != why
        self.kept[name] = why
        return new

    def give_back(self, name: str) -> bool:
        return self.kept.pop(name, None) is not None

    def start_now(self, job: JobRecord) -> None:
        if job.job_id in self.gone:
            raise SlurmError("Job is not pending")
        self.started.append(job.job_id)


@pytest.fixture
def slurm() -> Slurm:
    return Slurm()


@pytest.fixture
def limited(config: Config) -> Config:
    fez = msgspec.structs.replace(config.qpus["ibm_fez"], exclusive=True)
    return msgspec.structs.replace(config, qpus={**config.qpus, "ibm_fez": fez})


@pytest.fixture
def availability(limited: Config, journal: Journal, slurm: Slurm, service: Service) -> Availability:
    return Availability(limited, journal, cast("Control", slurm), cast("Licenses", slurm), service.connect)


def waiting(job_id: int, *qpus: str, **more: object) -> JobRecord:
    fields: dict[str, Any] = {
        "het_job_id": None,
        "user_id": 1000,
        "state": "PENDING",
        "batch": True,
        "gres": (),
        "time_left": 60,
        "submitted_at": datetime.now(UTC) - timedelta(minutes=1),
        "reason": "BeginTime",
        "admin_comment": AdminComment(waiting="closed", qpus=qpus).into_comment(""),
    }
    return JobRecord(job_id=job_id, **fields | more)


def states(availability: Availability) -> dict[str, QpuState]:
    return {report.qpu: report.state for report in availability.keep(())}


def test_a_closed_qpu_and_one_that_is_away_are_held_back(
    availability: Availability, journal: Journal, service: Service, slurm: Slurm
) -> None:
    # ibm_torino is used with users' own keys, ibm_paris has none that can be read.
    assert states(availability) == {"ibm_fez": "available", "ibm_torino": "unknown", "ibm_paris": "unknown"}
    assert slurm.kept == {}
    service.offline["ibm_fez"] = "maintenance"
    journal.closings.close("ibm_torino", "New fridge.", 4711)
    fez, torino, _ = availability.keep(())
    assert (fez.state, fez.reason) == (QpuState.AWAY, "maintenance")
    assert (torino.state, torino.reason, torino.closed_by) == (QpuState.CLOSED, "New fridge.", 4711)
    assert slurm.kept == {"ibm_fez": "maintenance", "ibm_torino": "New fridge."}
    service.offline.clear()
    journal.closings.open("ibm_torino")
    availability.keep(())
    assert slurm.kept == {}


@pytest.mark.parametrize(
    ("error", "state"),
    [(UnavailableError("silence"), QpuState.AWAY), (RefusedError("bad key"), QpuState.UNKNOWN)],
)
def test_a_service_that_does_not_answer_is_away(
    availability: Availability, service: Service, error: Exception, state: QpuState
) -> None:
    service.before["statuses ibm_fez"] = raises(cast("UnavailableError", error))
    [report] = [report for report in availability.keep(()) if report.qpu == "ibm_fez"]
    assert (report.state, report.reason) == (state, str(error))


def test_the_qpus_of_one_account_are_asked_about_at_once(
    limited: Config, journal: Journal, slurm: Slurm, service: Service
) -> None:
    fez = limited.qpus["ibm_fez"]
    shared = {
        name: msgspec.structs.replace(fez, name=name, backend=name) for name in ("ibm_fez", "ibm_torino")
    }
    nowhere = msgspec.structs.replace(fez, name="ibm_kyiv", backend="ibm_kyiv")
    config = msgspec.structs.replace(limited, qpus={**shared, "ibm_kyiv": nowhere})
    availability = Availability(
        config, journal, cast("Control", slurm), cast("Licenses", slurm), service.connect
    )
    service.offline["ibm_torino"] = "maintenance"
    found = {report.qpu: (report.state, report.reason) for report in availability.look(())}
    assert found == {
        "ibm_fez": ("available", ""),
        "ibm_torino": ("away", "maintenance"),
        "ibm_kyiv": ("unknown", "ibm_kyiv is none of the QPUs of its instance"),
    }
    assert service.calls == ["statuses ibm_fez"]


def test_who_was_requeued_is_started_when_his_qpu_is_back(
    availability: Availability, service: Service, slurm: Slurm
) -> None:
    service.offline["ibm_fez"] = "maintenance"
    jobs = [waiting(7, "ibm_fez")]
    [report] = [report for report in availability.keep(jobs) if report.qpu == "ibm_fez"]
    assert report.waiting == (7,)
    assert slurm.started == []
    service.offline.clear()
    availability.keep(jobs)
    assert slurm.started == [7]


def test_only_as_many_are_started_as_there_is_room_for(
    availability: Availability, broker: Broker, slurm: Slurm
) -> None:
    jobs = [waiting(9, "ibm_fez"), waiting(8, "ibm_fez"), waiting(7, "ibm_fez")]
    slurm.gone.add(7)
    availability.keep(jobs)
    assert slurm.started == [8]
    broker.acquire(request("ibm_fez", job_id=1))
    availability.keep(jobs)
    assert slurm.started == [8]


@pytest.mark.parametrize(
    "job",
    [
        waiting(7),
        waiting(7, "ibm_fez", "ibm_torino"),
        waiting(7, "ibm_kyiv"),
        waiting(7, "ibm_fez", reason="Resources"),
        waiting(7, "ibm_fez", reason="JobHeldUser"),
        waiting(7, "ibm_fez", state="RUNNING"),
        # A node would take its new run for the last one.
        waiting(7, "ibm_fez", submitted_at=datetime.now(UTC) + timedelta(hours=1)),
        # Something else than the QPU's absence had failed, and may fail yet.
        # Made as the test begins: the time since this file was read may be minutes.
        lambda: waiting(
            7,
            admin_comment=AdminComment(waiting="503", qpus=("ibm_fez",), tries=1).into_comment(""),
            submitted_at=datetime.now(UTC) - timedelta(seconds=30),
        ),
        waiting(7, admin_comment='{"qpu_slurm": {"waiting": 7}}'),
        waiting(7, admin_comment="a note"),
        waiting(7, admin_comment='{"qpu_slurm": {"qpus": ["ibm_fez"]}}'),
    ],
)
def test_nobody_else_is_started(
    availability: Availability, slurm: Slurm, job: JobRecord | Callable[[], JobRecord]
) -> None:
    availability.keep([job() if callable(job) else job])
    assert slurm.started == []


def test_after_an_outage_jobs_are_started_as_soon_as_they_have_waited_once(
    availability: Availability, slurm: Slurm
) -> None:
    left = AdminComment(waiting="503", qpus=("ibm_fez",), tries=4).into_comment("")
    availability.keep(
        [waiting(7, admin_comment=left, submitted_at=datetime.now(UTC) - timedelta(seconds=61))]
    )
    assert slurm.started == [7]


def test_the_components_of_a_job_are_started_as_one(availability: Availability, slurm: Slurm) -> None:
    availability.keep([waiting(8, "ibm_fez", het_job_id=7), waiting(7, "ibm_fez", het_job_id=7)])
    assert slurm.started == [7]


def test_who_waits_for_what_nobody_can_ask_about_is_started_as_the_admin_opens_it(
    availability: Availability, slurm: Slurm
) -> None:
    jobs = [waiting(7, "ibm_torino"), waiting(8, "ibm_fez", licenses=("ibm_torino",), reason="Licenses")]
    availability.keep(jobs)
    assert slurm.started == []
    reports = {report.qpu: report for report in availability.keep(jobs, opened="ibm_torino")}
    assert slurm.started == [7]
    assert reports["ibm_torino"].waiting == (7, 8)


def test_qpus_as_a_table(availability: Availability, journal: Journal) -> None:
    journal.closings.close("ibm_torino", "[red]New[/red] fridge.", 0)
    lines = tables.qpus_as_table(availability.look(None)).splitlines()
    assert re.split(r" {2,}", lines[1].strip())[:5] == ["ibm_fez", "available", "0", "1", "?"]
    assert "[red]New[/red] fridge. [root, " in lines[2]


def test_what_a_service_does_not_do_stands_in_the_line_of_its_qpu() -> None:
    reports = [
        QpuReport(qpu="onprem", state=QpuState.AVAILABLE, limits=("no sessions", "sampler only")),
        QpuReport(qpu="ibm_fez", state=QpuState.AVAILABLE),
    ]
    head, onprem, fez = tables.qpus_as_table(reports).splitlines()
    assert head.split()[-1] == "service"
    assert onprem.rstrip().endswith("no sessions; sampler only")
    assert fez.split()[-2:] == ["-", "-"]
    assert "service" not in tables.qpus_as_table(reports[1:])


# The reservations, with an scontrol that is a script.

SCONTROL = """#!/bin/sh
echo "$*" >>{log}
case "$*" in
"show licenses "*) echo "LicenseName=ibm_fez Total=3 Used=1 Free=2 Reserved=0 Remote=no" ;;
"show reservations "*) cat {there} ;;
"create "*) {create} ;;
esac
"""


def licenses(directory: Path, there: str = "", create: str = ":") -> tuple[Licenses, Path]:
    log = directory / "said"
    (directory / "there").write_text(there)
    scontrol = directory / "scontrol"
    scontrol.write_text(SCONTROL.format(log=log, there=directory / "there", create=create))
    scontrol.chmod(0o755)
    return Licenses(SlurmConfig(bin=directory)), log


def told(log: Path) -> list[str]:
    return [line for line in log.read_text().splitlines() if not line.startswith("show")]


def test_a_license_is_taken_away_and_given_back(tmp_path: Path) -> None:
    mine, log = licenses(tmp_path)
    assert mine.totals() == {"ibm_fez": 3}
    assert mine.withhold("ibm_fez", 3, "Maintenance; until 'noon' $(reboot).", seconds=900)
    assert not mine.give_back("ibm_fez")
    name = "qpu:ibm_fez:Maintenance_until_noon_reboot"
    what = "Licenses=ibm_fez:3 Flags=ANY_NODES Users=root StartTime=now Duration=15"
    assert told(log) == [f"create reservation ReservationName={name} {what}"]
    end = int(time.time()) + 600
    for left, said in ((600, []), (-300, [f"update ReservationName={name} EndTime=now+15minutes"])):
        there = f"ReservationName={name} StartTime=1 EndTime={end - 600 + left} Nodes=(null)\n"
        mine, log = licenses(tmp_path, there)
        log.write_text("")
        assert not mine.withhold("ibm_fez", 3, "Maintenance; until 'noon' $(reboot).", seconds=900)
        assert told(log) == said
        assert mine.withhold("ibm_fez", 3, "New fridge.", seconds=900)
        assert told(log)[len(said)] == f"delete ReservationName={name}"
        assert mine.withheld().keys() == {"ibm_fez"}


def test_somebody_may_be_faster(tmp_path: Path) -> None:
    mine, _ = licenses(tmp_path, create="echo 'Duplicate reservation name' >&2; exit 1")
    assert not mine.withhold("ibm_fez", 3, "away", seconds=900)
    mine, _ = licenses(tmp_path, create="echo 'Access denied' >&2; exit 1")
    with pytest.raises(SlurmError, match="Access denied"):
        mine.withhold("ibm_fez", 3, "away", seconds=900)


def test_reservations_of_others_are_none_of_ours(tmp_path: Path) -> None:
    mine, _ = licenses(tmp_path, "ReservationName=maintenance StartTime=1 EndTime=2\nNo reservations\n")
    assert mine.withheld() == {}


@given(why=st.text(max_size=300))
def test_a_reason_is_only_ever_part_of_a_name(tmp_path_factory: pytest.TempPathFactory, why: str) -> None:
    mine, log = licenses(tmp_path_factory.mktemp("scontrol"))
    mine.withhold("ibm_fez", 3, why, seconds=900)
    [line] = told(log)
    assert re.fullmatch(
        r"create reservation ReservationName=qpu:ibm_fez:[A-Za-z0-9._-]{0,60} Licenses.*", line
    )


def test_a_slow_answer_does_not_replace_what_a_job_that_starts_has_seen_since(
    availability: Availability, journal: Journal, service: Service
) -> None:
    def a_job_starts() -> None:
        journal.seen_qpus.note("ibm_fez", asked_at=datetime.now(UTC), online=False, reason="calibration")

    service.before["statuses ibm_fez"] = a_job_starts
    availability.keep(())
    seen = journal.seen_qpus.find("ibm_fez")
    assert seen is not None
    assert (seen.online, seen.reason) == (False, "calibration")
