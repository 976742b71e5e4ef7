# SPDX-License-Identifier: Apache-2.0
"""What sessions were used for, as it comes into the journal: the emulator's own numbers, whoever asks."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import msgspec
import pytest
import requests

from qpu_slurm.config import ComputeServiceQpu, Config
from qpu_slurm.journal.journal import Journal
from qpu_slurm.journal.model import LeaseRequest, LeaseState
from qpu_slurm.leases.accountant import Accountant
from qpu_slurm.leases.broker import Broker
from qpu_slurm.system.secret import Secret
from qpu_slurm_devkit.emulator import Emulator, Fault
from tests.integration.conftest import api_of
from tests.integration.gateway_site import SECONDS, Site

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from qpu_slurm.journal.model import Lease

TASK_SECONDS = 0.3


@pytest.fixture(scope="module")
def quick_emulator() -> Iterator[Emulator]:
    with Emulator(result_bytes=200, task_seconds=TASK_SECONDS) as emulator:
        yield emulator


@pytest.fixture
def quick(quick_emulator: Emulator) -> Emulator:
    """Return an emulator that simulates nothing, and whose tasks are short."""
    quick_emulator.reset()
    return quick_emulator


@pytest.fixture
def gateway(quick: Emulator) -> Iterator[Site]:
    with Site(quick) as site:
        yield site.start()


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def use(site: Site, lease: Lease, tasks: int = 2) -> None:
    """Execute some tasks in a job's session, and end the job."""
    with site.job(lease) as job:
        for _ in range(tasks):
            job.submit()
        site.emulator.wait_for(
            lambda emulator: sum(task.status == "Completed" for task in emulator.tasks()) == tasks
        )
    site.hooks().release(lease.job_id, "The job ended.")


def check(journal: Journal, lease: Lease, emulator: Emulator) -> None:
    """Compare the journal with the emulator's own record."""
    [told] = emulator.sessions()
    tasks = emulator.tasks()
    [session] = journal.history.sessions(lease.id)
    assert session.locked_seconds == pytest.approx(told.locked_seconds, abs=0.01)
    executed = sum((task.done_at or 0) - (task.running_at or 0) for task in tasks)
    assert session.executed_seconds == pytest.approx(executed, abs=0.01)

    [lock] = journal.history.locks(session.session_id)
    assert lock.began_at.timestamp() == pytest.approx(told.activated_at, abs=0.01)
    assert lock.ended_at.timestamp() == pytest.approx(told.closed_at, abs=0.01)

    written = journal.history.tasks(session.session_id)
    assert [(task.task_id, task.status) for task in written] == [(task.id, "completed") for task in tasks]
    for mine, theirs in zip(written, tasks, strict=True):
        assert mine.created_at is not None
        assert mine.started_at is not None
        assert mine.ended_at is not None
        times = [mine.created_at.timestamp(), mine.started_at.timestamp(), mine.ended_at.timestamp()]
        assert times == pytest.approx([theirs.queued_at, theirs.running_at, theirs.done_at], abs=0.01)


def test_the_gateway_accounts_for_a_session_as_it_ends(gateway: Site) -> None:
    lease = gateway.acquire()
    use(gateway, lease)
    until(lambda: not gateway.journal.history.unaccounted())
    check(gateway.journal, lease, gateway.emulator)

    metrics = requests.get(f"{gateway.url}/metrics", timeout=SECONDS).text
    [session] = gateway.journal.history.sessions(lease.id)
    assert f'qpu_slurm_locked_seconds_total{{qpu="ibm_fez"}} {session.locked_seconds}' in metrics


def test_what_ended_while_no_gateway_was_there_is_accounted_for_by_the_next(
    quick: Emulator,
) -> None:
    with Site(quick) as site:
        site.start()
        lease = site.acquire()
        quick.inject(Fault(method="GET", path=f"/sessions/{lease.session_id}", status=503, times=1000))
        use(site, lease)
        site.kill()
        assert site.journal.history.unaccounted()
        quick.clear_faults()
        site.start()
        until(lambda: not site.journal.history.unaccounted())
        check(site.journal, lease, quick)


