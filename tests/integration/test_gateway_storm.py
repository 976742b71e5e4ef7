# SPDX-License-Identifier: Apache-2.0
"""Many jobs start and end at once, through one gateway, with a real client and the emulated service."""

from __future__ import annotations

import http.client
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from qpu_slurm.errors import MustWaitError, NoLeaseError
from qpu_slurm.gateway import messages
from qpu_slurm.journal.model import Lease, LeaseState
from qpu_slurm.system import munge
from qpu_slurm_devkit.emulator import Drop, Fault
from tests.integration.gateway_site import SECONDS, Site

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from qpu_slurm_devkit.emulator import Emulator

AT_ONCE = 4
JOBS = range(101, 117)


@pytest.fixture
def site(emulator: Emulator) -> Iterator[Site]:
    """Return a gateway with patience: the machine may be busy, and nothing may fail for it."""
    with Site(emulator, acquire_timeout=60, starts_at_once=AT_ONCE) as site:
        yield site.start()


def wait_until(true: Callable[[], object]) -> None:
    deadline = time.monotonic() + SECONDS
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def acquire(site: Site, job_id: int) -> Lease:
    [lease] = site.hooks().acquire(site.request("ibm_fez", job_id=job_id))
    return lease


def acquire_all(site: Site) -> list[Lease]:
    with ThreadPoolExecutor(len(JOBS)) as pool:
        return list(pool.map(lambda job_id: acquire(site, job_id), JOBS))


def open_sessions(emulator: Emulator) -> list[str]:
    return sorted(session.id for session in emulator.sessions() if session.accepting_tasks)


def posts(emulator: Emulator) -> int:
    return sum(
        (request.method, request.path) == ("POST", "/sessions") and request.status in range(200, 300)
        for request in emulator.requests()
    )


def test_jobs_that_start_at_once_start_side_by_side_and_end_so(site: Site, emulator: Emulator) -> None:
    emulator.inject(Fault(method="POST", path="/sessions", delay=0.5, times=None))
    acquire(site, 1)
    begin = time.monotonic()
    leases = acquire_all(site)
    # One after the other, they would take 8 seconds for the sessions alone; nothing else is claimed here.
    assert time.monotonic() - begin < SECONDS
    sessions = [str(lease.session_id) for lease in leases]
    assert len(set(sessions)) == len(JOBS)
    assert set(sessions) < set(open_sessions(emulator))
    assert posts(emulator) == len(JOBS) + 1
    # Nobody asked for the QPU's status but the first, and the watcher asks for all of them in one request.
    asked = [request.path for request in emulator.requests()]
    assert asked.count("/backends/ibm_fez/status") <= 2

    with ThreadPoolExecutor(len(JOBS)) as pool:
        list(pool.map(lambda job_id: site.hooks().release(job_id, "The job ended."), (1, *JOBS)))
    wait_until(lambda: not open_sessions(emulator))
    wait_until(lambda: not site.journal.leases())


def test_jobs_are_served_in_the_order_in_which_they_came(site: Site, emulator: Emulator) -> None:
    acquire(site, 1)  # so that the account's token is there
    emulator.inject(Fault(method="POST", path="/sessions", delay=0.3, times=None))
    threads = []
    for job_id in JOBS:
        threads.append(threading.Thread(target=acquire, args=[site, job_id]))
        threads[-1].start()
        wait_until(lambda: len(site.events("request begins")) > len(threads))
    for thread in threads:
        thread.join(SECONDS)
    asked = [lease.job_id for lease in site.journal.leases() if lease.job_id in JOBS]
    # Those who have their turn at the same time may overtake each other.
    for place, job_id in enumerate(asked):
        assert abs(place - JOBS.index(job_id)) < AT_ONCE


def test_a_release_does_not_wait_behind_acquires(site: Site, emulator: Emulator) -> None:
    held = acquire(site, 1)
    emulator.inject(Fault(method="POST", path="/sessions", delay=60, times=None))
    waiting = [threading.Thread(target=gone_after, args=[site, job_id, 30], daemon=True) for job_id in JOBS]
    for thread in waiting:
        thread.start()
    wait_until(lambda: len(site.journal.leases()) > AT_ONCE)
    [released] = site.hooks().release(1, "The job ended.")
    assert (released.id, released.state) == (held.id, LeaseState.RELEASED)
    site.kill()
    for thread in waiting:
        thread.join(SECONDS)


