# SPDX-License-Identifier: Apache-2.0
"""Leases on a QPU whose service has no sessions: broker, accountant and limits, with a gate for a session."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from qpu_slurm import config, providers
from qpu_slurm.errors import MustWaitError
from qpu_slurm.journal.history import TaskUse
from qpu_slurm.journal.journal import Journal
from qpu_slurm.journal.model import Hold, LeaseRequest, LeaseState
from qpu_slurm.leases.accountant import Accountant
from qpu_slurm.leases.broker import Broker
from qpu_slurm.providers.ibm_system.service import QuantumSystem
from qpu_slurm.system.deadline import NEVER, Deadline
from qpu_slurm_devkit.emulator import Fault
from tests.integration.test_provider_ibm_system import PATIENCE, IbmSystem
from tests.provider_conformance import ended

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from qpu_slurm.journal.model import Lease
    from qpu_slurm.providers.base import Access, Provider
    from qpu_slurm_devkit.emulator import Emulator

CONFIG = """
journal = "{directory}/journal.sqlite"
[outage]
acquire_timeout = 10
[gateway]
url = "http://127.0.0.1:1"
[defaults]
endpoint = "{url}/api/v1"
iam_endpoint = "{url}"
instance = "{crn}"
credentials = "gateway"
key_file = "{directory}/key"
[[qpu]]
name = "ibm_fez"
exclusive = true
[[qpu]]
name = "ibm_torino"
"""


class Site:
    """A gateway's broker and accountant, with `ibm_fez` on the premises and `ibm_torino` in the cloud."""

    def __init__(self, emulator: Emulator, directory: Path, circuit: str) -> None:
        self.emulator = emulator
        self.service = IbmSystem(emulator, circuit)
        account = emulator.accounts[0]
        key = directory / "key"
        key.touch(mode=0o600)
        key.write_text(account.api_key)
        path = directory / "config.toml"
        path.write_text(CONFIG.format(directory=directory, url=emulator.url, crn=account.crn))
        self.config = config.load(path)
        self.journal = Journal(self.config.journal)
        self.broker = Broker(self.config, self.journal, self.connect, settle=0)
        self.accountant = Accountant(self.config, self.journal, self.connect)
        self.provider = self.service.connect("ibm_fez")

    def connect(self, access: Access, *, deadline: Deadline = NEVER) -> Provider:
        if access.backend == "ibm_fez":
            return QuantumSystem(self.service.access(), patience=PATIENCE, deadline=deadline)
        return providers.connect(access, deadline=deadline)

    def acquire(self, *qpus: str, job_id: int = 7, hold: Hold | None = None) -> Lease:
        request = LeaseRequest(job_id=job_id, user_id=1000, qpus=qpus, seconds_left=900, hold=hold)
        return self.broker.acquire(request)[0]

    def submit(self, lease: Lease, *, parameters: bytes | None = None) -> str:
        assert lease.session_id is not None
        return self.provider.submit(
            "sampler", parameters or self.service.parameters, session_id=lease.session_id, tags=(lease.tag,)
        )

    def used(self, lease: Lease) -> tuple[float | None, float | None, list[str]]:
        """Return what the journal has of a lease's one session: locked, executed, its tasks."""
        [session] = self.journal.history.sessions(lease.id)
        tasks = self.journal.history.tasks(session.session_id)
        return session.locked_seconds, session.executed_seconds, [task.task_id for task in tasks]


@pytest.fixture
def site(emulator: Emulator, tmp_path: Path, bell: str) -> Iterator[Site]:
    site = Site(emulator, tmp_path, bell)
    yield site
    site.journal.close()


def test_a_job_gets_a_gate_of_which_the_service_knows_nothing(site: Site) -> None:
    lease = site.acquire("ibm_fez")

    assert lease.state is LeaseState.HELD
    assert lease.session_id is not None
    assert lease.session_id.startswith("gate-")
    methods = {request.method for request in site.emulator.requests() if request.path.startswith("/system/")}
    assert methods == {"GET"}
    assert site.acquire("ibm_fez").session_id == lease.session_id
    assert site.broker.release(7, "The job ended.")[0].state is LeaseState.RELEASED


def test_a_gate_may_open_with_the_first_task(site: Site) -> None:
    lease = site.acquire("ibm_fez", hold=Hold.TASK)
    assert lease.session_id is None

    opened = site.broker.open_session(lease.id)

    assert (opened.id, opened.state) == (lease.id, LeaseState.HELD)
    assert opened.session_id is not None
    assert site.broker.open_session(lease.id).session_id == opened.session_id