def test_a_session_that_the_service_has_forgotten_is_unknown_for_good(gateway: Site) -> None:
    lease = gateway.acquire()
    [held] = gateway.journal.history.sessions(lease.id)
    gateway.emulator.inject(Fault(method="GET", path=f"/sessions/{held.session_id}", status=404, times=1000))
    gateway.hooks().release(lease.job_id, "The job ended.")
    until(lambda: not gateway.journal.history.unaccounted())
    [session] = gateway.journal.history.sessions(lease.id)
    assert (session.locked_seconds, session.executed_seconds) == (None, None)
    assert session.unknown


# Without a gateway.


@pytest.fixture
def config(quick: Emulator, tmp_path: Path) -> Config:
    account = quick.accounts[0]
    key = tmp_path / "key"
    key.touch(mode=0o600)
    key.write_text(account.api_key)
    own = ComputeServiceQpu(
        name="ibm_fez",
        instance=account.crn,
        endpoint=f"{quick.url}/api/v1",
        iam_endpoint=quick.url,
        credentials="user",
    )
    shared = msgspec.structs.replace(
        own, name="ibm_torino", backend="ibm_torino", credentials="shared", key_file=key
    )
    return Config(
        path=tmp_path / "config.toml",
        journal=tmp_path / "journal.sqlite",
        qpus={"ibm_fez": own, "ibm_torino": shared},
    )


@pytest.fixture
def journal(config: Config) -> Iterator[Journal]:
    with Journal(config.journal) as journal:
        yield journal


def acquire(broker: Broker, quick: Emulator, qpu: str = "ibm_fez") -> Lease:
    key = Secret(quick.accounts[0].api_key)
    [lease] = broker.acquire(LeaseRequest(job_id=7, user_id=1000, qpus=(qpu,), seconds_left=900, api_key=key))
    return lease


@pytest.mark.parametrize("qpu", ["ibm_fez", "ibm_torino"])
def test_a_release_accounts_for_what_it_ends_while_there_is_a_key(
    config: Config, journal: Journal, quick: Emulator, qpu: str
) -> None:
    broker = Broker(config, journal)
    lease = acquire(broker, quick, qpu)
    api = api_of(quick)
    with api.http:
        api.submit([["?"]], lease.session_id, backend=qpu)
    quick.wait_for(lambda emulator: [task.status for task in emulator.tasks()] == ["Completed"])
    broker.release(7, "The job ended.")
    check(journal, lease, quick)
    assert journal.api_key(lease.id) is None


def test_what_only_a_forgotten_key_could_tell_is_unknown(
    config: Config, journal: Journal, quick: Emulator
) -> None:
    broker = Broker(config, journal)
    lease = acquire(broker, quick)
    quick.inject(Fault(method="GET", path=f"/sessions/{lease.session_id}", status=404, times=100))
    broker.release(7, "The job ended.")
    assert journal.history.unaccounted()
    assert Accountant(config, journal).run() == []
    [session] = journal.history.sessions(lease.id)
    assert "the user's own key" in session.unknown


def test_a_service_that_does_not_tell_is_asked_again_and_given_up_on_in_the_end(
    config: Config, journal: Journal, quick: Emulator
) -> None:
    lease = acquire(Broker(config, journal), quick, "ibm_torino")
    journal.finish(lease.id, LeaseState.RELEASED)  # as the journal has it; at the service it is open still
    assert Accountant(config, journal).run() == []
    assert [session.session_id for session in journal.history.unaccounted()] == [lease.session_id]

    assert Accountant(config, journal, give_up=0).run() == []
    [session] = journal.history.sessions(lease.id)
    assert session.unknown == "The session is open still."
    assert journal.history.unaccounted() == []
