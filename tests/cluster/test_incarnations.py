# SPDX-License-Identifier: Apache-2.0
"""A job's number comes again: its next run has a session of its own, and the last one's is closed."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest

from qpu_slurm_devkit.lab import Lab
from tests.cluster.conftest import CHECKOUT, OUTAGE, check_nothing_left

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

AGAIN = (
    "#!/bin/sh\n#SBATCH --requeue\n"
    "echo run ${SLURM_RESTART_COUNT:-0} $ibm_fez_QRMI_JOB_ACQUISITION_TOKEN\n"
    '[ -n "$SLURM_RESTART_COUNT" ] || sleep 60\n'
)


@pytest.fixture
def own_lab() -> Iterator[Lab]:
    """Return a lab whose daemons a test may kill."""
    with Lab(CHECKOUT, tables=OUTAGE) as lab:
        yield lab
        check_nothing_left(lab)


def scontrol(lab: Lab, *arguments: str) -> None:
    done = lab.cluster.run(["scontrol", *arguments], user=lab.cluster.slurm_user)
    assert done.returncode == 0, done.stderr


def leases(lab: Lab, job: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(lab.command("leases", str(job), "--all", "--json").stdout)
    return found


def wait_until(happened: Callable[[], object], timeout: float = 40) -> None:
    deadline = time.monotonic() + timeout
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.parametrize(
    "components", ["", "#SBATCH hetjob\n#SBATCH --partition=quantum --gres=qpu:1\n"], ids=["plain", "het"]
)
def test_a_requeued_job_has_a_session_for_each_run(lab: Lab, components: str) -> None:
    script = AGAIN.replace("--requeue\n", f"--requeue --qpu=ibm_fez\n{components}", 1)
    job = lab.submit(script)
    wait_until(lambda: "run 0" in lab.cluster.output(job))
    # A run is told apart by the second in which it was submitted.
    time.sleep(1)
    scontrol(lab, "requeue", str(job))
    # A slurmd takes a run that starts within the second of the last one's end for that one: not at once.
    scontrol(lab, "update", f"JobId={job}", "StartTime=now+4")
    wait_until(lambda: [lease["state"] for lease in leases(lab, job)] == ["released"])

    assert lab.wait(job) == "COMPLETED", lab.cluster.output(job)
    first, second = leases(lab, job)
    assert first["run"] != second["run"]
    assert [lease["state"] for lease in (first, second)] == ["released", "released"]
    assert first["session_id"] != second["session_id"]
    assert second["session_id"] in lab.cluster.output(job)


def test_a_suspended_job_keeps_its_session(lab: Lab) -> None:
    job = lab.submit("#!/bin/sh\n#SBATCH --qpu=ibm_fez --time=5\necho begun\nsleep 3\n")
    wait_until(lambda: "begun" in lab.cluster.output(job))
    scontrol(lab, "suspend", str(job))
    time.sleep(3)  # the gateway's reaper looks every two seconds
    scontrol(lab, "update", f"JobId={job}", "TimeLimit=20")
    scontrol(lab, "resume", str(job))
    assert lab.wait(job) == "COMPLETED", lab.cluster.output(job)
    [lease] = leases(lab, job)
    assert (lease["state"], lease["reason"]) == ("released", "The job ended.")


def test_the_number_of_a_job_that_slurmctld_forgot_is_another_jobs(own_lab: Lab) -> None:
    lab = own_lab
    state = lab.cluster.directory / "state"
    lab.submit(["--wrap=true"])
    scontrol(lab, "reconfigure")
    wait_until(lambda: not lab.run(["squeue", "--noheader"]).stdout.strip())
    time.sleep(6)  # slurmctld saves its state 5 s after a change
    saved = {path.name: path.read_bytes() for path in state.iterdir() if path.is_file()}
    first = lab.submit("#!/bin/sh\n#SBATCH --qpu=ibm_fez --nodelist=c1\nsleep 2\n")
    wait_until(lambda: [lease["state"] for lease in leases(lab, first)] == ["held"])
    lab.cluster.kill("slurmctld")
    for name, content in saved.items():
        (state / name).write_bytes(content)
    lab.cluster.restart("slurmctld")
    # On another node: the one that has run a job of this number says `Duplicate jobid`, for which Slurm
    # itself drains it.
    second = lab.submit(
        "#!/bin/sh\n#SBATCH --qpu=ibm_fez --nodelist=c2\necho $ibm_fez_QRMI_JOB_ACQUISITION_TOKEN\n"
    )
    assert second == first, "the number did not come again"

    assert lab.wait(second) == "COMPLETED"
    lost, own = leases(lab, second)
    assert lost["run"] != own["run"]
    assert lost["reason"] in {"The job was started again.", "Slurm does not know the job any more."}
    assert lab.cluster.output(second).strip() == own["session_id"] != lost["session_id"]
