# SPDX-License-Identifier: Apache-2.0
"""Slurm's own accounting of QPUs, by a real slurmdbd: licenses are limited, weighed, and seen in sacct.

docs/accounting.md says what is set up here.
"""

from __future__ import annotations

import csv
import io
import json
import random
from typing import TYPE_CHECKING, Any

import pytest

from qpu_slurm_devkit.lab import Lab
from tests.cluster.conftest import CHECKOUT, check_nothing_left
from tests.cluster.test_two_clusters import BELL

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

QPUS = ("ibm_fez", "ibm_torino")
SETTINGS = {
    "AccountingStorageTRES": ",".join(f"license/{name}" for name in QPUS),
    "AccountingStorageEnforce": "associations,limits,qos,safe",
    "PriorityType": "priority/multifactor",
    "PartitionName": "DEFAULT TRESBillingWeights=CPU=0,License/ibm_fez=100,License/ibm_torino=10",
}
USERS = {"physics": "bin", "chemistry": "daemon"}


@pytest.fixture(scope="module")
def shared() -> Iterator[Lab]:
    lab = Lab(CHECKOUT, qpus=QPUS, accounting=True, settings=SETTINGS, licenses=dict.fromkeys(QPUS, 100))
    # Not `nobody`: Slurm 26.05 finds no associations of that user.
    lab.cluster.users = tuple(USERS.values())
    with lab:
        for account, user in USERS.items():
            sacctmgr(lab, "add", "account", account)
            sacctmgr(lab, "add", "user", user, f"account={account}")
            (lab.cluster.home(user) / "input.json").write_text(json.dumps(BELL))
            (lab.cluster.home(user) / "input.json").chmod(0o644)
        sacctmgr(lab, "add", "qos", "class")
        sacctmgr(lab, "modify", "user", "bin", "set", "qos+=class")
        yield lab


@pytest.fixture
def lab(shared: Lab) -> Iterator[Lab]:
    """Return the lab; what a test limits is unlimited afterwards."""
    shared.emulator.reset()
    yield shared
    shared.cluster.cancel_jobs()
    no_limits = [f"{limit}=license/{name}=-1" for limit in ("GrpTRES", "GrpTRESMins") for name in QPUS]
    for account in USERS:
        sacctmgr(shared, "modify", "account", account, "set", *no_limits)
    check_nothing_left(shared)


def sacctmgr(lab: Lab, *arguments: str) -> None:
    lab.cluster.ask("sacctmgr", "--immediate", "--quiet", *arguments)


def hold(lab: Lab, qpu: str, *arguments: str, account: str = "physics", seconds: float = 600) -> int:
    """Submit a job that holds a QPU for a while."""
    options = [f"--qpu={qpu}", "--time=2", *arguments, f"--wrap=sleep {seconds}"]
    return lab.submit(options, user=USERS[account])


def reason(lab: Lab, job: int) -> str:
    """Wait until a job is pending for a reason that is not Slurm's first guess; return the reason."""
    found = ""

    def settled(_: object) -> bool:
        nonlocal found
        found = lab.cluster.ask("squeue", "--noheader", f"--jobs={job}", "--format=%T %r").strip()
        return found.startswith("PENDING") and found.split()[1] not in {"None", "Priority"}

    lab.emulator.wait_for(settled, seconds=60)
    return found.split()[1]


def runs(lab: Lab, job: int) -> None:
    lab.emulator.wait_for(
        lambda _: "RUNNING" in lab.cluster.ask("squeue", "--noheader", f"--jobs={job}", "--format=%T"),
        seconds=60,
    )


def sacct(lab: Lab, job: int, *fields: str) -> dict[str, str]:
    """Return fields of slurmdbd's record of a job, without its steps."""
    shown = lab.cluster.ask("sacct", "-P", "-X", f"--jobs={job}", f"--format={','.join(fields)}")
    (row,) = csv.DictReader(io.StringIO(shown), delimiter="|", quoting=csv.QUOTE_NONE)
    return row


def usage(lab: Lab, job: int) -> dict[str, Mapping[str, float]]:
    """Return what sacct shows of a job's use of QPUs, as soon as the gateway has written it."""

    def comment() -> dict[str, Any]:
        try:
            text = sacct(lab, job, "AdminComment")["AdminComment"].replace("`", '"')
        except ValueError:
            return {}  # slurmdbd does not have the job yet.
        found: dict[str, Any] = json.loads(text or "{}").get("qpu_slurm", {})
        return found

    lab.emulator.wait_for(lambda _: "usage" in comment(), seconds=180)
    found: dict[str, Mapping[str, float]] = comment()["usage"]
    return found


