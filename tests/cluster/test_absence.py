# SPDX-License-Identifier: Apache-2.0
"""Where there is no QPU, each way to get there is told by its own sentence."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from qpu_slurm_devkit.lab import Lab
    from tests.cluster.stage import Stage

REFUSED = 3
CALL = ["task_runner", "ibm_fez", "input.json", "output.json"]


@pytest.fixture
def home(lab: Lab) -> Lab:
    """Return the lab; there is an input in the user's home."""
    path = lab.cluster.home() / "input.json"
    path.write_text(
        '{"program_id": "sampler", "parameters": {"version": 2, "support_qiskit": false, "pubs": [["OPENQASM '
        '3.0; include \\"stdgates.inc\\"; bit[1] c; x $0; c[0] = measure $0;", null, 10]]}}'
    )
    path.chmod(0o644)
    return lab


def said(output: str) -> str:
    """Return what task_runner gives as the reason."""
    (sentence, *rest) = (line for line in output.splitlines() if line.startswith("task_runner: "))
    assert rest == ["task_runner: nothing was submitted"], output
    return sentence.removeprefix("task_runner: ")


def test_outside_of_any_job(home: Lab) -> None:
    done = home.run(CALL)

    assert done.returncode == REFUSED
    assert said(done.stderr).startswith("This is not in a Slurm job. Submit it with `sbatch --qpu=NAME")


def test_in_the_shell_of_salloc_on_a_login_host(home: Lab) -> None:
    done = home.run(["salloc", "--qpu=ibm_fez", "sh", "-c", f"{' '.join(CALL)}; srun {' '.join(CALL)}"])

    lines = [line for line in done.stderr.splitlines() if line.startswith("task_runner: ")]
    assert "is not in a step of job" in lines[0]
    assert lines[0].endswith("Run `srun task_runner …`.")
    assert done.returncode == 0, done.stderr
    assert [task.status for task in home.emulator.tasks()] == ["Completed"]


def test_in_an_environment_that_was_cleared(home: Lab) -> None:
    call = f'env -i "$(command -v {CALL[0]})" {" ".join(CALL[1:])} || echo exit $?'
    for line in (call, f"srun sh -c '{call}'"):
        job = home.submit(f"#!/bin/sh\n#SBATCH --qpu=ibm_fez\n{line}\n")
        assert home.wait(job) == "COMPLETED"
        output = home.cluster.output(job)
        assert said(output).startswith(f"This environment lacks the variables of job {job}: it was cleared")
        assert f"exit {REFUSED}" in output


@pytest.mark.credentials("gateway", "user", "shared")
def test_after_the_end_of_the_job(home: Lab) -> None:
    job = home.submit("#!/bin/sh\n#SBATCH --qpu=ibm_fez\nenv -0 >variables\n")
    assert home.wait(job) == "COMPLETED"
    text = (home.cluster.home() / "variables").read_text()
    variables = dict(entry.split("=", 1) for entry in text.split("\0") if entry)

    done = home.run(CALL, env=variables)

    assert done.returncode == REFUSED
    assert said(done.stderr) == (
        f"Job {job} is over, and so are its sessions. Submit another one with --qpu=NAME."
    )
    # With a key of the user's own, nothing else would keep it from opening another session.
    assert len(home.emulator.sessions()) == 1


def test_in_a_job_that_asked_for_none(home: Lab) -> None:
    done = home.run(["srun", *CALL])

    assert said(done.stderr).startswith("This job has no QPU. Submit it with --qpu=NAME")


def test_where_the_hooks_did_not_run(stage: Stage) -> None:
    stage.answer(b"")
    runner = Path(sys.executable).with_name("task_runner")
    job = stage.cluster.submit(f"#!/bin/sh\n#SBATCH --qpu=ibm_fez\n{runner} ibm_fez a b\n")

    assert stage.cluster.wait(job) == "FAILED"
    assert "nothing was acquired for it: the cluster's hooks did not run" in said(stage.cluster.output(job))
