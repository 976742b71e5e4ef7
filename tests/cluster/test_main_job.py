# SPDX-License-Identifier: Apache-2.0
"""The project's reason: a job of the seed's kind, submitted to a real Slurm, from end to end."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from qpu_slurm_devkit.emulator import EventKind
from tests.requests_of_jobs import requests_of_jobs

if TYPE_CHECKING:
    from qpu_slurm_devkit.lab import Lab

SEED_DIRECTIVES = """\
#SBATCH --qpu=ibm_fez
#SBATCH --job-name=job_split_hetjob
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=1
#SBATCH --partition normal
#SBATCH hetjob
#SBATCH --gres=qpu:1
#SBATCH --qpu=ibm_fez
#SBATCH --partition quantum
"""

SEED_STEPS = """\
srun --het-group=0 python map_optimize.py
srun --het-group=1 task_runner ibm_fez sampler_input_ibm_fez.json sampler_output_ibm_fez.json
srun --het-group=0 python result.py sampler_output_ibm_fez.json
"""


def kinds(lab: Lab) -> list[EventKind]:
    return [event.kind for event in lab.emulator.events()]


def counts(output: str) -> dict[str, int]:
    found = re.search(r"register meas: \{(.*)\}", output)
    assert found, output
    return {bits: int(count) for bits, count in re.findall(r"'([01]+)': (\d+)", found[1])}


def check_distribution(output: str) -> None:
    """Three quarters of 10000 shots are 11111; six standard deviations are 260."""
    measured = counts(output)
    assert set(measured) == {"00000", "11111"}
    assert sum(measured.values()) == 10_000
    assert abs(measured["11111"] - 7500) < 260


@pytest.mark.credentials("gateway", "user", "shared")
def test_heterogeneous_job(lab: Lab) -> None:
    script = (lab.checkout / "contrib" / "seed" / "job_split_hetjob.sh").read_text()
    assert "\n".join(re.findall(r"^#SBATCH.*$", script, re.MULTILINE)) + "\n" == SEED_DIRECTIVES
    assert "\n".join(re.findall(r"^srun.*$", script, re.MULTILINE)) + "\n" == SEED_STEPS

    job = lab.submit(["job_split_hetjob.sh"])

    assert lab.wait(job) == "COMPLETED", lab.cluster.output(job)
    check_distribution(lab.cluster.output(job))
    assert kinds(lab) == [
        EventKind.SESSION_OPENED,
        EventKind.TASK_QUEUED,
        EventKind.SESSION_ACTIVE,
        EventKind.TASK_RUNNING,
        EventKind.TASK_DONE,
        EventKind.SESSION_CLOSED,
    ]
    (task,) = lab.emulator.tasks()
    assert task.tags[0].startswith(f"slurm-job:lab:{job}:")


def test_three_chained_jobs(lab: Lab) -> None:
    submission = lab.run(["bash", "submit.sh"])
    jobs = [int(line) for line in submission.stdout.split()]

    assert [lab.wait(job) for job in jobs] == ["COMPLETED"] * 3
    check_distribution(lab.cluster.output(jobs[-1]))


@pytest.mark.credentials("gateway", "user")
def test_session_is_in_every_step_of_both_components(lab: Lab) -> None:
    job = lab.submit(
        "#!/bin/bash\n#SBATCH --qpu=ibm_fez\n#SBATCH hetjob\n#SBATCH --qpu=ibm_fez\n"
        "#SBATCH --gres=qpu:1\n#SBATCH --partition=quantum\n"
        "echo script $ibm_fez_QRMI_JOB_ACQUISITION_TOKEN\n"
        "srun --het-group=0 sh -c 'echo step0 $ibm_fez_QRMI_JOB_ACQUISITION_TOKEN'\n"
        "srun --het-group=1 sh -c 'echo step1 $ibm_fez_QRMI_JOB_ACQUISITION_TOKEN'\n"
    )

    assert lab.wait(job) == "COMPLETED"
    (session,) = lab.emulator.sessions()
    assert lab.cluster.output(job).split("\n")[:3] == [
        f"{where} {session.id}" for where in ("script", "step0", "step1")
    ]


@pytest.mark.credentials("gateway", "user")
def test_option_on_the_second_component_only(lab: Lab) -> None:
    job = lab.submit(
        "#!/bin/bash\n#SBATCH hetjob\n#SBATCH --qpu=ibm_fez\n"
        "#SBATCH --gres=qpu:1\n#SBATCH --partition=quantum\n"
        "echo $ibm_fez_QRMI_JOB_ACQUISITION_TOKEN\n"
        "srun --het-group=1 sh -c 'echo $ibm_fez_QRMI_JOB_ACQUISITION_TOKEN'\n"
        "srun --het-group=0 sh -c 'echo $ibm_fez_QRMI_JOB_ACQUISITION_TOKEN'\n"
    )

    assert lab.wait(job) == "COMPLETED"
    (session,) = lab.emulator.sessions()
    assert lab.cluster.output(job).split() == [session.id] * 3


def test_session_lives_no_longer_than_its_job_can(lab: Lab) -> None:
    job = lab.submit("#!/bin/sh\n#SBATCH --qpu=ibm_fez --time=5\ntrue\n")

    assert lab.wait(job) == "COMPLETED"
    (session,) = lab.emulator.sessions()
    assert 290 <= session.max_ttl <= 300


@pytest.mark.parametrize("command", ["srun", "salloc"])
def test_interactive(lab: Lab, command: str) -> None:
    step = ["sh", "-c", "echo $ibm_fez_QRMI_JOB_ACQUISITION_TOKEN"]
    argv = ["srun", *step] if command == "srun" else ["salloc", "--qpu=ibm_fez", "srun", *step]
    if command == "srun":
        argv[1:1] = ["--qpu=ibm_fez"]

    done = lab.run(argv)

    (session,) = lab.emulator.sessions()
    assert (done.returncode, done.stdout.strip()) == (0, session.id), done.stderr


@pytest.mark.credentials("gateway", "user")
def test_two_qpus(lab: Lab) -> None:
    job = lab.submit(
        "#!/bin/sh\n#SBATCH --qpu=ibm_fez,ibm_torino\n"
        "echo $QRMI_JOB_QPU_RESOURCES\n"
        "echo $ibm_fez_QRMI_JOB_ACQUISITION_TOKEN $ibm_torino_QRMI_JOB_ACQUISITION_TOKEN\n"
    )

    assert lab.wait(job) == "COMPLETED"
    sessions = {session.backend: session.id for session in lab.emulator.sessions()}
    assert lab.cluster.output(job).split() == [
        "ibm_fez,ibm_torino",
        sessions["ibm_fez"],
        sessions["ibm_torino"],
    ]


@pytest.mark.credentials("gateway", "user", "shared")
@pytest.mark.parametrize("program", ["upstream_qrmi.py", "upstream_runtime.py"])
def test_upstream_programs_run_unchanged(lab: Lab, program: str) -> None:
    job = lab.submit(f"#!/bin/sh\n#SBATCH --qpu=ibm_fez\npython {program}\n")

    state, output = lab.wait(job, timeout=240), lab.cluster.output(job)
    assert state == "COMPLETED", output
    assert "{'101': 100}" in output
    (session,) = lab.emulator.sessions()
    assert {task.session_id for task in lab.emulator.tasks()} == {session.id}


@pytest.mark.parametrize("hold", ["job", "task"])
def test_a_first_program_that_names_no_session_runs_in_the_jobs(lab: Lab, hold: str) -> None:
    job = lab.submit(
        f"#!/bin/sh\n#SBATCH --qpu=ibm_fez --qpu-session={hold}\npython -W ignore getting_started.py\n"
    )

    state, output = lab.wait(job, timeout=180), lab.cluster.output(job)
    assert state == "COMPLETED", output
    assert output.splitlines()[-2:] == ["estimator [1, 1, 0]", "sampler ['00', '11']"]
    (session,) = lab.emulator.sessions()
    assert [task.session_id for task in lab.emulator.tasks()] == [session.id] * 2
    assert session.state == "closed"


@pytest.mark.credentials("gateway", "user")
def test_the_published_tutorials_programs_run_unchanged(lab: Lab) -> None:
    job = lab.submit(
        "#!/bin/bash\n"
        + SEED_DIRECTIVES
        + "set -e\n"
        + "srun --het-group=0 python -W ignore split_map_optimize.py\n"
        + "srun --het-group=1 task_runner ibm_fez published_input_ibm_fez.json published_output.json\n"
        + "srun --het-group=0 python -W ignore split_result.py published_output.json\n"
    )

    state, output = lab.wait(job, timeout=180), lab.cluster.output(job)
    assert state == "COMPLETED", output
    assert output.splitlines()[-1] == "{'101': 100}"
    (session,) = lab.emulator.sessions()
    assert [task.session_id for task in lab.emulator.tasks()] == [session.id]


def test_a_nested_submission_does_not_inherit(lab: Lab) -> None:
    outer = lab.submit(
        "#!/bin/sh\n#SBATCH --qpu=ibm_fez\n"
        "sbatch --parsable --wait --wrap='env | grep -c -e QRMI_ -e SPANK_QPU_SLURM'\n"
        "sbatch --parsable --wrap true --qpu=ibm_torino\n"
    )

    assert lab.wait(outer) == "COMPLETED"
    inner, with_own = (int(line) for line in lab.cluster.output(outer).split())
    lab.wait(inner)
    assert lab.wait(with_own) == "COMPLETED"
    assert lab.cluster.output(inner).strip() == "0"
    assert [session.backend for session in lab.emulator.sessions()] == ["ibm_fez", "ibm_torino"]


def test_a_job_without_a_qpu_does_not_notice(lab: Lab) -> None:
    job = lab.submit("#!/bin/sh\nenv | grep -e QRMI -e QISKIT_IBM_INSTANCE\n", env={"QISKIT_IBM_TOKEN": "x"})

    lab.wait(job)

    assert lab.cluster.output(job) == ""
    assert requests_of_jobs(lab.emulator) == []
    assert f'"job_id":{job}' not in lab.hook_log


def test_export_none(lab: Lab) -> None:
    job = lab.submit(
        "#!/bin/sh\n#SBATCH --qpu=ibm_fez --export=NONE\necho $ibm_fez_QRMI_JOB_ACQUISITION_TOKEN\n"
    )

    assert lab.wait(job) == "COMPLETED"
    (session,) = lab.emulator.sessions()
    assert lab.cluster.output(job).strip() == session.id
