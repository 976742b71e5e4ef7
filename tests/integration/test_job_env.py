# SPDX-License-Identifier: Apache-2.0
"""`qpu-slurm job-env` behind the gateway: a step begins with the session that its job has by then."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from qpu_slurm.job import variables
from qpu_slurm.slurm.admin_comment import AdminComment
from tests.integration.gateway_site import PROGRAM, SECONDS, USER
from tests.integration.squeue import Squeue

if TYPE_CHECKING:
    from qpu_slurm.job.variables import JobQpu
    from qpu_slurm.journal.model import Lease
    from tests.integration.gateway_site import Job, Site

OWNER = USER if os.geteuid() == 0 else os.geteuid()
"""Who asks: root becomes the job's user, everybody else can only be himself."""

HANDED_OVER = {
    "job": lambda lease: AdminComment(sessions={lease.qpu: lease.session_id}),
    "task": lambda lease: AdminComment(sessions={lease.qpu: None}, hold={lease.qpu: "task"}),
    "none": lambda lease: AdminComment(sessions={lease.qpu: None}),
}
"""What the prolog wrote into the job's AdminComment, for each way to hold a session."""

TOLD = {
    "the first node": ("--step", "0", "--name", "python", "--at", "1"),
    "the other nodes": (),
}


def start(site: Site, lease: Lease, *told: str) -> JobQpu:
    """Start a step; return what it learns of its QPU. `lease` is as the prolog found it."""
    comment = HANDED_OVER[lease.hold](lease).into_comment("")
    Squeue(site.directory).lists(lease.job_id, user_id=OWNER, admin_comment=comment)
    printed = subprocess.run(
        [PROGRAM, "--config", site.path, "job-env", str(lease.job_id), *told],
        capture_output=True,
        text=True,
        check=True,
        timeout=SECONDS,
    ).stdout
    environ = dict(line.split("=", 1) for line in printed.splitlines())
    return variables.find(environ, lease.qpu)


def opened(job: Job) -> str:
    """Open a session, as QRMI and Qiskit do."""
    answer = job.send("POST", "/sessions", json={"backend": "ibm_fez"})
    assert answer.ok, answer.text
    session_id: str = answer.json()["id"]
    return session_id


def test_a_step_learns_whose_job_it_is_as_qrmi_reads_it(site: Site) -> None:
    lease = site.acquire(user_id=OWNER)
    qpu = start(site, lease)
    assert (qpu.job_id, qpu.user_id) == (lease.job_id, OWNER)


@pytest.mark.parametrize("told", TOLD.values(), ids=TOLD)
def test_what_one_step_has_opened_is_the_next_ones(site: Site, told: tuple[str, ...]) -> None:
    lease = site.later(user_id=OWNER)
    first = start(site, lease, *told)
    assert (first.session_id, first.hold) == (None, "task")

    session_id = opened(site.job(lease))

    second = start(site, lease, *told)
    assert (second.session_id, second.hold) == (session_id, "task")
    assert second.api_key.reveal() == site.key(lease)


def test_a_session_that_was_closed_is_no_steps_any_more(site: Site) -> None:
    lease = site.acquire(user_id=OWNER)
    assert start(site, lease).session_id == lease.session_id
    job = site.job(lease)

    assert job.send("DELETE", f"/sessions/{lease.session_id}/close").ok
    without = start(site, lease)
    assert (without.session_id, without.hold) == (None, "job")
    without.may_execute()

    session_id = opened(job)
    assert session_id != lease.session_id
    assert start(site, lease).session_id == session_id


def test_a_job_that_is_only_bound_gets_none(site: Site) -> None:
    bound = start(site, site.bind(user_id=OWNER))
    assert (bound.session_id, bound.hold) == (None, None)
