# SPDX-License-Identifier: Apache-2.0
"""Slurm's record of what a job has used, written by a gateway that is SlurmUser, or is not."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, cast

import pytest

from qpu_slurm.errors import SlurmError
from qpu_slurm.gateway.accounting import SlurmsRecord
from qpu_slurm.journal.journal import Journal
from qpu_slurm.slurm.job import JobRecord

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from qpu_slurm.journal.model import Lease
    from qpu_slurm.slurm.control import Control
    from qpu_slurm.slurm.query import Query


class Slurm:
    """One job, and who may write of it."""

    def __init__(self) -> None:
        self.state: str | None = "RUNNING"
        self.is_slurm_user = True
        self.asked = 0
        self.written: list[str] = []

    def job(self, job_id: int) -> JobRecord | None:
        self.asked += 1
        if self.state is None:
            return None
        return JobRecord(
            job_id=job_id,
            het_job_id=None,
            user_id=1000,
            state=self.state,
            batch=True,
            gres=(),
            time_left=60,
            admin_comment="",
        )

    def set_admin_comment(self, _: int, text: str) -> None:
        if not self.is_slurm_user:
            raise SlurmError("Access/permission denied")
        self.written.append(f"scontrol {text}")

    def set_admin_comment_of_ended(self, _: JobRecord, text: str) -> bool:
        self.written.append(f"sacctmgr {text}")
        return True


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with Journal(tmp_path / "journal.sqlite") as journal:
        yield journal


@pytest.fixture
def lease(journal: Journal) -> Lease:
    return journal.bind(qpu="ibm_fez", job_id=7, user_id=1000)


def record_of(journal: Journal, slurm: Slurm, lease: Lease) -> SlurmsRecord:
    record = SlurmsRecord(journal, cast("Query", slurm), cast("Control", slurm))
    record.add(lease)
    return record


def test_slurms_user_writes_while_the_job_runs(journal: Journal, lease: Lease) -> None:
    slurm = Slurm()
    record = record_of(journal, slurm, lease)
    record.write()
    record.write()
    assert [text.split()[0] for text in slurm.written] == ["scontrol"]


def test_another_user_writes_when_the_job_is_over(
    journal: Journal, lease: Lease, monkeypatch: pytest.MonkeyPatch
) -> None:
    slurm = Slurm()
    slurm.is_slurm_user = False
    record = record_of(journal, slurm, lease)
    record.write()
    record.write()
    # Slurm is not asked every two seconds for what it has refused.
    assert (slurm.asked, slurm.written) == (1, [])
    slurm.state = "COMPLETED"
    later = time.monotonic() + 60
    monkeypatch.setattr("time.monotonic", lambda: later)
    record.write()
    record.write()
    assert [text.split()[0] for text in slurm.written] == ["sacctmgr"]
    assert slurm.asked == 2


def test_a_job_that_slurm_has_forgotten_is_forgotten(journal: Journal, lease: Lease) -> None:
    slurm = Slurm()
    slurm.state = None
    record = record_of(journal, slurm, lease)
    record.write()
    record.write()
    assert (slurm.asked, slurm.written) == (1, [])
