# SPDX-License-Identifier: Apache-2.0
"""A gateway that runs as a user of its own, who is not SlurmUser."""

from __future__ import annotations

import json
import os
import pwd
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from qpu_slurm_devkit.emulator import Fault
from qpu_slurm_devkit.lab import Lab
from tests.cluster.conftest import CHECKOUT, OUTAGE, check_nothing_left

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="Three users take root to be them.")

OWN_USER = "sys"

JOB = "#!/bin/sh\n#SBATCH --qpu=ibm_fez\ntask_runner ibm_fez input.json output.json && srun true\n"


@pytest.fixture(scope="module")
def shared_lab() -> Iterator[Lab]:
    licenses = {"ibm_fez": 10, "ibm_torino": 10}
    with Lab(CHECKOUT, gateway_user=OWN_USER, tables=OUTAGE, licenses=licenses) as lab:
        lab.put(CHECKOUT / "contrib" / "seed")
        yield lab


@pytest.fixture
def lab(shared_lab: Lab) -> Iterator[Lab]:
    shared_lab.emulator.reset()
    yield shared_lab
    check_nothing_left(shared_lab)


def test_jobs_have_their_qpus_and_the_gateway_is_not_slurms_user(lab: Lab) -> None:
    assert lab.gateway is not None
    owner = Path(f"/proc/{lab.gateway.pid}/environ").stat().st_uid
    status = Path(f"/proc/{lab.gateway.pid}/status").read_text()
    uid = pwd.getpwnam(OWN_USER).pw_uid
    assert f"Uid:\t{uid}\t{uid}" in status
    # A process that cannot be dumped belongs to root, as far as /proc is concerned.
    assert owner == 0
    job = lab.submit("#!/bin/sh\n#SBATCH --qpu=ibm_fez\nsrun printenv QRMI_JOB_QPU_RESOURCES\n")
    assert lab.wait(job) == "COMPLETED"
    assert lab.cluster.output(job) == "ibm_fez\n"
    (session,) = lab.emulator.sessions()
    # The hook, which is SlurmUser's, has written what the gateway may not.
    assert session.id in lab.run(["scontrol", "show", "job", str(job)]).stdout


def test_what_slurms_user_alone_may_write_is_left_out_in_words(lab: Lab) -> None:
    """A session that is over while its job runs: its usage is in the journal, and not in Slurm's comment."""
    assert lab.gateway is not None
    go = lab.cluster.home() / "go"
    go.unlink(missing_ok=True)
    script = "#!/bin/sh\n#SBATCH --qpu=ibm_fez\necho ready\nwhile [ ! -e go ]; do sleep 0.1; done\n"
    job = lab.submit(script)
    try:
        lab.emulator.wait_for(lambda _: "ready" in lab.cluster.output(job), seconds=40)
        (session,) = lab.emulator.sessions()
        lab.emulator.close_session(session.id)
        lab.emulator.wait_for(lambda _: "Slurm's record" in lab.gateway_log, seconds=20)
        said = lab.gateway_log.count("Slurm's record")
        time.sleep(5)
        # Said once, not every two seconds.
        assert lab.gateway_log.count("Slurm's record") == said == 1
        assert '"usage"' not in lab.run(["scontrol", "show", "job", str(job)]).stdout
    finally:
        go.touch()
    assert lab.wait(job) == "COMPLETED"
    report = json.loads(lab.command("report", "--json").stdout)
    assert report


def test_a_job_that_must_not_start_is_requeued_by_the_hook(lab: Lab) -> None:
    lab.emulator.inject(Fault(method="POST", path="/sessions", status=503, times=100))
    job = lab.submit("#!/bin/sh\n#SBATCH --qpu=ibm_fez\ntrue\n")
    lab.emulator.wait_for(lambda _: "the job is requeued" in lab.hook_log, seconds=60)
    lab.emulator.clear_faults()
    assert lab.wait(job) == "COMPLETED"
    lab.cluster.wait_until_idle()


def test_check_takes_the_gateways_own_user_for_the_owner_of_journal_and_key(lab: Lab) -> None:
    found = json.loads(lab.command("check", "--json", config=lab.gateway_config).stdout)
    levels = {one["about"]: one["level"] for one in found}
    assert (levels["journal"], levels["key of ibm_fez, ibm_torino"], levels["gateway"]) == (
        "ok",
        "ok",
        "ok",
    ), found


def test_a_qpu_is_closed_even_if_slurm_holds_no_job_back(lab: Lab) -> None:
    """Without slurmdbd, Slurm takes reservations from SlurmUser and root alone: the hook puts jobs back."""
    closed = lab.command("drain", "ibm_torino", "--reason", "repair", config=lab.gateway_config)
    try:
        assert closed.returncode == 1
        assert "ibm_torino is closed to new jobs. But Slurm does not hold them back" in closed.stderr
        job = lab.submit("#!/bin/sh\n#SBATCH --qpu=ibm_torino\necho over\n")
        lab.emulator.wait_for(lambda _: "ibm_torino is closed: repair" in lab.hook_log, seconds=60)
    finally:
        opened = lab.command("resume", "ibm_torino", config=lab.gateway_config)
    assert opened.returncode == 0, opened.stderr
    assert (lab.wait(job, 180), lab.cluster.output(job)) == ("COMPLETED", "over\n")


def test_srun_is_told_why_by_the_hook(lab: Lab) -> None:
    lab.emulator.inject(Fault(method="POST", path="/sessions", status=403, times=100))
    done = lab.run(["srun", "--qpu=ibm_fez", "true"])
    assert done.returncode != 0
    assert "qpu_slurm: " in done.stderr


def test_a_user_whom_nobody_trusts_gets_no_lease(lab: Lab) -> None:
    """SlurmUser is trusted by its name in the configuration; the gateway's own user has the journal."""
    config = lab.config.read_text()
    assert "trusted_users" in config
    other = lab.cluster.users[0]
    argv = [str(lab.bin / "qpu-slurm"), "--config", str(lab.config), "release", "4711"]
    done = lab.cluster.run(argv, user=other)
    assert (done.returncode, "Only Slurm's own user" in done.stderr) == (1, True), done
    assert lab.cluster.run(argv, user=lab.cluster.slurm_user).returncode == 0