def gone_after(site: Site, job_id: int, seconds: float) -> None:
    """Ask for a job's QPU, and hang up if there is no answer in time."""
    address = urlsplit(site.url)
    body = messages.encode(site.request("ibm_fez", job_id=job_id))
    signed = munge.encode(messages.binding("POST", messages.LEASES_PATH, body), socket=site.munge.socket)
    own = http.client.HTTPConnection(address.hostname or "", address.port, timeout=seconds)
    try:
        own.request("POST", messages.LEASES_PATH, body, {"Authorization": f"{messages.SCHEME} {signed}"})
        own.getresponse().read()
    except (OSError, http.client.HTTPException):
        pass
    finally:
        own.close()


def test_a_client_that_hangs_up_leaves_no_session(site: Site, emulator: Emulator) -> None:
    acquire(site, 1)
    emulator.inject(Fault(method="POST", path="/sessions", delay=3, times=AT_ONCE))
    with ThreadPoolExecutor(len(JOBS)) as pool:
        list(pool.map(lambda job_id: gone_after(site, job_id, 1), JOBS))
    # Those that had their turn give back what they get, and the others do not even ask.
    wait_until(lambda: len(site.events("request")) == 1 + len(JOBS))
    assert posts(emulator) <= 1 + AT_ONCE
    assert len(open_sessions(emulator)) == 1
    assert [lease.job_id for lease in site.journal.leases()] == [1]


def test_a_job_that_is_cancelled_while_it_waits_for_its_turn_opens_no_session(
    site: Site, emulator: Emulator
) -> None:
    acquire(site, 1)
    emulator.inject(Fault(method="POST", path="/sessions", delay=2, times=AT_ONCE))
    with ThreadPoolExecutor(AT_ONCE + 1) as pool:
        first = [pool.submit(acquire, site, job_id) for job_id in JOBS[:AT_ONCE]]
        wait_until(lambda: len(site.journal.leases()) == 1 + AT_ONCE)
        last = pool.submit(acquire, site, 200)
        wait_until(lambda: len(site.events("request begins")) == 2 + AT_ONCE)
        assert site.hooks().release(200, "The job was cancelled.") == ()
        with pytest.raises(NoLeaseError):
            last.result(SECONDS)
        assert {future.result(SECONDS).state for future in first} == {LeaseState.HELD}
    assert posts(emulator) == 1 + AT_ONCE


def test_answers_that_are_lost_in_a_storm_leave_each_job_its_own_session(
    site: Site, emulator: Emulator
) -> None:
    emulator.inject(Fault(method="POST", path="/sessions", drop=Drop.AFTER, times=5))
    sessions = sorted(str(lease.session_id) for lease in acquire_all(site))
    assert sessions == open_sessions(emulator)
    assert len(set(sessions)) == len(JOBS) == len(emulator.sessions())


def test_a_service_that_is_asked_too_much_gets_fewer_requests_and_no_job_fails(
    site: Site, emulator: Emulator
) -> None:
    emulator.inject(Fault(method="POST", path="/sessions", status=429, retry_after="1", times=6))
    sessions = sorted(str(lease.session_id) for lease in acquire_all(site))
    assert sessions == open_sessions(emulator)
    assert len(emulator.sessions()) == len(JOBS)


def test_a_job_whose_turn_does_not_come_in_time_must_wait(emulator: Emulator) -> None:
    with Site(emulator, acquire_timeout=4, starts_at_once=1) as site:
        site.start()
        acquire(site, 1)
        emulator.inject(Fault(method="POST", path="/sessions", delay=3, times=None))
        with ThreadPoolExecutor(3) as pool:
            asked = [pool.submit(acquire, site, job_id) for job_id in (2, 3, 4)]
            errors = [future.exception(SECONDS) for future in asked]
        refused = [error for error in errors if error is not None]
        assert refused
        for error in refused:
            assert isinstance(error, MustWaitError)
            assert "Many jobs start on ibm_fez at once" in str(error)
