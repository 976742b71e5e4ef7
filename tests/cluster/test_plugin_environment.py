# SPDX-License-Identifier: Apache-2.0
"""The variables that a step's programs see, wherever the step was started."""

from __future__ import annotations

import re
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.cluster.stage import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from subprocess import CompletedProcess

    from tests.cluster.stage import Stage

RESOURCES = b"QRMI_JOB_QPU_RESOURCES=ibm_fez\nSLURM_JOB_QPU_RESOURCES=ibm_fez\n"
SESSION = b"ibm_fez_QRMI_JOB_ACQUISITION_TOKEN=first\n"

PAUSE = "echo ready\nwhile [ ! -e go ]; do sleep 0.1; done\n"


@pytest.fixture
def home(stage: Stage) -> Iterator[Stage]:
    """Return the stage; the file that lets a script go on is not there yet."""
    go = stage.cluster.home() / "go"
    go.unlink(missing_ok=True)
    yield stage
    go.touch()


def go_on(stage: Stage, job: int, answer: bytes) -> str:
    """Have a job that waits in `PAUSE` go on with another answer of the helper; return what it printed."""
    wait_for(lambda: "ready" in stage.cluster.output(job))
    stage.answer(answer)
    (stage.cluster.home() / "go").touch()
    assert stage.cluster.wait(job) == "COMPLETED", stage.cluster.output(job)
    said = stage.cluster.output(job).partition("ready\n")[2]
    # On a busy machine srun may have to wait until the last step's node has noticed its end, and says so.
    return "".join(line for line in said.splitlines(keepends=True) if not line.startswith("srun: "))


def submit(stage: Stage, script: str, answer: bytes, options: str = "--qpu=ibm_fez") -> int:
    stage.answer(answer)
    return stage.cluster.submit(f"#!/bin/bash\n#SBATCH {options}\n{PAUSE}{script}")


# What a step inherits.


def test_a_step_does_not_inherit_what_is_no_longer_true(home: Stage) -> None:
    job = submit(home, "srun sh -c 'env | grep QRMI | sort'\n", RESOURCES + SESSION)
    assert go_on(home, job, RESOURCES).splitlines() == ["QRMI_JOB_QPU_RESOURCES=ibm_fez"]


def test_a_step_gets_what_is_true_now(home: Stage) -> None:
    job = submit(home, "srun sh -c 'echo $ibm_fez_QRMI_JOB_ACQUISITION_TOKEN'\n", RESOURCES + SESSION)
    assert go_on(home, job, RESOURCES + SESSION.replace(b"first", b"second")) == "second\n"


def test_what_a_user_has_set_stays(home: Stage) -> None:
    own = {
        "ibm_fez_QRMI_IBM_QCS_SESSION_ID": "mine",
        "garnet_QRMI_IQM_ISA_TOKEN": "mine",
        "QISKIT_IBM_RUNTIME_LOG_LEVEL": "mine",
        "QISKIT_IBM_TOKEN": "mine",
    }
    exports = "".join(f"export {name}={value}\n" for name, value in own.items() if name != "QISKIT_IBM_TOKEN")
    job = submit(home, f"{exports}srun sh -c 'env | grep =mine | sort'\n", RESOURCES + SESSION)
    seen = go_on(home, job, RESOURCES).splitlines()
    assert seen == sorted(f"{name}=mine" for name in own if name != "QISKIT_IBM_TOKEN")

    # A job that has no QPU keeps all of it, also where the helper is asked.
    go = home.cluster.home() / "go"
    go.unlink()
    script = f"{exports}export QISKIT_IBM_TOKEN=mine\nsrun sh -c 'env | grep =mine | sort'\n"
    job = submit(home, script, b"", "--partition=quantum")
    assert go_on(home, job, b"").splitlines() == sorted(f"{name}=mine" for name in own)


