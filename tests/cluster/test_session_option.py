# SPDX-License-Identifier: Apache-2.0
"""`--qpu-session=task` on a real Slurm: nothing is held before the first task, nor after the last."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from qpu_slurm_devkit.emulator import EventKind
from qpu_slurm_devkit.lab import Lab
from tests.cluster.conftest import CHECKOUT, check_nothing_left

if TYPE_CHECKING:
    from collections.abc import Iterator

BATCH = "#!/bin/bash\n#SBATCH --qpu=ibm_fez --qpu-session=task --time=5\nset -e\n"

TASK = "task_runner ibm_fez sampler_input_ibm_fez.json"

pytestmark = pytest.mark.credentials("gateway", "user")


@pytest.fixture(scope="session")
def transpiled(shared_lab: Lab) -> None:
    """Have an input in the user's home, so that the jobs here need not transpile one."""
    job = shared_lab.submit("#!/bin/sh\n#SBATCH --qpu=ibm_fez\npython map_optimize.py\n")
    assert shared_lab.wait(job) == "COMPLETED", shared_lab.cluster.output(job)


@pytest.fixture
def home(lab: Lab, transpiled: None) -> Lab:
    """Return the lab; what steps leave on a node is left in the user's home."""
    assert transpiled is None
    return lab


def submit(lab: Lab, script: str) -> int:
    return lab.submit(script, env={"TMPDIR": str(lab.cluster.home())})


def completed(lab: Lab, script: str) -> int:
    job = submit(lab, script)
    assert lab.wait(job) == "COMPLETED", lab.cluster.output(job)
    return job


def leases(lab: Lab, job: int) -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads(lab.command("leases", str(job), "--all", "--json").stdout)
    return found


def kinds(lab: Lab) -> list[EventKind]:
    return [event.kind for event in lab.emulator.events()]


def test_a_job_without_a_task_holds_nothing(home: Lab) -> None:
    job = completed(
        home, f"{BATCH}python map_optimize.py\nenv | grep -c -e QRMI_JOB_ACQUISITION_TOKEN || true\n"
    )

    assert home.cluster.output(job).splitlines()[-1] == "0"
    assert home.emulator.events() == []
    (lease,) = leases(home, job)
    assert (lease["state"], lease["session_id"]) == ("released", None)


def test_a_heterogeneous_job_locks_the_qpu_for_its_task_and_no_longer(home: Lab) -> None:
    job = completed(
        home,
        "#!/bin/bash\n#SBATCH --qpu=ibm_fez --qpu-session=task\n#SBATCH hetjob\n#SBATCH --qpu=ibm_fez\n"
        "#SBATCH --qpu-session=task --gres=qpu:1 --partition=quantum\nset -e\n"
        "srun --het-group=0 python map_optimize.py\n"
        f"srun --het-group=1 {TASK} out.json --final\n"
        "srun --het-group=0 python result.py out.json\n",
    )

    assert "register meas" in home.cluster.output(job)
    assert kinds(home) == [
        EventKind.SESSION_OPENED,
        EventKind.TASK_QUEUED,
        EventKind.SESSION_ACTIVE,
        EventKind.TASK_RUNNING,
        EventKind.TASK_DONE,
        EventKind.SESSION_CLOSED,
    ]
    (session,), (task,) = home.emulator.sessions(), home.emulator.tasks()
    assert task.done_at is not None
    assert task.running_at is not None
    # The session closes as its last task ends: the QPU is locked as long as it executes.
    assert session.locked_seconds == pytest.approx(task.done_at - task.running_at, abs=0.05)
    assert session.max_ttl > 0


def test_a_later_task_of_the_job_opens_a_session_of_its_own(home: Lab) -> None:
    job = completed(
        home,
        f"{BATCH}srun {TASK} first.json --final\nsrun python result.py first.json\n"
        f"srun {TASK} second.json\nsrun {TASK} third.json\n",
    )

    first, second = home.emulator.sessions()
    assert [task.session_id for task in home.emulator.tasks()] == [first.id, second.id, second.id]
    assert f"opened session {second.id}" in home.cluster.output(job)
    assert first.closed_at is not None
    assert first.closed_at < second.opened_at
    assert (first.state, second.state) == ("closed", "closed")
    assert second.max_ttl <= 300
    (lease,) = leases(home, job)
    assert lease["state"] == "released"


