# SPDX-License-Identifier: Apache-2.0
"""Many jobs start at once, and processes die at every step, or the power is lost, or answers are."""

from __future__ import annotations

import threading
import time
from collections import Counter
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Self, cast

import msgspec
import pytest

from qpu_slurm.errors import (
    AnswerLostError,
    JournalError,
    MustWaitError,
    NoLeaseError,
    QpuFullError,
    ThrottledError,
    UnavailableError,
)
from qpu_slurm.journal.journal import Journal
from qpu_slurm.journal.model import Lease, LeaseState
from qpu_slurm.leases.broker import Broker
from qpu_slurm.leases.locks import Locks
from qpu_slurm.leases.reaper import Reaper
from qpu_slurm.system.deadline import NEVER, Deadline
from tests.unit.memory_service import Killed, Life, Mortal, Service, configure, request
from tests.unit.power import left_of, power
from tests.unit.test_leases import raises
from tests.unit.test_reaper import Slurm

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from qpu_slurm.config import Config
    from qpu_slurm.providers.base import Access, Provider

__all__ = ["power"]  # a fixture

JOBS = (1, 2, 3, 4)


class Mains(Life):
    """What all processes of a host live on: when it fails, all of them die at their next step."""

    def __init__(self, steps: int) -> None:
        super().__init__(steps)
        self._lock = threading.Lock()

    def step(self) -> None:
        with self._lock:
            self.left -= 1
        if self.left <= 0:
            raise Killed