def test_the_gateways_authority_is_trusted_unless_the_user_names_another(home: Stage) -> None:
    script = (
        "unset REQUESTS_CA_BUNDLE SSL_CERT_FILE\n"
        "srun sh -c 'echo $REQUESTS_CA_BUNDLE $SSL_CERT_FILE'\n"
        "REQUESTS_CA_BUNDLE=/mine srun sh -c 'echo $REQUESTS_CA_BUNDLE $SSL_CERT_FILE'\n"
    )
    trust = b"REQUESTS_CA_BUNDLE=/etc/ca.pem\nSSL_CERT_FILE=/etc/ca.pem\n"
    job = submit(home, script, RESOURCES)
    assert go_on(home, job, RESOURCES + trust).splitlines() == [
        "/etc/ca.pem /etc/ca.pem",
        "/mine /etc/ca.pem",
    ]


def test_a_program_can_tell_where_the_plugin_ran_and_which_step_it_is(home: Stage) -> None:
    marks = "${QPU_SLURM_NODE:+node} $QPU_SLURM_STEP"
    home.answer(RESOURCES)
    job = home.cluster.submit(
        f"#!/bin/sh\n#SBATCH --qpu=ibm_fez --nodes=2\necho batch {marks}\n"
        f"srun --ntasks=2 sh -c 'echo $SLURM_NODEID {marks}' | sort\n"
    )
    assert home.cluster.wait(job) == "COMPLETED", home.cluster.output(job)
    # Its first node reports that a step has ended.
    batch, first, second = home.cluster.output(job).splitlines()
    assert re.fullmatch(rf"0 node {job}\.0\.[0-9a-f]{{16}}", first)
    assert (batch, second) == ("batch node", "1 node")


# Steps that are started from outside of their job.


@contextmanager
def allocation(stage: Stage, *options: str) -> Iterator[int]:
    """Have a job of salloc's without a shell."""
    done = stage.cluster.run(["salloc", "--no-shell", *options])
    assert done.returncode == 0, done.stderr
    job = int(done.stderr.partition("Granted job allocation ")[2].split()[0])
    try:
        yield job
    finally:
        stage.cluster.run(["scancel", str(job)])
        stage.cluster.wait(job)


def attach(stage: Stage, job: int, *options: str, **environ: str) -> CompletedProcess[str]:
    """Run a step in a job from outside of it."""
    command = [
        "/bin/sh",
        "-c",
        "echo resources: $QRMI_JOB_QPU_RESOURCES; /usr/bin/env | /bin/grep -c QRMI_JOB_ACQ",
    ]
    return stage.cluster.run(["srun", *(options or (f"--jobid={job}",)), *command], env=environ)


def test_a_step_in_a_job_without_a_shell_has_its_variables(stage: Stage) -> None:
    stage.answer(RESOURCES + SESSION)
    with allocation(stage, "--qpu=ibm_fez") as job:
        for options in ([f"--jobid={job}"], ["--jobid", str(job), "--export=NONE"], [f"--jobi={job}"]):
            done = attach(stage, job, *options)
            assert (done.returncode, done.stdout) == (0, "resources: ibm_fez\n1\n"), done.stderr
        done = attach(stage, job, "--overlap", SLURM_JOB_ID=str(job))
        assert (done.returncode, done.stdout) == (0, "resources: ibm_fez\n1\n"), done.stderr


def test_a_second_terminal_in_a_running_job_has_its_variables(home: Stage) -> None:
    job = submit(home, "", RESOURCES + SESSION)
    wait_for(lambda: "ready" in home.cluster.output(job))
    done = attach(home, job, f"--jobid={job}", "--overlap")
    assert (done.returncode, done.stdout) == (0, "resources: ibm_fez\n1\n"), done.stderr
    # What another job has left in the terminal does not count.
    home.answer(b"")
    other = {"QRMI_JOB_QPU_RESOURCES": "ibm_fez", "SLURM_JOB_QPU_RESOURCES": "ibm_fez"}
    other["ibm_fez_QRMI_JOB_ACQUISITION_TOKEN"] = "other"
    done = attach(
        home, job, f"--jobid={job}", "--overlap", SLURM_JOB_ID="1", SLURM_JOB_NODELIST="c1", **other
    )
    assert done.stdout == "resources:\n0\n", done.stderr
    (home.cluster.home() / "go").touch()
    assert home.cluster.wait(job) == "COMPLETED"


