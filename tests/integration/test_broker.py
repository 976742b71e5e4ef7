# SPDX-License-Identifier: Apache-2.0
"""The broker and the service: real requests, real processes, killed where it hurts."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

import msgspec
import pytest

from qpu_slurm import config
from qpu_slurm.errors import QpuSlurmError, RefusedError, UnavailableError
from qpu_slurm.journal.journal import Journal
from qpu_slurm.journal.model import Lease, LeaseRequest, LeaseState
from qpu_slurm.leases.broker import Broker
from qpu_slurm.system.secret import Secret
from qpu_slurm_devkit.emulator import Account, Drop, Fault

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qpu_slurm_devkit.emulator import Emulator

PROGRAM = Path(__file__).with_name("broker_process.py")

CONFIG = """
journal = "{directory}/journal.sqlite"
log = "{directory}/hooks.log"
[outage]
acquire_timeout = 10
[defaults]
endpoint = "{url}/api/v1"
iam_endpoint = "{url}"
instance = "{account.crn}"
[[qpu]]
name = "ibm_fez"
[[qpu]]
name = "torino"
backend = "ibm_torino"
max_ttl = "10m"
"""


class Site:
    """A cluster's controller: a configuration and a journal, and an emulator for the service."""

    def __init__(self, emulator: Emulator, directory: Path, account: Account) -> None:
        self.emulator = emulator
        self.account = account
        self.path = directory / "config.toml"
        self.path.write_text(CONFIG.format(directory=directory, url=emulator.url, account=account))
        self.config = config.load(self.path)
        self.journal = Journal(self.config.journal)
        # For faults that last: there is no need to wait for them long.
        outage = msgspec.structs.replace(self.config.outage, acquire_timeout=2)
        hasty = msgspec.structs.replace(self.config, outage=outage)
        self.broker = Broker(hasty, self.journal, settle=0, release_timeout=1)
        self._processes: list[subprocess.Popen[str]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.journal.close()
        for process in self._processes:
            process.kill()
            process.communicate()

    def request(self, *qpus: str, job_id: int = 7) -> LeaseRequest:
        return LeaseRequest(
            job_id=job_id,
            user_id=os.getuid(),
            qpus=qpus,
            seconds_left=900,
            api_key=Secret(self.account.api_key),
        )

    def acquire(self, *qpus: str, job_id: int = 7) -> tuple[Lease, ...]:
        return self.broker.acquire(self.request(*qpus, job_id=job_id))

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, PROGRAM, self.path, *arguments],
            env=os.environ | {"QPU_SLURM_API_KEY": self.account.api_key},
            stdout=subprocess.PIPE,
            text=True,
        )
        self._processes.append(process)
        return process

    def open_sessions(self) -> set[str]:
        return {session.id for session in self.emulator.sessions() if session.accepting_tasks}

    def asked(self) -> list[str]:
        return [f"{request.method} {request.path}" for request in self.emulator.requests()]


def answer(process: subprocess.Popen[str]) -> list[Lease]:
    out, _ = process.communicate(timeout=240)
    assert process.returncode == 0, out
    return msgspec.json.decode(out, type=list[Lease])


@pytest.fixture
def site(emulator: Emulator, tmp_path: Path) -> Iterator[Site]:
    with Site(emulator, tmp_path, emulator.accounts[0]) as site:
        yield site


def test_a_lease_costs_few_requests_and_ends_as_it_should(site: Site) -> None:
    fez, torino = site.acquire("ibm_fez", "torino")
    assert site.asked().count("POST /sessions") == 2
    assert len(site.asked()) == 6  # a token, the QPU's status and the session, for each
    sessions = {session.id: session for session in site.emulator.sessions()}
    assert {sessions[str(fez.session_id)].backend, sessions[str(torino.session_id)].backend} == {
        "ibm_fez",
        "ibm_torino",
    }
    assert sessions[str(fez.session_id)].max_ttl == 900
    assert sessions[str(torino.session_id)].max_ttl == 600
    assert {session.mode for session in sessions.values()} == {"dedicated"}

    released = site.broker.release(7, "The job ended.")
    assert [lease.state for lease in released] == [LeaseState.RELEASED] * 2
    assert site.open_sessions() == set()
    # For each a token, what steps opened, the end, what still runs; then a token, and two for its usage.
    assert len(site.asked()) == 20


def test_what_waits_in_a_session_ends_with_it(site: Site) -> None:
    [lease] = site.acquire("ibm_fez")
    site.emulator.close_session(str(lease.session_id))
    [released] = site.broker.release(7, "The job ended.")
    assert released.state is LeaseState.RELEASED