class Storm:
    """Jobs that start at once, each in a process of its own, as far as the broker can tell."""

    def __init__(self, config: Config, path: Path, service: Service) -> None:
        self.config = config
        self.path = path
        self.service = service
        self.leases: dict[int, Lease] = {}
        self.errors: dict[int, Exception] = {}
        self.dead: set[int] = set()
        self._files = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._files.close()

    def start(self, lives: dict[int, Life], seconds: Callable[[int], int] = lambda _: 1800) -> None:
        """Start all jobs, and wait until each has a session or is dead."""
        threads = [
            threading.Thread(target=self._acquire, args=[job_id, lives.get(job_id), seconds(job_id)])
            for job_id in JOBS
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
            assert not thread.is_alive()

    def _acquire(self, job_id: int, life: Life | None, seconds: int) -> None:
        journal = self._files.enter_context(Journal(self.path))
        service = self.service
        if life is None:
            broker = Broker(self.config, journal, service.connect, settle=0)
        else:
            mortal: Any = Mortal(journal, life)

            def connect(access: Access, *, deadline: Deadline = NEVER) -> Provider:
                return cast("Provider", Mortal(service.connect(access, deadline=deadline), life))

            broker = Broker(self.config, mortal, connect, settle=0)
        try:
            [self.leases[job_id]] = broker.acquire(request("ibm_fez", job_id=job_id, seconds=seconds))
        except Killed:
            self.dead.add(job_id)
        except Exception as error:  # noqa: BLE001 - looked at by the test
            self.errors[job_id] = error


def check(journal: Journal, service: Service) -> dict[int, str]:
    """Make sure that every lease has a session of its own, and none is left; return them by job."""
    held = {lease.job_id: str(lease.session_id) for lease in journal.leases()}
    assert all(lease.state is LeaseState.HELD for lease in journal.leases())
    assert sorted(held.values()) == sorted(set(held.values()))
    assert sorted(held.values()) == sorted(service.open_sessions())
    return held


def wait_until(true: Callable[[], bool]) -> None:
    deadline = Deadline.after(30)
    while not true():
        assert not deadline.passed
        time.sleep(0.01)


def losing(service: Service, *numbers: int) -> None:
    """Lose the answers to some of the requests for a session, by their number."""
    count = iter(range(1, 10_000))
    lock = threading.Lock()

    def lose() -> None:
        with lock:
            number = next(count)
        if number in numbers:
            raise AnswerLostError("silence")

    service.after["open ibm_fez"] = lose
    service.before["open ibm_fez"] = lambda: time.sleep(0.002)  # so that they overlap


@pytest.mark.usefixtures("power")
@pytest.mark.parametrize("then", ["acquire", "reap"])
@pytest.mark.parametrize("lost", ["a process", "two processes", "the power"])
def test_each_job_has_its_own_session_and_none_is_left_whoever_dies_when(
    tmp_path: Path, lost: str, then: str
) -> None:
    config = configure(tmp_path)
    deaths = 0

    def run(steps: int) -> int:
        service = Service()
        losing(service, 2)
        path = tmp_path / f"{steps}.sqlite"
        mains = Mains(2 * steps)
        victims: dict[str, dict[int, Life]] = {
            "a process": {2: Life(steps)},
            "two processes": {2: Life(steps), 3: Life(steps)},
            "the power": dict.fromkeys(JOBS, mains),
        }
        with Storm(config, path, service) as storm:
            storm.start(victims[lost])
            assert storm.errors == {}
            path = left_of(path) if lost == "the power" else path
            with Journal(path) as journal:
                after(journal, service, storm)
            return len(storm.dead)

    def after(journal: Journal, service: Service, storm: Storm) -> None:
        broker = Broker(config, journal, service.connect, settle=0)
        slurm = Slurm()
        told = {job_id: lease.session_id for job_id, lease in storm.leases.items()}
        if then == "acquire":
            for job_id in sorted(storm.dead):
                [lease] = broker.acquire(request("ibm_fez", job_id=job_id))
                told[job_id] = lease.session_id
        for job_id in told:
            slurm.add(job_id)
        # What was told to a job stays true, and all that nobody was told of is gone.
        Reaper(config, broker, journal, slurm).run()
        assert check(journal, service) == told
        Reaper(config, broker, journal, Slurm()).run()
        assert service.open_sessions() == []
        assert journal.leases() == []

    # From those who die before they did anything to those who live.
    for steps in range(1, 22):
        deaths += run(steps)
    assert deaths > 10


@pytest.mark.parametrize("alike", [True, False])
def test_lost_answers_leave_each_job_a_session_that_lives_as_long_as_the_job(
    tmp_path: Path, *, alike: bool
) -> None:
    config, service = configure(tmp_path), Service()
    losing(service, 1, 2, 4)
    seconds = {job_id: 1800 if alike else 1000 + job_id for job_id in JOBS}
    with Storm(config, config.journal, service) as storm, Journal(config.journal) as journal:
        storm.start({}, seconds=seconds.__getitem__)
        assert storm.errors == {}
        held = check(journal, service)
        assert {job_id: service.sessions[held[job_id]].max_ttl for job_id in JOBS} == seconds
        # Nothing was opened in vain.
        assert len(service.sessions) == len(JOBS)


def test_somebody_who_works_without_slurm_keeps_his_sessions(tmp_path: Path) -> None:
    config, service = configure(tmp_path), Service()
    losing(service, 1, 3)
    others: list[str] = []
    count = iter(range(1, 10_000))

    def open_another() -> None:
        others.append(service.create("ibm_fez", max_ttl=28_000 + next(count)).id)

    service.before["open ibm_fez"] = open_another
    with Storm(config, config.journal, service) as storm, Journal(config.journal) as journal:
        storm.start({})
        broker = Broker(config, journal, service.connect, settle=0)
        assert storm.errors == {}
        for job_id in JOBS:
            broker.release(job_id, "The job ended.")
        Reaper(config, broker, journal, Slurm()).run()
        assert sorted(service.open_sessions()) == sorted(others)


def test_no_session_goes_to_two_leases(tmp_path: Path) -> None:
    config = configure(tmp_path)
    in_an_hour = datetime.now(UTC) + timedelta(hours=1)
    with Journal(config.journal) as journal:
        first, second = (
            journal.intend(job_id=job_id, user_id=1, qpu="ibm_fez", expires_at=in_an_hour)
            for job_id in (1, 2)
        )
        journal.hold(first.id, "s1", in_an_hour)
        with pytest.raises(JournalError, match=f"Session s1 belongs to lease {first.id}"):
            journal.hold(second.id, "s1", in_an_hour)
        assert journal.lease(second.id).state is LeaseState.ACQUIRING


# How many at once.


def with_starts(config: Config, starts_at_once: int, acquire_timeout: int = 5) -> Config:
    fez = msgspec.structs.replace(config.qpus["ibm_fez"], starts_at_once=starts_at_once)
    outage = msgspec.structs.replace(config.outage, acquire_timeout=acquire_timeout)
    return msgspec.structs.replace(config, qpus=config.qpus | {"ibm_fez": fez}, outage=outage)


@pytest.mark.parametrize("starts_at_once", [1, 3])
def test_no_more_sessions_are_asked_for_at_once_than_the_admin_said(
    tmp_path: Path, starts_at_once: int
) -> None:
    config, service = with_starts(configure(tmp_path), starts_at_once), Service()
    asking = Counter[str]()
    most = []
    lock = threading.Lock()

    def begin() -> None:
        with lock:
            asking["now"] += 1
            most.append(asking["now"])
        # Until as many are at it as may be, or the last ones are.
        wait_until(lambda: max(most) == starts_at_once or len(most) == len(JOBS))
        time.sleep(0.05)

    def end() -> None:
        with lock:
            asking["now"] -= 1

    service.before["open ibm_fez"], service.after["open ibm_fez"] = begin, end
    with Storm(config, config.journal, service) as storm:
        storm.start({})
    assert storm.errors == {}
    assert max(most) == starts_at_once


def test_a_job_whose_turn_does_not_come_must_wait_and_that_is_no_outage(tmp_path: Path) -> None:
    config, service = with_starts(configure(tmp_path), 1, acquire_timeout=1), Service()
    Journal(config.journal).close()
    with Storm(config, config.journal, service) as storm:
        # The first one is at it for as long as the others wait.
        service.before["open ibm_fez"] = lambda: wait_until(lambda: len(storm.errors) == len(JOBS) - 1)
        storm.start({})
    assert len(storm.leases) == 1
    assert len(service.sessions) == 1
    for error in storm.errors.values():
        assert isinstance(error, MustWaitError)
        assert str(error).startswith("Many jobs start on ibm_fez at once")


def test_a_service_that_is_asked_too_much_is_asked_later_and_less(tmp_path: Path) -> None:
    config, service = with_starts(configure(tmp_path), 4), Service()
    times: list[float] = []

    def refuse_the_first_two() -> None:
        times.append(time.monotonic())
        if len(times) <= 2:
            raise ThrottledError("Too many requests", status=429, retry_after=1.5)
        time.sleep(0.05)

    service.before["open ibm_fez"] = refuse_the_first_two
    with Storm(config, config.journal, service) as storm, Journal(config.journal) as journal:
        storm.start({})
        assert storm.errors == {}
        check(journal, service)
    assert len(service.sessions) == len(JOBS)
    refused = times[1]
    # Those who were asking already have been served; all others wait for as long as the service said.
    assert all(not refused + 0.5 < at < refused + 1.4 for at in times)
    assert max(times) >= refused + 1.4


def test_a_service_that_wants_a_long_pause_has_the_job_wait_in_the_queue(tmp_path: Path) -> None:
    config, service = with_starts(configure(tmp_path), 4), Service()
    service.before["open ibm_fez"] = raises(ThrottledError("Too many requests", status=429, retry_after=60))
    with Journal(config.journal) as journal:
        broker = Broker(config, journal, service.connect, settle=0)
        begin = time.monotonic()
        with pytest.raises(MustWaitError, match="wants no more sessions for"):
            broker.acquire(request("ibm_fez"))
        assert time.monotonic() - begin < 4
        [lease] = journal.leases(over=True)
        assert lease.state is LeaseState.FAILED
        # Nobody else asks, either.
        service.calls.clear()
        with pytest.raises(MustWaitError, match="wants no more sessions for"):
            broker.acquire(request("ibm_fez", job_id=8))
        assert "open ibm_fez" not in service.calls


# Neither those who ask nor those who look starve.


def test_who_looks_for_a_lost_session_gets_in_however_many_ask(tmp_path: Path) -> None:
    config = with_starts(configure(tmp_path), 3)
    locks, qpu = Locks(config.journal), config.qpu("ibm_fez")
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            with locks.asking(qpu, deadline=Deadline.after(30)):
                time.sleep(0.02)

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(5):
            with locks.looking(qpu, deadline=Deadline.after(20)):
                pass
    finally:
        stop.set()
        for thread in threads:
            thread.join(30)


def test_who_asks_gets_in_however_many_look(tmp_path: Path) -> None:
    config = configure(tmp_path)
    locks, qpu = Locks(config.journal), config.qpu("ibm_fez")
    stop = threading.Event()

    def look() -> None:
        while not stop.is_set():
            with locks.looking(qpu, deadline=Deadline.after(30)):
                time.sleep(0.01)

    threads = [threading.Thread(target=look) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(5):
            with locks.asking(qpu, deadline=Deadline.after(20)):
                pass
    finally:
        stop.set()
        for thread in threads:
            thread.join(30)


def test_nobody_asks_while_somebody_looks(tmp_path: Path) -> None:
    config = configure(tmp_path)
    locks, qpu = Locks(config.journal), config.qpu("ibm_fez")
    with locks.looking(qpu, deadline=Deadline.after(1)):
        with (
            pytest.raises(MustWaitError, match="Many jobs start"),
            locks.asking(qpu, deadline=Deadline.after(0.1)),
        ):
            pass
        with (
            pytest.raises(UnavailableError, match="looked for later"),
            locks.looking(qpu, deadline=Deadline.after(0.1)),
        ):
            pass
    with (
        locks.asking(qpu, deadline=Deadline.after(1)),
        locks.asking(qpu, deadline=Deadline.after(1)),
        pytest.raises(UnavailableError, match="looked for later"),
        locks.looking(qpu, deadline=Deadline.after(0.1)),
    ):
        pass


# What is not wanted any more.


@pytest.mark.parametrize("when", ["before it is asked for", "after"])
def test_what_is_not_wanted_any_more_is_not_opened_or_is_given_back(tmp_path: Path, when: str) -> None:
    config, service = configure(tmp_path), Service()
    with Journal(config.journal) as journal:
        broker = Broker(config, journal, service.connect, settle=0)
        with pytest.raises(NoLeaseError, match="not want"):
            broker.acquire(request("ibm_fez"), wanted=lambda: when == "after" and not service.sessions)
        assert len(service.sessions) == (1 if when == "after" else 0)
        assert service.open_sessions() == []
        assert journal.leases() == []


# How the QPU is.


def test_jobs_that_start_at_once_ask_once_how_the_qpu_is(tmp_path: Path) -> None:
    config, service = configure(tmp_path), Service()
    with Journal(config.journal) as journal:
        Broker(config, journal, service.connect, settle=0).acquire(request("ibm_fez", job_id=9))
        with Storm(config, config.journal, service) as storm:
            storm.start({})
        assert len(storm.leases) == len(JOBS)
        assert service.calls.count("status ibm_fez") == 1


def test_what_the_watcher_has_seen_is_enough(tmp_path: Path) -> None:
    config, service = configure(tmp_path), Service()
    with Journal(config.journal) as journal:
        broker = Broker(config, journal, service.connect, settle=0)
        journal.seen_qpus.note("ibm_fez", asked_at=datetime.now(UTC), online=True)
        broker.acquire(request("ibm_fez"))
        journal.seen_qpus.note("ibm_fez", asked_at=datetime.now(UTC), online=False, reason="calibration")
        with pytest.raises(MustWaitError, match="ibm_fez is not available now: calibration"):
            broker.acquire(request("ibm_fez", job_id=8))
        assert "status ibm_fez" not in service.calls
        # What was seen long ago is asked for again.
        with journal._database.transaction() as db:  # noqa: SLF001 - time passes
            db.execute("UPDATE seen_qpus SET seen_at = '2026-01-01T00:00:00.000000Z'")
        broker.acquire(request("ibm_fez", job_id=8))
        assert service.calls.count("status ibm_fez") == 1


def test_as_many_jobs_as_may_get_a_qpu_however_many_ask_at_once(tmp_path: Path) -> None:
    config, service = configure(tmp_path), Service()
    fez = msgspec.structs.replace(config.qpus["ibm_fez"], max_leases=2)
    config = msgspec.structs.replace(config, qpus=config.qpus | {"ibm_fez": fez})
    service.before["open ibm_fez"] = lambda: time.sleep(0.05)
    with Storm(config, config.journal, service) as storm:
        storm.start({})
    assert (len(storm.leases), len(service.sessions)) == (2, 2)
    assert all(isinstance(error, QpuFullError) for error in storm.errors.values())
