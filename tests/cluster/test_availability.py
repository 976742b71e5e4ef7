# SPDX-License-Identifier: Apache-2.0
"""A job waits in the queue, with a reason and not on nodes, for a QPU that is not to be had."""

from __future__ import annotations

import json
import time
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest

from qpu_slurm_devkit.lab import Lab
from tests.cluster.conftest import CHECKOUT, OUTAGE, check_nothing_left

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LIMITS = """
[[qpu]]
name = "ibm_paris"
backend = "ibm_torino"
exclusive = true
[[qpu]]
name = "ibm_kyiv"
backend = "ibm_torino"
max_leases = 2
"""
QPUS = ("ibm_fez", "ibm_torino")
JOB = "#!/bin/sh\n#SBATCH --qpu={qpu}\necho $ibm_fez_QRMI_JOB_ACQUISITION_TOKEN\nsleep {seconds}\n"


@pytest.fixture(scope="module", params=["licenses", "plain"])
def shared(request: pytest.FixtureRequest) -> Iterator[Lab]:
    """One cluster where QPUs are licenses, and one where they are not."""
    licenses = {"ibm_fez": 100, "ibm_torino": 100, "ibm_paris": 1, "ibm_kyiv": 2}
    with Lab(
        CHECKOUT,
        qpus=QPUS,
        tables=OUTAGE + LIMITS,
        licenses=licenses if request.param == "licenses" else None,
    ) as lab:
        yield lab


@pytest.fixture
def lab(shared: Lab) -> Iterator[Lab]:
    shared.emulator.reset()
    yield shared
    for name in QPUS:
        admin(shared, "resume", name)
    check_nothing_left(shared)


def admin(lab: Lab, *arguments: str) -> str:
    done = lab.command(*arguments, config=lab.gateway_config)
    assert done.returncode == 0, done.stderr
    return done.stdout


def qpu(lab: Lab, name: str = "ibm_fez") -> dict[str, Any]:
    return next(report for report in json.loads(admin(lab, "qpus", "--json")) if report["qpu"] == name)


def queue(lab: Lab, job: int) -> tuple[str, str]:
    state, reason = lab.run(
        ["squeue", "--noheader", "--states=all", f"--jobs={job}", "--format=%T %r"]
    ).stdout.split()[:2]
    return state, reason


def wait_until(happened: Callable[[], object], timeout: float = 120) -> None:
    deadline = time.monotonic() + timeout
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def submit(lab: Lab, name: str = "ibm_fez", seconds: float = 0) -> int:
    return lab.submit(JOB.format(qpu=name, seconds=seconds))


def held_back(lab: Lab, job: int) -> bool:
    """Tell whether a job waits: for a license; or, without those, since the prolog has put it back."""
    return queue(lab, job) in {("PENDING", "Licenses"), ("PENDING", "BeginTime")}


def test_a_job_waits_for_a_closed_qpu_and_starts_when_it_is_opened(lab: Lab) -> None:
    running = submit(lab, seconds=12)
    wait_until(lambda: lab.cluster.output(running).strip())
    assert "closed" in admin(lab, "drain", "ibm_fez", "--reason", "New fridge until noon.")
    waiting = submit(lab)
    other = submit(lab, "ibm_torino")
    wait_until(lambda: held_back(lab, waiting))
    assert lab.wait(other) == "COMPLETED"
    time.sleep(3)
    # Slurm 26.05 keeps the delay of a requeue: the prolog may just be putting it back once more.
    wait_until(lambda: held_back(lab, waiting))
    assert lab.cluster.output(waiting) == ""
    report = qpu(lab)
    assert (report["state"], report["reason"]) == ("closed", "New fridge until noon.")
    assert (report["jobs"], report["waiting"]) == ([running], [waiting])
    # Who has it keeps it.
    assert lab.wait(running) == "COMPLETED"
    assert len(lab.emulator.sessions()) == 2

    opened = time.monotonic()
    admin(lab, "resume", "ibm_fez")
    assert lab.wait(waiting) == "COMPLETED"
    assert time.monotonic() - opened < 60  # a requeued job that nobody starts waits for two minutes
    assert lab.cluster.output(waiting).strip() == lab.emulator.sessions()[-1].id
    assert qpu(lab)["state"] == "available"


def test_a_job_waits_for_a_qpu_in_maintenance(lab: Lab) -> None:
    lab.emulator.set_backend("ibm_fez", "paused", "maintenance until noon")
    wait_until(lambda: qpu(lab)["state"] == "away")
    time.sleep(3)  # the gateway looks every two seconds
    waiting = submit(lab)
    wait_until(lambda: held_back(lab, waiting))
    # It is waited for longer than an outage is, which is given up after two tries of four seconds each.
    time.sleep(14)
    assert queue(lab, waiting)[0] in {"PENDING", "CONFIGURING", "COMPLETING"}
    assert "maintenance until noon" in qpu(lab)["reason"]

    lab.emulator.set_backend("ibm_fez", "active", "")
    assert lab.wait(waiting) == "COMPLETED"


def test_an_exclusive_qpu_has_one_job_at_a_time_on_whatever_nodes(lab: Lab) -> None:
    jobs = [submit(lab, "ibm_paris", seconds=3) for _ in range(3)]
    seen = set()

    def over() -> bool:
        seen.add(len(qpu(lab, "ibm_paris")["jobs"]))
        return all(queue(lab, job)[0] == "COMPLETED" for job in jobs)

    wait_until(over, timeout=240)
    assert max(seen) == 1
    opened = sorted((s.opened_at, s.closed_at) for s in lab.emulator.sessions())
    assert len(opened) == 3
    for (_, closed_at), (opened_at, _) in pairwise(opened):
        assert closed_at is not None
        assert opened_at >= closed_at


