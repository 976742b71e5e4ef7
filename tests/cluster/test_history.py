# SPDX-License-Identifier: Apache-2.0
"""What is known of jobs that have run, on a real Slurm: it has the emulator's own numbers."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest

from qpu_slurm.journal.journal import Journal

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable

    from qpu_slurm_devkit.lab import Lab

SECONDS = 60

WAITS = """\
#!/bin/sh
#SBATCH --qpu=ibm_fez --gres=qpu:1 --partition=quantum
touch waiting-$SLURM_JOB_ID
while [ ! -e go-on-$SLURM_JOB_ID ]; do sleep 0.1; done
"""


def timeline(lab: Lab, *arguments: str, user: str | None = None) -> subprocess.CompletedProcess[str]:
    env = {"QPU_SLURM_CONFIG": str(lab.config)}
    return lab.run(["qpu-slurm", "timeline", *arguments], user=user, env=env)


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def told(lab: Lab) -> None:
    """Wait until the service has told what every session was used for."""
    with Journal(lab.journal) as journal:
        until(lambda: not journal.history.unaccounted())


def of_service(lab: Lab) -> tuple[float, float]:
    """Return how long QPUs were locked, and executed, by the emulator's own record."""
    executed = sum((task.done_at or 0) - (task.running_at or 0) for task in lab.emulator.tasks())
    return sum(session.locked_seconds for session in lab.emulator.sessions()), executed


def account_of(lab: Lab, job: int) -> dict[str, Any]:
    rows = json.loads(lab.command("report", "--by", "job,user,qpu", "--json").stdout)["rows"]
    [row] = [row for row in rows if row["job"] == str(job)]
    found: dict[str, Any] = row
    return found


@pytest.mark.credentials("gateway", "user", "shared")
def test_accounts_and_timelines_are_the_services_own(lab: Lab) -> None:
    job = lab.submit(["job_split_hetjob.sh"])
    assert lab.wait(job) == "COMPLETED"
    told(lab)
    locked, executed = of_service(lab)
    assert executed > 0

    row = account_of(lab, job)
    assert (row["user"], row["qpu"]) == (lab.cluster.users[0], "ibm_fez")
    assert (row["sessions"], row["tasks"], row["pending"], row["unknown"]) == (1, 1, 0, 0)
    assert row["locked_seconds"] == pytest.approx(locked, abs=0.1)
    assert row["executed_seconds"] == pytest.approx(executed, abs=0.1)

    [workflow] = json.loads(lab.command("timeline", str(job), "--json").stdout)
    assert workflow["locked_seconds"] == pytest.approx(locked, abs=0.1)
    [of_job] = workflow["jobs"]
    rows = {row["label"]: row for row in of_job["rows"]}
    assert of_job["title"] == f"Job {job}: job_split_hetjob"
    lock, execution = rows["ibm_fez: locked"]["bars"]
    assert lock["end"] - lock["begin"] == pytest.approx(locked, abs=0.1)
    assert execution["end"] - execution["begin"] == pytest.approx(executed, abs=0.1)

    # Everything in its place.
    running = rows["job"]["bars"][-1]
    [session] = rows["ibm_fez: session"]["bars"]
    assert running["begin"] <= session["begin"] < lock["begin"] <= execution["begin"]
    assert execution["end"] <= lock["end"] <= session["end"] + 0.1
    assert session["end"] <= running["end"] + 0.1 <= workflow["seconds"] + 0.2


def test_users_see_their_own_jobs_and_no_others(lab: Lab) -> None:
    job = lab.submit(["job_split_hetjob.sh"])
    assert lab.wait(job) == "COMPLETED"
    told(lab)

    drawn = timeline(lab, str(job), "--label", "Mine")
    assert (drawn.returncode, drawn.stderr) == (0, "")
    assert drawn.stdout.startswith("Mine\n")
    assert "ibm_fez: locked" in drawn.stdout

    for name in ("--svg=mine.svg", "--png=mine.png"):
        picture = timeline(lab, str(job), name)
        assert (picture.returncode, picture.stdout, picture.stderr) == (0, "", "")
    assert "<svg" in (lab.cluster.home() / "mine.svg").read_text()
    assert (lab.cluster.home() / "mine.png").read_bytes().startswith(b"\x89PNG")

    if len(lab.cluster.users) > 1:
        other = timeline(lab, str(job), user=lab.cluster.users[1])
        assert other.returncode == 1
        assert f"Job {job} belongs to another user." in other.stderr
    unknown = timeline(lab, "4000000000")
    assert unknown.stderr == "qpu-slurm: Neither the journal nor Slurm knows job 4000000000.\n"


def test_a_job_without_a_qpu_has_a_timeline_while_slurm_knows_it(lab: Lab) -> None:
    job = lab.submit("#!/bin/sh\n#SBATCH --job-name=plain\nsleep 1\n")
    assert lab.wait(job) == "COMPLETED"
    [workflow] = json.loads(timeline(lab, str(job), "--json").stdout)
    [of_job] = workflow["jobs"]
    assert of_job["title"] == f"Job {job}: plain"
    assert [row["label"] for row in of_job["rows"]] == ["job"]


def test_slurms_record_has_what_was_used_while_it_can_be_written(lab: Lab) -> None:
    job = lab.submit(WAITS)
    home = lab.cluster.home()
    until((home / f"waiting-{job}").exists)

    # The session ends before the job does.
    with Journal(lab.journal) as journal:
        [lease] = journal.leases(job_id=job)
        assert lease.session_id is not None
        lab.emulator.close_session(lease.session_id)
        journal.part(lease.id, lease.session_id, "The service closed it.")

    def comment() -> dict[str, Any]:
        shown = lab.cluster.run(["scontrol", "show", "job", str(job)]).stdout
        [line] = [line.strip() for line in shown.splitlines() if "AdminComment=" in line]
        found: dict[str, Any] = json.loads(line.removeprefix("AdminComment="))["qpu_slurm"]
        return found

    until(lambda: "usage" in comment())
    assert comment()["usage"] == {"ibm_fez": {"locked": 0.0, "executed": 0.0}}
    assert comment()["sessions"] == {"ibm_fez": lease.session_id}
    (home / f"go-on-{job}").touch()
    assert lab.wait(job) == "COMPLETED"