def test_as_many_gates_are_open_as_may_be(site: Site) -> None:
    site.acquire("ibm_fez", job_id=7)
    with pytest.raises(MustWaitError):
        site.acquire("ibm_fez", job_id=8)
    site.broker.release(7, "The job ended.")
    assert site.acquire("ibm_fez", job_id=8).state is LeaseState.HELD


def test_a_job_gets_its_gate_and_its_session_or_neither(site: Site) -> None:
    site.emulator.set_backend("ibm_torino", "paused", "Calibrating.")
    with pytest.raises(MustWaitError, match="Calibrating"):
        site.acquire("ibm_fez", "ibm_torino")
    assert site.journal.open_lease(7, "ibm_fez") is None

    site.emulator.set_backend("ibm_torino")
    site.journal.seen_qpus.note("ibm_torino", asked_at=datetime.now(UTC), online=True)  # as the watcher does
    site.acquire("ibm_fez", "ibm_torino")
    assert len(site.emulator.sessions()) == 1


def test_the_end_of_a_job_cancels_what_it_left_and_nothing_else(site: Site) -> None:
    lease = site.acquire("ibm_fez")
    site.service.pause("They wait.")
    left = [site.submit(lease) for _ in range(2)]
    elsewhere = site.service.submit(site.provider, "of-somebody-else")

    site.broker.release(7, "The job ended.")

    assert {task_id: site.provider.task(task_id).status for task_id in (*left, elsewhere)} == {
        left[0]: "cancelled",
        left[1]: "cancelled",
        elsewhere: "running",
    }
    site.accountant.run()
    assert site.used(lease) == (0, 0, left)
    assert [task.id for task in site.emulator.tasks()] == [elsewhere]


def test_what_a_job_used_is_what_its_tasks_ran_and_no_data_are_left(site: Site) -> None:
    lease = site.acquire("ibm_fez")
    tasks = [site.submit(lease), site.submit(lease, parameters=site.service.bad_parameters)]
    for task_id in tasks:
        ended(site.provider, task_id)
    seconds = sum(usage.seconds for usage in site.provider.tasks_of(lease.tag))
    site.broker.release(7, "The job ended.")

    (used,) = site.accountant.run()

    assert used.locked_seconds == used.executed_seconds == pytest.approx(seconds)
    assert site.used(lease) == (used.locked_seconds, used.executed_seconds, tasks)
    assert site.emulator.tasks() == []
    left = {request.path for request in site.emulator.requests() if request.method == "PUT"}
    deleted = {request.path for request in site.emulator.requests() if request.method == "DELETE"}
    assert {path for path in left if path.startswith("/s3/")} <= deleted
    assert site.journal.history.unaccounted() == []


@pytest.mark.parametrize("path", ["/s3/*", "/system/v1/jobs/*"])
def test_nothing_is_lost_where_the_deletion_fails(site: Site, path: str) -> None:
    lease = site.acquire("ibm_fez")
    tasks = [site.submit(lease) for _ in range(3)]
    for task_id in tasks:
        ended(site.provider, task_id)
    seconds = sum(usage.seconds for usage in site.provider.tasks_of(lease.tag))
    site.broker.release(7, "The job ended.")
    site.emulator.inject(Fault(method="DELETE", path=path, skip=1, times=None, status=403))

    assert site.accountant.run() == []
    assert len(site.journal.history.unaccounted()) == 1

    # As another process would, which knows nothing of the first.
    site.emulator.clear_faults()
    (used,) = Accountant(site.config, site.journal, site.connect).run()
    assert used.executed_seconds == pytest.approx(seconds)
    assert site.used(lease)[2] == tasks
    assert site.emulator.tasks() == []


def test_tasks_that_were_noted_and_deleted_before_count(site: Site) -> None:
    """Programs delete their tasks as soon as they have the result, to free the lane."""
    lease = site.acquire("ibm_fez")
    assert lease.session_id is not None
    first, second = site.submit(lease), site.submit(lease)
    for task_id in (first, second):
        ended(site.provider, task_id)
    seconds = sum(usage.seconds for usage in site.provider.tasks_of(lease.tag))
    usage = site.provider.usage(lease.session_id)
    deleted = [task for task in usage.tasks if task.id == first]
    site.journal.history.note_tasks(
        lease.session_id,
        [
            TaskUse(
                task_id=task.id,
                session_id=lease.session_id,
                status=task.status or "",
                created_at=task.created_at,
                started_at=task.started_at,
                ended_at=task.ended_at,
                seconds=task.seconds,
            )
            for task in deleted
        ],
    )
    site.provider.delete_task(first)
    site.broker.release(7, "The job ended.")

    (used,) = site.accountant.run()

    assert used.executed_seconds == pytest.approx(seconds)
    assert site.used(lease)[2] == [first, second]