def test_as_many_jobs_as_may(lab: Lab) -> None:
    jobs = [submit(lab, "ibm_kyiv", seconds=8) for _ in range(3)]
    wait_until(lambda: sum(queue(lab, job)[0] == "RUNNING" for job in jobs) == 2)
    wait_until(lambda: any(held_back(lab, job) for job in jobs) or queue(lab, jobs[2])[0] == "COMPLETED")
    for job in jobs:
        assert lab.wait(job) == "COMPLETED"


def test_who_waits_at_a_terminal(lab: Lab) -> None:
    """With licenses, he waits in the queue as everybody does; without, he is told why he cannot."""
    admin(lab, "drain", "ibm_fez", "--reason", "New fridge.")
    with lab.cluster.popen(["srun", "--qpu=ibm_fez", "echo", "done"], env=lab.environ) as srun:
        if "Licenses" in lab.cluster.settings:
            time.sleep(3)
            assert srun.poll() is None
            admin(lab, "resume", "ibm_fez")
            output, _ = srun.communicate(timeout=240)
            assert output == "done\n"
        else:
            _, said = srun.communicate(timeout=240)
            assert srun.returncode != 0
            assert "ibm_fez is closed: New fridge." in said


def test_a_heterogeneous_job_waits_as_a_whole(lab: Lab) -> None:
    admin(lab, "drain", "ibm_fez", "--reason", "New fridge.")
    job = lab.submit(
        "#!/bin/sh\n#SBATCH --qpu=ibm_fez\n#SBATCH hetjob\n#SBATCH --gres=qpu:1 --partition=quantum\ntrue\n"
    )
    time.sleep(6)
    assert queue(lab, job)[0] in {"PENDING", "COMPLETING"}
    assert lab.emulator.sessions() == []
    admin(lab, "resume", "ibm_fez")
    assert lab.wait(job) == "COMPLETED"


def test_licenses_of_ones_own_stay(lab: Lab) -> None:
    if "Licenses" not in lab.cluster.settings:
        assert lab.wait(submit(lab)) == "COMPLETED"
        return
    job = lab.submit(["--qpu=ibm_fez,ibm_torino", "--licenses=ibm_torino:1", "--wrap=true"])
    shown = lab.run(["squeue", "--noheader", "--states=all", f"--jobs={job}", "--Format=Licenses:100"]).stdout
    assert sorted(shown.strip().split(",")) == ["ibm_fez:1", "ibm_torino:1"]
    assert lab.wait(job) == "COMPLETED"
    # Which QPU is chosen is not known yet, and neither is its license.
    chosen = lab.submit(["--qpu=any,ibm_fez|ibm_torino", "--wrap=true"])
    shown = lab.run(
        ["squeue", "--noheader", "--states=all", f"--jobs={chosen}", "--Format=Licenses:100"]
    ).stdout
    assert shown.strip() == "(null)"
    assert lab.wait(chosen) == "COMPLETED"
    plain = lab.submit(["--wrap=true"])
    shown = lab.run(
        ["squeue", "--noheader", "--states=all", f"--jobs={plain}", "--Format=Licenses:100"]
    ).stdout
    assert shown.strip() == "(null)"


# What users see.


def test_a_user_asks_why_his_job_waits(lab: Lab) -> None:
    """From the host that he submits from, and from a job: neither has the journal."""
    admin(lab, "drain", "ibm_fez", "--reason", "A new fridge until noon.")
    job = lab.submit(JOB.format(qpu="ibm_fez", seconds=0))
    wait_until(lambda: queue(lab, job)[1] in {"Licenses", "BeginTime"})
    wait_until(lambda: job in qpu(lab)["waiting"])

    def ask(*arguments: str) -> list[str]:
        return ["qpu-slurm", "--config", str(lab.config), *arguments]

    def fez() -> dict[str, Any]:
        reports = json.loads(lab.run(ask("qpus", "--json")).stdout)
        return next(report for report in reports if report["qpu"] == "ibm_fez")

    assert (fez()["state"], fez()["reason"]) == ("closed", "A new fridge until noon.")
    # Without licenses, the job is put back again and again; it does not wait as it is started.
    wait_until(lambda: fez()["waiting"] == [job])
    inside = lab.submit(f"#!/bin/sh\n#SBATCH --qpu=ibm_torino\n{' '.join(ask('qpus'))}\n")
    assert lab.wait(inside) == "COMPLETED", lab.cluster.output(inside)
    rows = {line.split()[0]: line for line in lab.cluster.output(inside).splitlines()}
    assert "A new fridge until noon." in rows["ibm_fez"]
    assert rows["ibm_torino"].split()[1:3] == ["available", "1"]

    def why() -> str:
        lines = lab.run(ask("timeline", str(job))).stdout.splitlines()
        return next((line for line in lines if line.split()[:1] == ["waits"]), "")

    said: list[str] = []

    def waits() -> bool:
        said.append(why())
        return bool(said[-1])

    wait_until(waits)
    assert any(words in said[-1] for words in ("No license is free of ibm_fez", "A new fridge until noon."))
    other = lab.run(ask("timeline", str(job)), user=lab.cluster.users[1])
    assert "belongs to another user" in other.stderr
    admin(lab, "resume", "ibm_fez")
    assert lab.wait(job) == "COMPLETED"
    assert why() == ""