def test_sacct_shows_the_license_and_the_seconds_of_a_job(lab: Lab) -> None:
    job = lab.submit("#!/bin/sh\n#SBATCH --qpu=ibm_fez\ntask_runner ibm_fez input.json output.json\n")
    assert lab.wait(job) == "COMPLETED", lab.cluster.output(job)
    used = usage(lab, job)["ibm_fez"]
    assert used["executed"] > 0
    assert used["locked"] >= used["executed"]
    tres = dict(item.split("=") for item in sacct(lab, job, "AllocTRES")["AllocTRES"].split(","))
    assert (tres["license/ibm_fez"], tres["billing"]) == ("1", "100")


def test_an_account_that_has_used_up_its_minutes_waits_and_others_do_not(lab: Lab) -> None:
    # What a job may still use is reserved: two minutes do not fit into one.
    sacctmgr(lab, "modify", "account", "physics", "set", "GrpTRESMins=license/ibm_fez=1")
    waits = hold(lab, "ibm_fez")
    assert reason(lab, waits) == "AssocGrpLicenseMinutes"
    runs(lab, hold(lab, "ibm_torino"))
    runs(lab, hold(lab, "ibm_fez", account="chemistry"))
    assert "AssocGrpLicenseMinutes" in lab.command("timeline", str(waits), config=lab.gateway_config).stdout
    sacctmgr(lab, "modify", "account", "physics", "set", "GrpTRESMins=license/ibm_fez=100")
    runs(lab, waits)


def test_an_account_gets_as_many_jobs_on_a_qpu_at_once_as_its_limit_says(lab: Lab) -> None:
    sacctmgr(lab, "modify", "account", "physics", "set", "GrpTRES=license/ibm_fez=1")
    first, second = hold(lab, "ibm_fez"), hold(lab, "ibm_fez")
    assert reason(lab, second) == "AssocGrpLicense"
    runs(lab, first)
    lab.cluster.ask("scancel", str(first))
    runs(lab, second)


def test_a_qos_limits_each_of_its_users(lab: Lab) -> None:
    sacctmgr(lab, "modify", "qos", "class", "set", "MaxTRESPerUser=license/ibm_fez=1")
    first = hold(lab, "ibm_fez", "--qos=class")
    runs(lab, first)
    assert reason(lab, hold(lab, "ibm_fez", "--qos=class")) == "QOSMaxLicensePerUser"
    runs(lab, hold(lab, "ibm_fez"))


def test_fairshare_weighs_the_time_that_a_qpu_is_held(lab: Lab) -> None:
    """TRESBillingWeights make a second of ibm_fez ten times as dear as one of ibm_torino."""
    jobs = [hold(lab, "ibm_fez", seconds=3), hold(lab, "ibm_torino", account="chemistry", seconds=3)]
    assert [lab.wait(job) for job in jobs] == ["COMPLETED"] * 2
    weights = [sacct(lab, job, "AllocTRES")["AllocTRES"] for job in jobs]
    assert ["billing=100" in weights[0], "billing=10," in weights[1]] == [True, True]


def test_the_report_agrees_with_sacct_over_random_jobs(lab: Lab) -> None:
    """The seconds are the same in both, and Slurm counts as held whatever was locked."""
    chance = random.Random(7)  # noqa: S311 - a choice of jobs
    jobs = {}
    for _ in range(12):
        account, qpu = chance.choice(list(USERS)), chance.choice(QPUS)
        session, tasks = chance.choice(("job", "task")), chance.randint(0, 2)
        script = "".join(f"task_runner {qpu} input.json output.json\n" for _ in range(tasks))
        job = lab.submit(
            f"#!/bin/sh\n#SBATCH --qpu={qpu} --qpu-session={session} --time=2\n{script}sleep 1\n",
            user=USERS[account],
        )
        jobs[job] = account, qpu, tasks
    assert {lab.wait(job) for job in jobs} == {"COMPLETED"}
    report = lab.command("report", "--by", "job", "--json", config=lab.gateway_config).stdout
    rows = json.loads(report)["rows"]
    for job, (account, qpu, tasks) in jobs.items():
        record = sacct(lab, job, "Account", "ElapsedRaw")
        assert record["Account"] == account
        row = next((row for row in rows if row["job"] == str(job)), None)
        if row is None:  # it waited for its first task, and had none
            assert not tasks
            continue
        used = usage(lab, job)[qpu]
        assert (used["locked"], used["executed"]) == (row["locked_seconds"], row["executed_seconds"])
        assert row["tasks"] == tasks
        # Slurm counts whole seconds, and the session is closed after the job's last one.
        assert used["locked"] <= int(record["ElapsedRaw"]) + 5
