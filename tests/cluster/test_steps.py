# SPDX-License-Identifier: Apache-2.0
"""What a job's steps do with its QPU, wherever they come from and however they end."""

from __future__ import annotations

import shutil
import time
from typing import TYPE_CHECKING

import psutil
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qpu_slurm_devkit.emulator import Emulator
    from qpu_slurm_devkit.lab import Lab

BATCH = "#!/bin/bash\n#SBATCH --qpu=ibm_fez --time=5\n"
TASK = "task_runner ibm_fez sampler_input_ibm_fez.json"


@pytest.fixture(scope="session")
def transpiled(shared_lab: Lab) -> None:
    """Have an input in the user's home, so that the jobs here need not transpile one."""
    job = shared_lab.submit("#!/bin/sh\n#SBATCH --qpu=ibm_fez\npython map_optimize.py\n")
    assert shared_lab.wait(job) == "COMPLETED", shared_lab.cluster.output(job)


@pytest.fixture
def home(lab: Lab, transpiled: None) -> Iterator[Lab]:
    """Return the lab; the file that lets a script go on is not there yet."""
    assert transpiled is None
    go = lab.cluster.home() / "go"
    go.unlink(missing_ok=True)
    yield lab
    go.touch()


def completed(lab: Lab, script: str) -> str:
    """Return the output of a job that has to complete."""
    job = lab.submit(f"{BATCH}{script}", env={"TMPDIR": str(lab.cluster.home())})
    assert lab.wait(job) == "COMPLETED", lab.cluster.output(job)
    return lab.cluster.output(job)


def statuses(emulator: Emulator) -> list[str]:
    return [task.status for task in emulator.tasks()]


# A session that was closed before the job's end.

ACQUIRES = "srun python upstream_qrmi_acquire.py\n"
PLAIN = "srun python upstream_qrmi.py\n"


def test_a_program_that_acquires_and_releases_runs_twice_in_a_job(home: Lab) -> None:
    output = completed(home, f"set -e\n{ACQUIRES}{ACQUIRES}")

    assert output.count("qrmi {'101': 100}") == 2
    first, second = home.emulator.tasks()
    assert (first.status, second.status) == ("Completed", "Completed")
    assert first.session_id != second.session_id


def test_programs_of_others_run_after_the_last_task(home: Lab) -> None:
    output = completed(
        home, f"set -e\nsrun {TASK} first.json --final\n{ACQUIRES}srun {TASK} last.json\n{ACQUIRES}"
    )

    assert output.count("qrmi {'101': 100}") == 2
    assert [task.status for task in home.emulator.tasks()] == ["Completed"] * 4


def test_a_program_that_asks_for_no_session_gets_one_as_well(home: Lab) -> None:
    output = completed(home, f"set -e\nsrun {TASK} first.json --final\n{PLAIN}{PLAIN}")

    assert output.count("qrmi {'101': 100}") == 2
    first, second, third = home.emulator.tasks()
    assert first.session_id != second.session_id == third.session_id


# Steps from outside of their job.


@pytest.mark.credentials("gateway", "user", "shared")
def test_a_step_from_a_login_host_executes_in_the_jobs_session(home: Lab) -> None:
    done = home.run(["salloc", "--no-shell", "--qpu=ibm_fez", "--time=5"])
    assert done.returncode == 0, done.stderr
    job = done.stderr.partition("Granted job allocation ")[2].split()[0]
    call = ["task_runner", "ibm_fez", "sampler_input_ibm_fez.json", "attached.json"]
    try:
        first = home.run(["srun", f"--jobid={job}", *call])
        second = home.run(["srun", f"--jobid={job}", "--overlap", *call])
        other = home.run(["srun", f"--jobid={job}", "--qpu=ibm_torino", "task_runner", "--version"])
    finally:
        home.run(["scancel", job])

    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    (session,) = home.emulator.sessions()
    assert [task.session_id for task in home.emulator.tasks()] == [session.id] * 2
    assert other.returncode != 0
    assert "qpu_slurm: --qpu: this job does not have ibm_torino; it has ibm_fez." in other.stderr
    assert home.wait(int(job)) in {"CANCELLED", "COMPLETED"}


# What a step that is killed leaves on the QPU.