def test_a_session_that_the_service_closed_is_replaced(site: Site) -> None:
    [first] = site.acquire("ibm_fez")
    site.emulator.close_session(str(first.session_id))
    [second] = site.acquire("ibm_fez")
    assert site.open_sessions() == {second.session_id}


def test_the_open_plan_is_refused_with_the_services_words(emulator: Emulator, tmp_path: Path) -> None:
    with Site(emulator, tmp_path, emulator.accounts[1]) as site:
        with pytest.raises(RefusedError, match=r"(?i)open plan") as caught:
            site.acquire("ibm_fez")
        [lease] = site.journal.leases(over=True)
    assert caught.value.code == 1352
    assert (lease.state, lease.reason) == (LeaseState.FAILED, str(caught.value))


def test_a_qpu_in_maintenance_costs_no_session(site: Site) -> None:
    site.emulator.set_backend("ibm_torino", "paused", "back at noon")
    with pytest.raises(UnavailableError, match=r"torino .*back at noon"):
        site.acquire("ibm_fez", "torino")
    assert site.emulator.sessions() == []


FAULTS = {
    "no token": Fault(path="/identity/token", status=401),
    "IAM is away": Fault(path="/identity/token", status=503, times=None),
    "no status": Fault(path="/backends/*/status", status=500, times=None),
    "status unknown": Fault(path="/backends/*/status", status=404),
    "not allowed": Fault(method="POST", path="/sessions", status=403),
    "away": Fault(method="POST", path="/sessions", status=503, times=None),
    "too many": Fault(method="POST", path="/sessions", status=429, times=None),
    "cut before": Fault(method="POST", path="/sessions", drop=Drop.BEFORE, times=None),
    "second refused": Fault(method="POST", path="/sessions", skip=1, status=400),
    "second cut": Fault(method="POST", path="/sessions", skip=1, drop=Drop.BEFORE, times=None),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
def test_an_acquire_that_fails_leaves_no_session_once_the_job_is_over(site: Site, fault: Fault) -> None:
    site.emulator.inject(fault)
    started = time.monotonic()
    with pytest.raises((RefusedError, UnavailableError)):
        site.acquire("ibm_fez", "torino")
    assert time.monotonic() - started < 20
    site.emulator.clear_faults()
    site.broker.release(7, "The job ended.")
    assert site.open_sessions() == set()
    assert site.journal.leases() == []


def test_answers_that_are_lost_after_they_took_effect_make_no_second_session(site: Site) -> None:
    site.emulator.inject(Fault(method="POST", path="/sessions", drop=Drop.AFTER, times=2))
    leases = site.acquire("ibm_fez", "torino")
    assert {lease.session_id for lease in leases} == site.open_sessions()
    assert len(site.emulator.sessions()) == 2


@pytest.mark.parametrize(
    "fault",
    [
        Fault(path="/sessions/*/close", status=503, times=None),
        Fault(path="/sessions/*/close", drop=Drop.BEFORE, times=None),
        Fault(path="/identity/token", status=500, times=None),
        Fault(path="/sessions/*/close", status=401, times=None),
        Fault(path="/sessions/*/close", delay=30),
    ],
    ids=str,
)
def test_a_release_that_fails_returns_in_time_and_is_finished_later(site: Site, fault: Fault) -> None:
    [lease] = site.acquire("ibm_fez")
    site.emulator.inject(fault)
    started = time.monotonic()
    [releasing] = site.broker.release(7, "The job ended.")
    assert time.monotonic() - started < 20
    assert (releasing.id, releasing.state) == (lease.id, LeaseState.RELEASING)
    site.emulator.clear_faults()
    [released] = site.broker.release(7, "again")
    assert released.state is LeaseState.RELEASED
    assert site.open_sessions() == set()


def test_two_components_at_once_have_one_session(site: Site) -> None:
    site.emulator.inject(Fault(method="POST", path="/sessions", delay=0.3, times=None))
    hooks = [site.start("acquire", "7", qpus) for qpus in ("ibm_fez,torino", "torino,ibm_fez", "ibm_fez")]
    held = [{lease.qpu: lease.session_id for lease in answer(hook)} for hook in hooks]
    assert held[0] == held[1]
    assert held[2].items() <= held[0].items()
    assert set(held[0].values()) == site.open_sessions()
    assert len(site.emulator.sessions()) == 2


def test_jobs_at_once_have_a_session_each(site: Site) -> None:
    site.emulator.inject(Fault(method="POST", path="/sessions", drop=Drop.AFTER))
    hooks = [site.start("acquire", str(job_id), "ibm_fez") for job_id in (1, 2, 3)]
    sessions = [answer(hook)[0].session_id for hook in hooks]
    assert len(set(sessions)) == 3
    assert set(sessions) == site.open_sessions()
    enders = [site.start("release", str(job_id)) for job_id in (1, 2, 3)]
    assert {answer(ender)[0].state for ender in enders} == {LeaseState.RELEASED}
    assert site.open_sessions() == set()


CRASHES = {
    # The intent is written, the request has arrived, and comes to nothing.
    "before it took effect": (Fault(method="POST", path="/sessions", delay=1, drop=Drop.BEFORE),),
    # The request takes effect after its sender died.
    "while it took effect": (Fault(method="POST", path="/sessions", delay=1),),
    # The answer was lost, and its sender dies as it looks for what became of it.
    "after it took effect": (
        Fault(method="POST", path="/sessions", drop=Drop.AFTER),
        Fault(path="/workloads", delay=30),
    ),
    # The first session is recorded, the second is not.
    "at the second": (
        Fault(method="POST", path="/sessions", skip=1, drop=Drop.AFTER),
        Fault(path="/workloads", delay=30),
    ),
}


@pytest.mark.parametrize("then", ["acquire", "release"])
@pytest.mark.parametrize("faults", CRASHES.values(), ids=CRASHES.keys())
def test_a_hook_that_is_killed_leaves_nothing_behind(
    site: Site, faults: tuple[Fault, ...], then: str
) -> None:
    for fault in faults:
        site.emulator.inject(fault)
    hook = site.start("acquire", "7", "ibm_fez,torino")
    # Sessions are in the emulator's record as soon as they are made, requests only once they are answered.
    made = sum(fault.drop is Drop.AFTER for fault in faults) + faults[0].skip
    site.emulator.wait_for(
        lambda emulator: (
            len(emulator.sessions()) == made
            and any(lease.state is LeaseState.ACQUIRING for lease in site.journal.leases())
        )
    )
    time.sleep(0.3)  # for the next request, which the service is slow to answer
    hook.kill()
    hook.wait()
    site.emulator.clear_faults()
    assert any(lease.state is LeaseState.ACQUIRING for lease in site.journal.leases())

    if then == "acquire":
        leases = answer(site.start("acquire", "7", "ibm_fez,torino"))
        assert {lease.state for lease in leases} == {LeaseState.HELD}
        assert {lease.session_id for lease in leases} == site.open_sessions()
        assert len(site.emulator.sessions()) == 2
    answer(site.start("release", "7"))
    assert site.open_sessions() == set()
    assert site.journal.leases() == []


def test_a_release_that_is_killed_is_finished_by_the_next(site: Site) -> None:
    site.acquire("ibm_fez", "torino")
    site.emulator.inject(Fault(path="/sessions/*/close", delay=30))
    ender = site.start("release", "7")
    site.emulator.wait_for(lambda _: site.journal.leases()[0].state is LeaseState.RELEASING)
    ender.kill()
    ender.wait()
    site.emulator.clear_faults()
    answer(site.start("release", "7"))
    assert site.open_sessions() == set()
    assert site.journal.leases() == []


def test_a_job_that_is_cancelled_while_its_session_is_opened_leaves_none(site: Site) -> None:
    site.emulator.inject(Fault(method="POST", path="/sessions", delay=8))
    hook = site.start("acquire", "7", "ibm_fez")
    site.emulator.wait_for(lambda _: site.journal.leases())
    [released] = answer(site.start("release", "7"))
    assert released.state is LeaseState.RELEASED
    out, _ = hook.communicate(timeout=240)
    assert out.startswith("NoLeaseError: Job 7 was ended")
    assert len(site.emulator.sessions()) == 1
    assert site.open_sessions() == set()


def test_no_error_and_no_journal_line_holds_the_key(site: Site) -> None:
    site.emulator.inject(Fault(path="/identity/token", status=401, body=site.account.api_key))
    with pytest.raises(QpuSlurmError) as caught:
        site.acquire("ibm_fez")
    assert site.account.api_key not in str(caught.value)
    events = [
        event.detail for lease in site.journal.leases(over=True) for event in site.journal.events(lease.id)
    ]
    assert site.account.api_key not in " ".join(events)
