# SPDX-License-Identifier: Apache-2.0
"""The emulator's parts that need neither a server nor Qiskit: clock, faults, sessions."""

from __future__ import annotations

import asyncio
import re

import pytest

from qpu_slurm_devkit.emulator import Account, Drop, Fault
from qpu_slurm_devkit.emulator.backends import Backend
from qpu_slurm_devkit.emulator.clock import Clock, timestamp
from qpu_slurm_devkit.emulator.faults import Faults
from qpu_slurm_devkit.emulator.sessions import Session, SessionState


@pytest.mark.parametrize(
    ("fault", "fitting", "other"),
    [
        (Fault(), [("GET", "/sessions"), ("POST", "/jobs")], []),
        (Fault(method="POST"), [("POST", "/jobs")], [("GET", "/jobs")]),
        (Fault(path="/sessions"), [("GET", "/sessions")], [("GET", "/sessions/1"), ("GET", "/jobs")]),
        (Fault(path="/jobs/*/results"), [("GET", "/jobs/d1/results")], [("GET", "/jobs/d1")]),
        (Fault(account="a*"), [("GET", "/jobs", "ab")], [("GET", "/jobs", "b"), ("GET", "/jobs")]),
    ],
)
def test_a_fault_fits_by_method_path_and_account(
    fault: Fault, fitting: list[tuple[str, ...]], other: list[tuple[str, ...]]
) -> None:
    assert all(fault.fits(*request) for request in fitting)
    assert not any(fault.fits(*request) for request in other)


@pytest.mark.parametrize(
    ("skip", "times", "happens"),
    [
        (0, 1, [True, False, False, False]),
        (0, 2, [True, True, False, False]),
        (2, 1, [False, False, True, False]),
        (1, None, [False, True, True, True]),
    ],
)
def test_a_fault_happens_as_often_as_it_was_told(skip: int, times: int | None, happens: list[bool]) -> None:
    faults = Faults()
    faults.inject(Fault(path="/jobs", skip=skip, times=times, status=503))
    assert [faults.next("GET", "/jobs") is not None for _ in happens] == happens
    assert faults.next("GET", "/other") is None


def test_the_first_of_several_faults_counts_until_it_is_used_up() -> None:
    faults = Faults()
    faults.inject(Fault(status=503))
    faults.inject(Fault(drop=Drop.AFTER, times=None))
    taken = [faults.next("GET", "/jobs") for _ in range(3)]
    assert [str(fault) for fault in taken] == ["status 503", "drop after", "drop after"]
    faults.clear()
    assert faults.next("GET", "/jobs") is None


def test_a_clock_that_is_advanced_rings_its_alarms_in_their_order_and_at_their_time() -> None:
    async def ring() -> list[tuple[str, float]]:
        clock = Clock()
        begin = clock.now()
        rung: list[tuple[str, float]] = []

        def alarm(name: str, seconds: float) -> None:
            clock.at(begin + seconds, lambda: rung.append((name, round(clock.now() - begin))))

        alarm("late", 7200)
        alarm("early", 60)
        alarm("never", 10_000)
        clock.at(begin + 30, lambda: alarm("made by an alarm", 90))
        cancelled = clock.at(begin + 40, lambda: rung.append(("cancelled", 0)))
        cancelled.cancel()
        sleep = asyncio.create_task(clock.sleep(3600))
        await asyncio.sleep(0)
        await clock.advance(8000)
        await asyncio.wait_for(sleep, 1)
        assert clock.now() - begin == pytest.approx(8000, abs=1)
        return rung

    assert asyncio.run(ring()) == [("early", 60), ("made by an alarm", 90), ("late", 7200)]


def test_a_clock_that_is_left_alone_rings_too() -> None:
    async def ring() -> None:
        clock = Clock()
        rung = asyncio.Event()
        clock.at(clock.now() + 0.01, rung.set)
        await asyncio.wait_for(rung.wait(), 5)

    asyncio.run(ring())


def test_times_are_written_as_the_service_does() -> None:
    assert timestamp(1_700_000_000.1234) == "2023-11-14T22:13:20.123Z"
    assert timestamp(None) is None


def test_a_session_is_charged_for_the_time_in_which_it_is_active() -> None:
    session = Session(Account.premium(), "ibm_fez", "dedicated", max_ttl=300, interactive_ttl=1, now=0)
    assert session.locked_seconds(50) == 0
    session.enter(SessionState.ACTIVE, 100)
    assert session.locked_seconds(110) == 10
    session.enter(SessionState.INACTIVE, 120, "waited too long")
    session.unlock(120)
    assert session.locked_seconds(200) == 20
    session.enter(SessionState.ACTIVE, 200)
    session.enter(SessionState.CLOSED, 230, "closed")
    session.unlock(230)
    document = session.document(1000)
    assert document["elapsed_time"] == 50
    assert document["active_ttl"] == 250
    assert [entry["status"] for entry in document["timestamps"]] == [
        "open",
        "active",
        "inactive",
        "active",
        "closed",
    ]
    assert document["accepting_jobs"] is False
    assert document["closed_at"] == "1970-01-01T00:03:50.000Z"


def test_made_up_accounts_stay_the_same_and_differ() -> None:
    assert Account.premium() == Account.premium()
    assert Account.premium("a").crn != Account.premium("b").crn
    assert Account.open().plan == "open"


@pytest.mark.parametrize("name", ["ibm_fez", "ibm_torino", "ibm_sherbrooke"])
def test_calibrations_are_dated_in_utc_since_ibms_client_reads_them_so(name: str) -> None:
    dates = re.findall(r'date": ?"([^"]+)"', Backend(name).properties.decode())
    assert len(dates) > 1000
    assert {date[-6:] for date in dates} == {"+00:00"}