WAIT = "touch ready\nwhile [ ! -e go ]; do sleep 0.1; done\n"


def start_waiting_task(lab: Lab, step: str, then: str) -> int:
    """Start a job with a step whose task waits in the QPU's queue; return the job when the task does."""
    home = lab.cluster.home()
    for name in ("ready", "submit"):
        (home / name).unlink(missing_ok=True)
    wait = WAIT.replace("go", "submit")
    script = f"{BATCH}trap : TERM\n{wait}{step}\necho step: $?\n{then}"
    job = lab.submit(script, env={"TMPDIR": str(home)})
    lab.emulator.wait_for(lambda _: (home / "ready").exists(), seconds=60)
    # The job has its session; from now on, tasks are taken and not executed.
    lab.emulator.set_backend("ibm_fez", "paused", "Back soon.")
    (home / "submit").touch()
    lab.emulator.wait_for(lambda emulator: statuses(emulator) == ["Queued"], seconds=60)
    return job


def kill_task_runner(lab: Lab) -> None:
    """Kill the task_runner of the job of this lab, as the kernel does where memory is short."""
    home = str(lab.cluster.home())
    (process,) = (
        process
        for process in psutil.process_iter(["cmdline", "cwd"])
        if process.info["cwd"] == home and "killed.json" in (process.info["cmdline"] or ())
    )
    process.kill()


@pytest.mark.credentials("gateway", "user", "shared")
def test_the_task_of_a_step_that_srun_kills_is_cancelled(home: Lab) -> None:
    job = start_waiting_task(home, f"srun {TASK} killed.json", WAIT)
    home.run(["scancel", "--signal=TERM", "--full", str(job)])

    home.emulator.wait_for(lambda emulator: statuses(emulator) == ["Cancelled"], seconds=30)
    # It is the step that has ended, and the job that goes on.
    assert "RUNNING" in home.run(["squeue", f"--jobs={job}", "--format=%T"]).stdout
    home.emulator.set_backend("ibm_fez")
    (home.cluster.home() / "go").touch()
    assert home.wait(job) == "COMPLETED", home.cluster.output(job)


def test_the_task_of_a_task_runner_that_is_killed_is_cancelled(home: Lab) -> None:
    job = start_waiting_task(home, f"srun bash -c '{TASK} killed.json; exit $?'", WAIT)
    kill_task_runner(home)

    home.emulator.wait_for(lambda emulator: statuses(emulator) == ["Cancelled"], seconds=30)
    home.emulator.set_backend("ibm_fez")
    (home.cluster.home() / "go").touch()
    assert home.wait(job) == "COMPLETED", home.cluster.output(job)
    assert "step: 137" in home.cluster.output(job)


def test_a_task_that_may_go_on_is_taken_up_by_the_next_call(home: Lab) -> None:
    """With `--output-dir`, the next call goes on with the task of one that was killed."""
    results = home.cluster.home() / "results"
    shutil.rmtree(results, ignore_errors=True)
    call = "task_runner ibm_fez --output-dir results sampler_input_ibm_fez.json"
    job = start_waiting_task(home, f"srun {call}", f"{WAIT}srun {call}\n")
    home.run(["scancel", "--signal=TERM", "--full", str(job)])
    home.emulator.wait_for(lambda _: "step: " in home.cluster.output(job), seconds=30)
    home.emulator.set_backend("ibm_fez")
    (home.cluster.home() / "go").touch()

    assert home.wait(job) == "COMPLETED", home.cluster.output(job)
    assert statuses(home.emulator) == ["Completed"]
    assert (results / "sampler_input_ibm_fez.json").exists()


def test_the_task_of_another_step_goes_on(home: Lab) -> None:
    job = start_waiting_task(home, f"srun --overlap {TASK} kept.json & sleep 1", f"srun false\n{WAIT}wait\n")
    home.emulator.wait_for(lambda _: "error" in home.cluster.output(job), seconds=30)
    # Its own request is made within some seconds, if it is.
    time.sleep(3)
    assert statuses(home.emulator) == ["Queued"]
    home.emulator.set_backend("ibm_fez")
    (home.cluster.home() / "go").touch()
    assert home.wait(job) == "COMPLETED", home.cluster.output(job)
    assert statuses(home.emulator) == ["Completed"]
