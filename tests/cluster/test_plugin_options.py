# SPDX-License-Identifier: Apache-2.0
"""What users write behind --qpu and --qpu-session, wherever they may, and what of it reaches the hooks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from qpu_slurm.errors import SlurmError

if TYPE_CHECKING:
    from tests.cluster.stage import Stage

HET = "#SBATCH hetjob\n"

HOLDS = {
    "with --qpu": ("#SBATCH --qpu=ibm_fez --qpu-session=task\n", ["task"]),
    "as it is anyway": ("#SBATCH --qpu=ibm_fez --qpu-session=job\n", ["job"]),
    "not said": ("#SBATCH --qpu=ibm_fez\n", [None]),
    "with a gres alone": ("#SBATCH --gres=qpu:1 --partition=quantum --qpu-session=task\n", ["task"]),
    "--export=NONE": ("#SBATCH --qpu=ibm_fez --qpu-session=task --export=NONE\n", ["task"]),
    "the last one counts": ("#SBATCH --qpu-session=task\n#SBATCH --qpu-session=job\n", ["job"]),
    # As with every option of a plugin, what the first component says is said for those after it.
    "the first component": (f"#SBATCH --qpu=ibm_fez --qpu-session=task\n{HET}", ["task", "task"]),
    "the second component": (f"#SBATCH --qpu=ibm_fez\n{HET}#SBATCH --qpu-session=task\n", [None, "task"]),
    "the second component alone": (
        f"{HET}#SBATCH --qpu=ibm_fez --qpu-session=task --gres=qpu:1 --partition=quantum\n",
        [None, "task"],
    ),
}


@pytest.mark.parametrize(("options", "holds"), HOLDS.values(), ids=HOLDS)
def test_the_hook_learns_how_long_a_session_is_open(
    stage: Stage, options: str, holds: list[str | None]
) -> None:
    job = stage.cluster.submit(f"#!/bin/sh\n{options}srun /bin/true\n")
    assert stage.cluster.wait(job) == "COMPLETED", stage.cluster.output(job)
    assert [stage.hold(job + offset) for offset in range(len(holds))] == holds


def test_so_it_does_from_the_command_line(stage: Stage) -> None:
    quantum = ["--partition=quantum", "--qpu=ibm_fez", "--qpu-session=task"]
    job = stage.cluster.submit(["--partition=normal", "--wrap=true", ":", *quantum])
    assert stage.cluster.wait(job) == "COMPLETED"
    assert [stage.hold(job), stage.hold(job + 1)] == [None, "task"]
    for command in (["srun", *quantum], ["salloc", *quantum, "srun"]):
        done = stage.cluster.run([*command, "sh", "-c", "echo $SLURM_JOB_ID"])
        assert done.returncode == 0, done.stderr
        assert stage.hold(int(done.stdout)) == "task"


REFUSED = {
    "nothing": "",
    "no such way": "session",
    "in other letters": "Task",
    "both": "job,task",
    "a line more": "task\nx",
    "a terminal's": "\x1b[2J",
    "a format": "%n%s%n",
    "no text": "\udcff\udcfe",
    "as long as Linux lets it be": "task" * 32_000,
}


@pytest.mark.parametrize("option", ["--qpu-session", "--qpu"])
@pytest.mark.parametrize("value", REFUSED.values(), ids=REFUSED)
@pytest.mark.parametrize("command", ["sbatch", "srun", "salloc"])
def test_a_value_that_is_none_is_refused_with_a_sentence(
    stage: Stage, command: str, value: str, option: str
) -> None:
    rest = ["--wrap=true"] if command == "sbatch" else ["true"]
    done = stage.cluster.run([command, f"{option}={value}", *rest])
    assert done.returncode != 0
    # What Slurm says besides is Slurm's.
    (said,) = (line for line in done.stderr.splitlines() if f"qpu_slurm: {option}: " in line)
    assert said.isprintable()
    assert len(said) < 300


@pytest.mark.parametrize("option", ["--qpu-session", "--qpu"])
def test_a_script_may_hold_whatever(stage: Stage, option: str) -> None:
    with pytest.raises(SlurmError, match=f"qpu_slurm: {option}: "):
        stage.cluster.submit(f"#!/bin/sh\n#SBATCH {option}={'task' * 250_000}\ntrue\n")


def test_a_nested_submission_says_it_for_itself(stage: Stage) -> None:
    outer = stage.cluster.submit(
        "#!/bin/sh\n#SBATCH --qpu=ibm_fez --qpu-session=task\n"
        "sbatch --parsable --wrap 'env | grep SPANK' --qpu=ibm_torino\n"
        "sbatch --parsable --wrap 'env | grep SPANK'\n"
        "sbatch --parsable --wrap true --qpu-session=job --qpu=ibm_torino\n"
    )
    assert stage.cluster.wait(outer) == "COMPLETED"
    own, none, other = (int(line) for line in stage.cluster.output(outer).split())
    for job in (own, none, other):
        stage.cluster.wait(job)
    assert [stage.hold(job) for job in (outer, own, none, other)] == ["task", None, None, "job"]
    assert "HOLD" not in stage.cluster.output(own)
    assert stage.cluster.output(none) == ""


def test_what_a_user_forges_is_forgotten_at_submission(stage: Stage) -> None:
    forged = {
        "SLURM_SPANK_QPU_SLURM_SESSION": "task",
        "SLURM_SPANK_QPU_SLURM_QPU": "ibm_torino",
        "SLURM_SPANK__SLURM_SPANK_OPTION_qpu_slurm_qpu_session": "task",
        "SLURM_SPANK__SLURM_SPANK_OPTION_qpu_slurm_qpu": "ibm_torino",
        "_SLURM_SPANK_OPTION_qpu_slurm_qpu_session": "task",
        "_SLURM_SPANK_OPTION_qpu_slurm_qpu": "ibm_torino",
        "SPANK_QPU_SLURM_SESSION": "task",
        "SPANK_QPU_SLURM_QPU": "ibm_torino",
    }
    for argv in (["sbatch", "--wait", "--wrap=true"], ["srun", "true"], ["salloc", "true"]):
        done = stage.cluster.run(argv, env=forged)
        assert done.returncode == 0, done.stderr
    newest = max(int(path.name) for path in (stage.cluster.directory / "stage" / "hooks").iterdir())
    for job in range(newest - 2, newest + 1):
        seen = (stage.cluster.directory / "stage" / "hooks" / str(job)).read_text()
        assert "QPU_SLURM" not in seen
        assert "OPTION_qpu_slurm" not in seen
        assert stage.asked(job) == []


def test_a_step_in_a_job_takes_its_jobs_options_or_its_own(stage: Stage) -> None:
    job = stage.cluster.submit(
        "#!/bin/sh\n#SBATCH --qpu=ibm_fez --qpu-session=task\n"
        "srun sh -c 'echo $SLURM_SPANK_QPU_SLURM_SESSION'\n"
        "srun --qpu-session=job sh -c 'echo $SLURM_SPANK_QPU_SLURM_SESSION'\n"
        "srun --qpu-session=perhaps echo ran || echo refused\n"
    )
    assert stage.cluster.wait(job) == "COMPLETED"
    lines = stage.cluster.output(job).splitlines()
    # On a busy machine srun says that it has to wait for the step before.
    assert [line for line in lines if not line.startswith("srun: ")] == ["task", "task", "refused"]
    assert any("qpu_slurm: --qpu-session: 'perhaps'" in line for line in lines)
    assert stage.hold(job) == "task"