def test_a_job_without_a_qpu_has_none_for_a_second_terminal_either(stage: Stage) -> None:
    stage.answer(b"")
    with allocation(stage) as job:
        assert attach(stage, job).stdout == "resources:\n0\n"


def test_a_direct_srun_that_asks_for_nothing_asks_nobody(stage: Stage) -> None:
    marks = "env | grep -c -e QPU_SLURM_NODE -e QPU_SLURM_STEP -e QPU_SLURM_ATTACHED"
    done = stage.cluster.run(["srun", "sh", "-c", f"echo $SLURM_JOB_ID; {marks}"])
    job, count = done.stdout.split()
    assert stage.asked(int(job)) == []
    assert count == "0"


@pytest.mark.parametrize("asked", ["ibm_torino", "ibm_fez,ibm_torino"])
def test_a_step_gets_no_qpu_of_its_own(stage: Stage, asked: str) -> None:
    stage.answer(RESOURCES + SESSION)
    with allocation(stage, "--qpu=ibm_fez") as job:
        done = attach(stage, job, f"--jobid={job}", f"--qpu={asked}")
        assert done.returncode != 0
        assert done.stdout == ""
        (said,) = (line for line in done.stderr.splitlines() if "qpu_slurm: " in line)
        assert said.endswith(
            "qpu_slurm: --qpu: this job does not have ibm_torino; it has ibm_fez. "
            "A job gets its QPUs when it is submitted, and a step needs no --qpu."
        )
        held = attach(stage, job, f"--jobid={job}", "--qpu=ibm_fez")
        assert held.stdout == "resources: ibm_fez\n1\n", held.stderr


def test_a_job_without_a_qpu_gets_none_by_a_step(stage: Stage) -> None:
    stage.answer(b"")
    with allocation(stage) as job:
        done = attach(stage, job, f"--jobid={job}", "--qpu=ibm_fez")
        assert done.returncode != 0
        assert "this job does not have ibm_fez; it has no QPU." in done.stderr
    job = stage.cluster.submit("#!/bin/sh\nsrun --qpu=ibm_fez echo ran\n")
    assert stage.cluster.wait(job) == "FAILED"
    assert "this job does not have ibm_fez; it has no QPU." in stage.cluster.output(job)
    assert "ran" not in stage.cluster.output(job)


# How a step has ended.


@pytest.mark.parametrize(
    ("end", "failed"),
    [(":", False), ("exit 3", True), ("kill -KILL $$", True)],
)
def test_a_step_that_fails_may_have_left_tasks(stage: Stage, end: str, *, failed: bool) -> None:
    job = stage.cluster.submit(
        f"#!/bin/sh\n#SBATCH --qpu=ibm_fez\nsrun sh -c 'echo $QPU_SLURM_STEP >mark; {end}' || true\n"
    )
    assert stage.cluster.wait(job) == "COMPLETED", stage.cluster.output(job)
    # Not by srun, which loses what a task that is killed has said last (26.05).
    mark = (stage.cluster.home() / "mark").read_text().strip()
    assert mark.startswith(f"{job}.0.")
    ends = {report.step: report.cancel for report in stage.ended(job, 2) if report.command == "step-end"}
    assert ends == {"batch": "", "0": mark if failed else ""}


def test_a_step_that_srun_kills_may_have_left_tasks(stage: Stage) -> None:
    job = stage.cluster.submit("#!/bin/sh\n#SBATCH --qpu=ibm_fez\ntrap : TERM\nsrun sleep 300\nsleep 1\n")
    wait_for(lambda: "0" in [report.step for report in stage.reports(job)])
    time.sleep(0.5)
    stage.cluster.run(["scancel", "--signal=TERM", "--full", str(job)])
    stage.cluster.wait(job)
    (end,) = (r for r in stage.ended(job, 2) if (r.command, r.step) == ("step-end", "0"))
    assert end.cancel.startswith(f"{job}.0.")
