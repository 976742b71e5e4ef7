# SPDX-License-Identifier: Apache-2.0
"""Each way to have no QPU is told by its own sentence; tests/cluster/test_absence.py goes them all."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

import pytest

from qpu_slurm.errors import NoLeaseError
from qpu_slurm.job.absence import job_of_cgroups, make_sure_job_runs, why_no_qpu

if TYPE_CHECKING:
    from pathlib import Path

STEP = {"SLURM_JOB_ID": "42", "SLURMD_NODENAME": "c1"}
ASKED = {"SLURM_SPANK_QPU_SLURM_QPU": "ibm_fez"}
HERE = {"QPU_SLURM_NODE": os.uname().nodename}

WAYS = {
    "no job": ({}, "This is not in a Slurm job. Submit it with `sbatch --qpu=NAME"),
    "salloc's shell": ({"SLURM_JOB_ID": "42", **ASKED}, "not in a step of job 42, .* Run `srun task_runner"),
    "a job without --qpu": (STEP, "This job has no QPU. Submit it with --qpu=NAME"),
    "no plugin": (
        {**STEP, **ASKED},
        "but Slurm's plugin qpu_slurm did not run on c1",
    ),
    "no plugin on this node": ({**STEP, **ASKED, "QPU_SLURM_NODE": "other"}, "did not run on c1"),
    "no hooks": ({**STEP, **ASKED, **HERE}, "nothing was acquired for it: the cluster's hooks did not run"),
}


@pytest.mark.parametrize(("environ", "sentence"), WAYS.values(), ids=WAYS)
def test_each_way_has_its_own_sentence(environ: dict[str, str], sentence: str) -> None:
    assert re.search(sentence, why_no_qpu(environ))


@pytest.mark.parametrize(
    ("program", "over"),
    [
        ("echo RUNNING", False),
        ("printf 'COMPLETED\\nRUNNING\\n'", False),
        ("true", True),
        ("echo PENDING", True),
        ("echo slurm_load_jobs error: Invalid job id specified >&2; exit 1", True),
        ("echo slurm_load_jobs error: Unable to contact slurm controller >&2; exit 1", False),
        ("exit 1", False),
    ],
)
def test_a_process_that_outlives_its_job_is_told(tmp_path: Path, program: str, *, over: bool) -> None:
    squeue = tmp_path / "squeue"
    squeue.write_text(f"#!/bin/sh\n[ $2 = --jobs=42 ] || exit 9\n{program}\n")
    squeue.chmod(0o755)
    environ = {**STEP, "PATH": f"{tmp_path}:/usr/bin:/bin"}
    if over:
        with pytest.raises(NoLeaseError, match=r"^Job 42 is over"):
            make_sure_job_runs(environ)
    else:
        make_sure_job_runs(environ)


@pytest.mark.parametrize(
    ("groups", "job"),
    [
        (b"11:memory:/slurm/uid_1000/job_4711/step_batch/task_0\n1:name=systemd:/slurm\n", 4711),
        (b"0::/system.slice/slurmstepd.scope/job_4711/step_0/user/task_0\n", 4711),
        (b"0::/user.slice/user-1000.slice/session-2.scope\n", None),
        (b"0::/\n", None),
        (b"", None),
    ],
)
def test_a_control_group_tells_the_job(groups: bytes, job: int | None) -> None:
    assert job_of_cgroups(groups) == job


def test_where_slurm_cannot_be_asked_the_service_will_say(tmp_path: Path) -> None:
    make_sure_job_runs({**STEP, "PATH": str(tmp_path)})
    make_sure_job_runs({"SLURM_JOB_ID": "42"})
    make_sure_job_runs({**STEP, "SLURM_JOB_ID": "42; reboot"})
