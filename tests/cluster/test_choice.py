# SPDX-License-Identifier: Apache-2.0
"""Jobs that leave the choice of their QPU to the cluster, on a real Slurm."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from qpu_slurm_devkit.lab import Lab

ASK = "python -c 'from qpu_slurm import Qpu; print(Qpu.of_job().name, Qpu.of_job(\"any\").name)'\n"

pytestmark = pytest.mark.credentials("gateway", "user")


@pytest.fixture
def qpus(lab: Lab) -> Iterator[Lab]:
    """Return the lab; what a test has closed is open afterwards."""
    yield lab
    for name in ("ibm_fez", "ibm_torino"):
        admin(lab, "resume", name)


def admin(lab: Lab, *arguments: str) -> str:
    done = lab.command(*arguments, config=lab.gateway_config if lab.gateway else None)
    assert done.returncode == 0, done.stderr
    return done.stdout


def comment(lab: Lab, job: int) -> dict[str, Any]:
    """Read what squeue shows of what the hooks wrote."""
    listing = ["squeue", "--noheader", "--states=all", f"--jobs={job}", "--Format=admin_comment:2000"]
    shown = lab.run(listing).stdout.strip()
    # Slurm has a word of its own for a job that has none.
    found: dict[str, Any] = json.loads(shown)["qpu_slurm"] if shown.startswith("{") else {}
    return found


def wait_until(happened: Callable[[], object], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_a_jobs_steps_find_the_chosen_qpu(lab: Lab) -> None:
    job = lab.submit(
        "#!/bin/bash\n#SBATCH --qpu=any:qubits>=150,processor=heron\nset -e\n"
        f"{ASK}python python_api.py write\nsrun task_runner any python_api.json chosen.json\n"
        "srun python python_api.py run\n"
    )
    assert lab.wait(job) == "COMPLETED", lab.cluster.output(job)
    output = lab.cluster.output(job)
    assert output.splitlines()[0] == "ibm_fez ibm_fez"
    assert "execute {'101': 30}" in output
    assert {session.backend for session in lab.emulator.sessions()} == {"ibm_fez"}
    chosen = comment(lab, job)["chosen"]
    assert chosen == {
        "ibm_fez": {"asked": "any:qubits>=150,processor=heron", "why": "No other QPU meets it."}
    }
    (lease,) = json.loads(lab.command("leases", str(job), "--all", "--json").stdout)
    assert lease["chosen"] == chosen["ibm_fez"]
    assert "ibm_fez: chosen" in lab.command("timeline", str(job)).stdout
    assert "Chosen for any:qubits>=150" in lab.command("leases", str(job), "--all").stdout


def test_one_of_several_named_qpus_at_a_terminal(lab: Lab) -> None:
    done = lab.run(
        ["srun", "--qpu=ibm_fez|ibm_torino:qubits<150", "sh", "-c", "echo $SLURM_JOB_QPU_RESOURCES"]
    )
    assert done.stdout == "ibm_torino\n", done.stderr


@pytest.mark.parametrize(
    ("option", "says"),
    [
        ("any:qbits>=100", "'qbits' is not an attribute; known are qubits, processor"),
        ("any:qubits>=", "'qubits>=' is not a constraint"),
        ("any,qubits>=100", "'qubits>=100' has no colon before it; write any:qubits>=100"),
        ("ibm_fez|ibm_kyiv", "no QPU is called 'ibm_kyiv'; this cluster has: ibm_fez, ibm_torino"),
        ("ibm_fez:qubits>=1", "'ibm_fez' is one QPU"),
    ],
)
def test_a_mistake_shows_as_the_job_is_submitted(lab: Lab, option: str, says: str) -> None:
    done = lab.run(["sbatch", f"--qpu={option}", "--wrap=true"])
    assert done.returncode != 0
    assert says in done.stderr


def test_a_wish_that_nothing_can_meet_ends_the_job(lab: Lab) -> None:
    job = lab.submit(["--qpu=any:qubits>=1000", "--wrap=true"])
    assert lab.wait(job) == "FAILED"
    assert "no QPU meets any:qubits>=1000: ibm_fez has qubits=156; ibm_torino has qubits=133." in (
        lab.cluster.output(job)
    )
    assert lab.emulator.sessions() == []


def test_a_job_waits_until_one_of_them_is_back(qpus: Lab) -> None:
    for name in ("ibm_fez", "ibm_torino"):
        admin(qpus, "drain", name, "--reason", "New fridge.")
    job = qpus.submit(f"#!/bin/bash\n#SBATCH --qpu=ibm_fez|ibm_torino\n{ASK}")
    wait_until(lambda: "waiting" in comment(qpus, job))
    left = comment(qpus, job)
    assert left["waiting"].startswith("No QPU is available now for ibm_fez|ibm_torino: ")
    for name in ("ibm_fez", "ibm_torino"):
        assert f"{name} is closed: New fridge" in left["waiting"]
    assert left["qpus"] == ["ibm_fez|ibm_torino"]
    admin(qpus, "resume", "ibm_torino")
    assert qpus.wait(job) == "COMPLETED", qpus.cluster.output(job)
    assert qpus.cluster.output(job) == "ibm_torino ibm_torino\n"
    assert comment(qpus, job)["chosen"]["ibm_torino"]["asked"] == "ibm_fez|ibm_torino"


def test_the_components_of_a_heterogeneous_job_share_one_choice(lab: Lab) -> None:
    show = "srun --het-group={} sh -c 'echo $SLURM_JOB_QPU_RESOURCES'\n"
    job = lab.submit(
        "#!/bin/bash\n#SBATCH --qpu=any\n#SBATCH hetjob\n#SBATCH --gres=qpu:1 --partition=quantum\n"
        f"#SBATCH --qpu=any\nset -e\n{show.format(0)}{show.format(1)}"
    )
    assert lab.wait(job) == "COMPLETED", lab.cluster.output(job)
    first, second = lab.cluster.output(job).split()
    assert first == second
    assert len(lab.emulator.sessions()) == 1


def test_several_qpus_one_of_them_by_name(lab: Lab) -> None:
    job = lab.submit(["--qpu=ibm_torino,any", "--wrap", "echo $SLURM_JOB_QPU_RESOURCES"])
    assert lab.wait(job) == "COMPLETED", lab.cluster.output(job)
    assert lab.cluster.output(job) == "ibm_torino,ibm_fez\n"
