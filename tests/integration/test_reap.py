# SPDX-License-Identifier: Apache-2.0
"""`qpu-slurm reap`: real requests, several processes at once; what squeue knows stands in a file."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import pytest

from qpu_slurm import config
from qpu_slurm.journal.journal import Journal
from qpu_slurm.journal.model import Lease, LeaseRequest, LeaseState
from qpu_slurm.leases.broker import Broker
from qpu_slurm.system.deadline import Deadline
from tests.integration.squeue import Squeue

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qpu_slurm_devkit.emulator import Emulator

CONFIG = """
journal = "{directory}/journal.sqlite"
log = "{directory}/reap.log"
[slurm]
bin = "{directory}"
conf = "{directory}/slurm.conf"
[outage]
acquire_timeout = 10
[defaults]
endpoint = "{url}/api/v1"
iam_endpoint = "{url}"
instance = "{account.crn}"
credentials = "shared"
key_file = "{directory}/key"
[[qpu]]
name = "ibm_fez"
"""


class Controller:
    """A controller without a gateway, whose Slurm runs some jobs."""

    def __init__(self, emulator: Emulator, directory: Path) -> None:
        account = emulator.accounts[0]
        self.emulator = emulator
        self.directory = directory
        self.path = directory / "config.toml"
        self.path.write_text(CONFIG.format(directory=directory, url=emulator.url, account=account))
        (directory / "key").touch(mode=0o600)
        (directory / "key").write_text(account.api_key)
        self.squeue = Squeue(directory)
        (directory / "scontrol").write_text("#!/bin/sh\n")
        (directory / "scontrol").chmod(0o755)
        self.config = config.load(self.path)
        self.journal = Journal(self.config.journal)
        self.broker = Broker(self.config, self.journal, settle=0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.journal.close()

    def acquire(self, job_id: int) -> Lease:
        [lease] = self.broker.acquire(
            LeaseRequest(job_id=job_id, user_id=os.getuid(), qpus=("ibm_fez",), seconds_left=900)
        )
        return lease

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        argv = [str(Path(sys.executable).with_name("qpu-slurm")), "--config", str(self.path), *arguments]
        return subprocess.run(argv, capture_output=True, text=True, timeout=240, check=False)

    def reap(self) -> subprocess.Popen[str]:
        argv = [
            str(Path(sys.executable).with_name("qpu-slurm")),
            "--config",
            str(self.path),
            "reap",
            "--json",
        ]
        return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def report(reaper: subprocess.Popen[str]) -> dict[str, Any]:
    with reaper:
        out, said = reaper.communicate(timeout=240)
    assert reaper.returncode == 0, said + out
    found: dict[str, Any] = json.loads(out)
    return found


@pytest.fixture
def controller(emulator: Emulator, tmp_path: Path) -> Iterator[Controller]:
    with Controller(emulator, tmp_path) as controller:
        yield controller


def test_several_at_once_beside_jobs_that_start(controller: Controller) -> None:
    over = [controller.acquire(job_id) for job_id in range(1, 9)]
    live = [controller.acquire(job_id) for job_id in range(9, 13)]
    controller.squeue.lists(*range(9, 17))
    reapers = [controller.reap() for _ in range(3)]
    live += [controller.acquire(job_id) for job_id in range(13, 17)]
    reports = [report(reaper) for reaper in reapers]

    sessions = {session.id for session in controller.emulator.sessions() if session.accepting_tasks}
    assert sessions == {lease.session_id for lease in live}
    assert controller.journal.leases() == live
    for lease in over:
        assert controller.journal.lease(lease.id).state is LeaseState.RELEASED
        events = [event.what for event in controller.journal.events(lease.id)]
        assert events.count("releasing") == events.count("released") == 1
    ended = {reaped["lease"]["job_id"] for found in reports for reaped in found["reaped"]}
    assert ended == set(range(1, 9))


def test_what_was_done_and_why(controller: Controller) -> None:
    gone, closed, kept = (controller.acquire(job_id) for job_id in (1, 2, 3))
    controller.emulator.close_session(str(closed.session_id))
    controller.squeue.lists(2, 3)
    found = report(controller.reap())
    assert found["leases"] == 3
    assert {
        (reaped["lease"]["job_id"], reaped["lease"]["qpu"], reaped["lease"]["state"], reaped["why"])
        for reaped in found["reaped"]
    } == {
        (1, "ibm_fez", "released", "Slurm does not know the job any more."),
        (2, "ibm_fez", "bound", "The service had closed the session."),
    }
    assert controller.journal.leases() == [controller.journal.lease(closed.id), kept]
    assert controller.journal.lease(gone.id).state is LeaseState.RELEASED
    # The job's next task gets another session.
    again = controller.broker.open_session(closed.id)
    assert again.session_id not in {None, closed.session_id}


# Sessions that no lease knows.


def test_sessions_that_no_lease_knows_are_listed_and_ended_on_request(controller: Controller) -> None:
    lease = controller.acquire(1)
    controller.squeue.lists(1)
    provider = controller.broker.provider(lease, deadline=Deadline.after(60))
    unused, used, closed = (provider.open_session(600).id for _ in range(3))
    tags = ("slurm-job:other:1:0123456789abcdef", "mine")
    provider.submit("sampler", b'{"pubs": [["OPENQASM 3.0;"]], "version": 2}', session_id=used, tags=tags)
    provider.cancel_session(closed)

    # By itself, reap leaves them alone: they may be another cluster's, or somebody's who has none.
    assert controller.run("reap").returncode == 0
    listed = json.loads(controller.run("reap", "--sessions", "--json").stdout)
    assert [(one["qpu"], one["session_id"], one["tag"]) for one in listed] == [
        ("ibm_fez", used, tags[0]),
        ("ibm_fez", unused, ""),
    ]
    first, second = controller.run("reap", "--sessions").stdout.splitlines()[1:]
    assert (first.split()[1], first.split()[-1]) == (used, tags[0])
    assert (second.split()[1], second.split()[-1]) == (unused, "-")

    ended = controller.run("reap", "--end", used, "--end", unused)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.splitlines() == [f"ibm_fez: {used}: ended", f"ibm_fez: {unused}: ended"]
    assert [one.id for one in controller.emulator.sessions() if one.accepting_tasks] == [lease.session_id]
    assert controller.run("reap", "--sessions").stdout == "No open session that no lease knows.\n"


def test_a_session_that_a_lease_has_is_not_ended_as_one_that_none_knows(controller: Controller) -> None:
    lease = controller.acquire(7)
    session_id = str(lease.session_id)
    provider = controller.broker.provider(lease, deadline=Deadline.after(60))
    unused = provider.open_session(600).id
    for wrong, says in ((session_id, "qpu-slurm release 7"), ("no-such-session", "There is no open session")):
        done = controller.run("reap", "--end", unused, "--end", wrong)
        assert done.returncode == 1
        assert says in done.stderr
    assert all(one.accepting_tasks for one in controller.emulator.sessions())