def test_a_session_that_the_service_closed_meanwhile_is_replaced(home: Lab) -> None:
    go = home.cluster.home() / "go"
    go.unlink(missing_ok=True)
    wait = "while [ ! -e go ]; do sleep 0.1; done\n"
    job = submit(home, f"{BATCH}srun {TASK} first.json\n{wait}{TASK} out.json\n")
    home.emulator.wait_for(lambda emulator: emulator.tasks() and emulator.tasks()[0].done_at, seconds=120)
    home.emulator.advance(60)
    home.emulator.advance(1800)
    assert home.emulator.sessions()[0].state == "closed"
    go.touch()

    assert home.wait(job) == "COMPLETED", home.cluster.output(job)
    first, second = home.emulator.sessions()
    assert [task.session_id for task in home.emulator.tasks()] == [first.id, second.id]


@pytest.mark.parametrize("hold", ["job", "task"])
def test_a_job_that_is_killed_leaves_no_session(home: Lab, hold: str) -> None:
    script = BATCH.replace("=task", f"={hold}")
    job = submit(home, f"{script}{TASK} first.json --final\n{TASK} second.json\nsleep 60\n")
    home.emulator.wait_for(lambda emulator: len(emulator.tasks()) == 2, seconds=120)
    home.run(["scancel", "--signal=KILL", "--full", str(job)])

    home.wait(job)
    home.emulator.wait_for(lambda emulator: all(s.state == "closed" for s in emulator.sessions()))
    assert len(home.emulator.sessions()) == 2


@pytest.mark.credentials("gateway")
def test_programs_of_others_get_the_jobs_session(home: Lab) -> None:
    job = completed(home, f"{BATCH}python upstream_runtime_session.py\n{TASK} out.json\n")

    first, second = home.emulator.sessions()
    assert [task.session_id for task in home.emulator.tasks()] == [first.id, second.id]
    assert f"{{'101': 100}} {first.id}" in home.cluster.output(job)


@pytest.mark.credentials("gateway")
def test_programs_that_open_no_session_get_that_of_an_earlier_step(home: Lab) -> None:
    job = completed(
        home,
        f"{BATCH}srun {TASK} first.json\nsrun python upstream_qrmi.py\nsrun {TASK} second.json --final\n"
        "srun sh -c 'echo none: $ibm_fez_QRMI_JOB_ACQUISITION_TOKEN'\n",
    )

    # Upstream's program submits in the session that its step began with.
    (session,) = home.emulator.sessions()
    assert [task.session_id for task in home.emulator.tasks()] == [session.id] * 3
    assert "qrmi {'101': 100}" in home.cluster.output(job)
    assert home.cluster.output(job).splitlines()[-1].strip() == "none:"


@pytest.fixture(scope="module")
def admins_lab() -> Iterator[Lab]:
    """Hold sessions from the first task on, where users say nothing."""
    with Lab(CHECKOUT, defaults={"session": "task"}) as lab:
        lab.put(CHECKOUT / "contrib" / "seed")
        yield lab
        check_nothing_left(lab)


def test_the_admin_may_choose_it_for_all(admins_lab: Lab) -> None:
    job = admins_lab.submit(["job_split_hetjob.sh"], env={"TMPDIR": str(admins_lab.cluster.home())})
    assert admins_lab.wait(job) == "COMPLETED", admins_lab.cluster.output(job)

    assert kinds(admins_lab)[:2] == [EventKind.SESSION_OPENED, EventKind.TASK_QUEUED]
    (session,), (task,) = admins_lab.emulator.sessions(), admins_lab.emulator.tasks()
    assert task.queued_at - session.opened_at < 5
    comment = admins_lab.run(["scontrol", "show", "job", str(job)]).stdout
    assert '"hold":{"ibm_fez":"task"}' in comment.replace(" ", "")

    held = admins_lab.submit("#!/bin/sh\n#SBATCH --qpu=ibm_fez --qpu-session=job\ntrue\n")
    assert admins_lab.wait(held) == "COMPLETED"
    assert len(admins_lab.emulator.sessions()) == 2
