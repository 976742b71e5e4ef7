# SPDX-License-Identifier: Apache-2.0
"""What the plugin tells of a job's steps, and what it makes of what it is told about them."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import psutil
import pytest

from qpu_slurm.names import STEP_NAME
from tests.cluster.stage import wait_for

if TYPE_CHECKING:
    from tests.cluster.stage import Stage


def test_each_step_is_told_of_once_with_its_program(stage: Stage) -> None:
    stage.cluster.home().joinpath("result.py").write_text("import time\ntime.sleep(0.2)\n")
    job = stage.cluster.submit(
        "#!/bin/sh\n#SBATCH --qpu=ibm_fez --nodes=2\n"
        "srun hostname\n"
        "srun --nodes=1 --ntasks=1 --relative=1 /usr/bin/python3 result.py\n"
        "srun --ntasks=2 sh -c 'exit 1'\n"
        "true\n"
    )
    assert stage.cluster.wait(job) == "COMPLETED"
    reports = stage.ended(job, 4)
    starts = [(report.step, report.name) for report in reports if report.command == "job-env"]
    assert starts == [("batch", "batch"), ("0", "hostname"), ("1", "result.py"), ("2", "sh")]
    ends = [report.step for report in reports if report.command == "step-end"]
    assert sorted(ends) == ["0", "1", "2", "batch"]
    # The second node of the first and the last step asks, and has nothing to tell.
    assert [call for call in stage.asked(job) if len(call) == 2] == [["job-env", str(job)]] * 2
    time_of = {(report.command, report.step): report.at for report in reports}
    order = [
        ("job-env", "batch"),
        *((command, step) for step in "012" for command in ("job-env", "step-end")),
        ("step-end", "batch"),
    ]
    assert [time_of[key] for key in order] == sorted(time_of.values())
    assert time_of["step-end", "1"] - time_of["job-env", "1"] >= 0.2


def test_steps_of_all_components_have_numbers_of_their_own(stage: Stage) -> None:
    job = stage.cluster.submit(
        "#!/bin/sh\n#SBATCH --qpu=ibm_fez\n#SBATCH hetjob\n#SBATCH --partition=quantum\n"
        "srun --het-group=0 hostname\nsrun --het-group=1 sleep 0\nsrun --het-group=0 true\n"
    )
    assert stage.cluster.wait(job) == "COMPLETED"
    leader, other = stage.ended(job, 3), stage.ended(job + 1, 1)
    assert {(report.step, report.name) for report in leader if report.name} == {
        ("batch", "batch"),
        ("0", "hostname"),
        ("2", "true"),
    }
    assert [(report.command, report.step, report.name) for report in other] == [
        ("job-env", "1", "sleep"),
        ("step-end", "1", ""),
    ]


def test_interactive_steps_are_told_of(stage: Stage) -> None:
    done = stage.cluster.run(["salloc", "--qpu=ibm_fez", "srun", "sh", "-c", "echo $SLURM_JOB_ID"])
    job = int(done.stdout)
    assert [(report.command, report.step, report.name) for report in stage.ended(job, 1)] == [
        ("job-env", "0", "sh"),
        ("step-end", "0", ""),
    ]


def test_a_step_that_is_cancelled_or_cannot_run_has_ended_too(stage: Stage) -> None:
    job = stage.cluster.submit("#!/bin/sh\n#SBATCH --qpu=ibm_fez\nsrun ./nowhere\nsrun sleep 300\n")
    wait_for(lambda: "1" in [report.step for report in stage.reports(job)])
    stage.cluster.run(["scancel", str(job)])
    assert stage.cluster.wait(job) == "CANCELLED"
    ends = [report.step for report in stage.ended(job, 3) if report.command == "step-end"]
    assert sorted(ends) == ["0", "1", "batch"]


@pytest.mark.parametrize("answer", [b"", b"error: not this one\n", b"LD_PRELOAD=/x.so\n"])
def test_the_end_of_a_step_that_has_no_qpu_is_not_told(stage: Stage, answer: bytes) -> None:
    stage.answer(answer)
    job = stage.cluster.submit("#!/bin/sh\n#SBATCH --qpu=ibm_fez\nsrun true\n")
    stage.cluster.wait(job)
    stage.answer(None)
    later = stage.cluster.submit("#!/bin/sh\n#SBATCH --qpu=ibm_fez\ntrue\n")
    stage.cluster.wait(later)
    stage.ended(later, 1)
    assert [report.command for report in stage.reports(job) if report.command == "step-end"] == []


def test_nobody_waits_for_the_end_of_a_step_to_be_told(stage: Stage) -> None:
    stage.hang()
    job = stage.cluster.submit("#!/bin/sh\n#SBATCH --qpu=ibm_fez\nsrun true\nsrun true\n")
    assert stage.cluster.wait(job) == "COMPLETED"
    stage.cluster.wait_until_idle()
    left = stage.hanging()
    # The job is over and its slurmstepd gone. The last one is there still, for some seconds.
    assert len(left) >= 1
    psutil.wait_procs(left, timeout=240)
    assert stage.hanging() == []


@pytest.mark.parametrize("name", ["x" * 300, "--step", "été $(touch pwned) ;", "a\nb"])
def test_a_program_of_any_name_has_one_that_harms_nobody(stage: Stage, name: str) -> None:
    program = stage.cluster.home() / name[:200]
    shutil.copy("/usr/bin/true", program)
    program.chmod(0o755)
    job = stage.cluster.submit(
        ["--qpu=ibm_fez", "--wrap", 'srun "./$PROGRAM"'], env={"PROGRAM": program.name}
    )
    assert stage.cluster.wait(job) == "COMPLETED", stage.cluster.output(job)
    (start,) = (report for report in stage.ended(job, 2) if report.step == "0" and report.name)
    assert STEP_NAME.fullmatch(start.name)
    assert not list(stage.cluster.home().glob("pwned"))


ANSWERS = {
    "too much": (b"IAM_URL=" + b"x" * 100_000 + b"\n", "its output is too long"),
    "a megabyte of lines": (b"IAM_URL=x\n" * 100_000, "its output is too long"),
    "no text": (b"\xff\xfe\n", "is neither NAME=value nor an error"),
    "a NUL": (b"IAM_URL=\0\n", "its output contains a NUL"),
}


@pytest.mark.parametrize(("answer", "sentence"), ANSWERS.values(), ids=ANSWERS)
def test_a_helper_that_says_nonsense_ends_the_job_with_a_sentence(
    stage: Stage, answer: bytes, sentence: str
) -> None:
    stage.answer(answer)
    job = stage.cluster.submit("#!/bin/sh\n#SBATCH --qpu=ibm_fez\necho ran\n")
    assert stage.cluster.wait(job) == "FAILED"
    said = stage.cluster.output(job)
    assert said.startswith("qpu_slurm: the QPU cannot be used on ")
    assert sentence in said
    assert said.count("\n") == 1


@pytest.mark.parametrize("export", ["ALL", "NONE", "NIL", "X=y"])
def test_a_job_that_sbatch_submits_without_a_qpu_costs_no_question(stage: Stage, export: str) -> None:
    script = "#!/bin/sh\nexec /usr/bin/srun /usr/bin/true\n"
    (stage.cluster.home() / "plain.sh").write_text(script)
    job = stage.cluster.submit([f"--export={export}", str(stage.cluster.home() / "plain.sh")])
    assert stage.cluster.wait(job) == "COMPLETED"
    assert stage.asked(job) == []
