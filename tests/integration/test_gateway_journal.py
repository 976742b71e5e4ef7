# SPDX-License-Identifier: Apache-2.0
"""A gateway whose journal is deleted or damaged: jobs go on, and the admin is told."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, NamedTuple

import pytest
import requests

from qpu_slurm.errors import UnavailableError
from qpu_slurm.journal.journal import Journal
from qpu_slurm.journal.model import LeaseState
from qpu_slurm.slurm.admin_comment import AdminComment, Granted
from tests.integration.gateway_site import GRANT, SECONDS, USER, Job, Site
from tests.integration.squeue import Squeue

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from qpu_slurm.journal.model import Lease
    from qpu_slurm_devkit.emulator import Emulator


class Running(NamedTuple):
    """A gateway, and a job that runs behind it."""

    site: Site
    job: Job

    def health(self) -> dict[str, str]:
        answer: dict[str, str] = requests.get(f"{self.site.url}/healthz", timeout=SECONDS).json()
        return answer

    def counted(self, metric: str) -> float:
        text = requests.get(f"{self.site.url}/metrics", timeout=SECONDS).text
        return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith(metric))

    def leases(self) -> list[Lease]:
        with Journal(self.site.config.journal, make=False) as journal:
            return journal.leases()

    def delete(self) -> None:
        for ending in ("", "-wal", "-shm"):
            path = self.site.config.journal
            path.with_name(path.name + ending).unlink(missing_ok=True)

    def damage(self) -> None:
        for path in self.site.config.journal.parent.glob("journal.sqlite*"):
            if path.suffix != ".secret":
                with path.open("r+b") as file:
                    file.write(os.urandom(path.stat().st_size))

    def goes_on(self) -> None:
        """Make sure that the job's key, session and lease are what they were."""
        self.job.submit()
        (lease,) = self.leases()
        before = self.job.lease
        assert (lease.id, lease.created_at, lease.state) == (before.id, before.created_at, LeaseState.HELD)
        assert (lease.session_id, lease.tag) == (before.session_id, before.tag)


@pytest.fixture
def running(emulator: Emulator) -> Iterator[Running]:
    """Start a gateway that looks every second, and a job that has its session."""
    with Site(emulator, gateway='reap_every = "1s"') as site:
        # Another lease is older, so that numbers tell.
        site.release(site.acquire("torino"))
        lease = site.acquire()
        handover = AdminComment(
            sessions={lease.qpu: lease.session_id},
            leases={lease.qpu: Granted(id=lease.id, created_at=lease.created_at, tag=lease.tag)},
        )
        Squeue(site.directory).lists(lease.job_id, user_id=USER, admin_comment=handover.into_comment(""))
        # Of all processes, the gateway alone has the journal open.
        site.journal.close()
        site.start()
        with site.job(lease) as job:
            yield Running(site, job)


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_journal_that_is_deleted_while_the_gateway_runs_is_brought_back(running: Running) -> None:
    assert "journal" not in running.health()
    running.delete()
    running.goes_on()
    assert running.health()["status"] == "ok"
    assert "deleted" in running.health()["journal"]
    assert running.counted("qpu_slurm_journal_losses_total") == 1
    assert running.site.events("the journal was deleted, and is brought back")
    assert running.counted("qpu_slurm_taken_over_leases_total") == 0


def test_a_journal_that_is_deleted_while_the_gateway_is_down_is_taken_over(running: Running) -> None:
    running.site.kill()
    running.delete()
    running.site.start()
    wait_until(running.leases)
    running.goes_on()
    assert running.counted("qpu_slurm_taken_over_leases_total") == 1
    (event,) = running.site.events("lease taken over")
    assert (event["job_id"], event["session_id"]) == (running.job.lease.job_id, running.job.session_id)


def test_a_job_is_not_refused_while_its_lease_is_taken_over(running: Running) -> None:
    running.site.kill()
    running.delete()
    jobs = running.site.directory / "jobs"
    jobs.rename(jobs.with_suffix(".kept"))  # without it, Slurm does not answer
    running.site.start()
    url = f"{running.site.url}/experimental/api/v1/sessions/{running.job.session_id}"
    headers = {"Service-CRN": str(running.job.http.headers.get("Service-CRN", ""))}
    answer = running.job.http.get(url, headers=headers, timeout=SECONDS)
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "2"), answer.text
    assert "asking Slurm which jobs hold QPUs" in answer.text
    # A program that starts meanwhile asks for a token first, and a step for its job's key.
    form = {"grant_type": GRANT, "apikey": running.job.key}
    answer = requests.post(f"{running.site.url}/identity/token", data=form, timeout=SECONDS)
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "2"), answer.text
    with pytest.raises(UnavailableError, match="asking Slurm which jobs hold QPUs"):
        running.site.hooks().keys(running.job.lease.job_id)
    jobs.with_suffix(".kept").rename(jobs)
    wait_until(running.leases)
    running.goes_on()


@pytest.mark.parametrize("down", [False, True], ids=["while it runs", "while it is down"])
def test_a_journal_that_is_damaged_is_kept_and_taken_over(running: Running, *, down: bool) -> None:
    if down:
        running.site.kill()
    running.damage()
    if down:
        running.site.start()
    wait_until(lambda: running.health().get("journal"))
    wait_until(running.leases)
    running.goes_on()
    assert "damaged" in running.health()["journal"]
    assert running.counted("qpu_slurm_journal_losses_total") == 1
    aside = [path.name for path in running.site.config.journal.parent.glob("journal.sqlite.damaged-*Z")]
    assert len(aside) == 1
    assert aside[0] in running.health()["journal"]
    assert running.site.events("the journal is damaged")
