# SPDX-License-Identifier: Apache-2.0
"""Telling slurmdbd: what sacctmgr is asked, and what its answers mean."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from qpu_slurm.config import SlurmConfig
from qpu_slurm.errors import SlurmError
from qpu_slurm.slurm.control import Control
from qpu_slurm.slurm.job import ArrayElement, JobRecord

if TYPE_CHECKING:
    from pathlib import Path

COMMENT = '{"qpu_slurm":{"usage":{"ibm_fez":{"locked":2.5,"executed":2.0}}}}'

# As sacctmgr of Slurm 22.05 says it.
NO_DATABASE = """\
You are not running a supported accounting_storage plugin
Only 'accounting_storage/slurmdbd' is supported.
"""


def sacctmgr(directory: Path, said: str = "", code: int = 0) -> Control:
    """Return what asks a sacctmgr that writes down its arguments, says something, and ends."""
    (directory / "said").write_text(said)
    program = directory / "sacctmgr"
    program.write_text(
        f'#!/bin/sh\nprintf "%s\\n" "$@" >{directory}/arguments\n/bin/cat {directory}/said >&2\nexit {code}\n'
    )
    program.chmod(0o755)
    return Control(SlurmConfig(bin=directory))


def job(het_job_id: int | None = None, element: ArrayElement | None = None) -> JobRecord:
    return JobRecord(
        job_id=7,
        het_job_id=het_job_id,
        element=element,
        user_id=1000,
        state="COMPLETED",
        batch=True,
        gres=(),
        time_left=0,
        admin_comment="",
    )


@pytest.mark.parametrize(
    ("ended", "where"),
    [
        (job(), "jobid=7"),
        (job(het_job_id=7), "jobid=7+0"),
        (job(het_job_id=6), "jobid=7"),
        (job(element=ArrayElement(5, 2)), "jobid=5_2"),
        (job(element=ArrayElement(7, 3)), "jobid=7_3"),
    ],
    ids=["plain", "leader", "component", "element", "last element"],
)
def test_the_comment_of_a_job_that_is_over(tmp_path: Path, ended: JobRecord, where: str) -> None:
    assert sacctmgr(tmp_path).set_admin_comment_of_ended(ended, COMMENT)
    arguments = (tmp_path / "arguments").read_text().splitlines()
    assert arguments == ["--immediate", "modify", "job", "where", where, "set", f"admincomment={COMMENT}"]


def test_a_cluster_without_slurmdbd(tmp_path: Path) -> None:
    assert not sacctmgr(tmp_path, NO_DATABASE, 1).set_admin_comment_of_ended(job(), COMMENT)


def test_a_slurmdbd_that_refuses(tmp_path: Path) -> None:
    control = sacctmgr(tmp_path, "sacctmgr: error: Access/permission denied", 1)
    with pytest.raises(SlurmError, match="permission denied"):
        control.set_admin_comment_of_ended(job(), COMMENT)
