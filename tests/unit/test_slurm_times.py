# SPDX-License-Identifier: Apache-2.0
"""A job's times, as squeue tells them."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qpu_slurm.config import SlurmConfig
from qpu_slurm.errors import SlurmError
from qpu_slurm.slurm import times
from qpu_slurm.slurm.times import job_times

if TYPE_CHECKING:
    from pathlib import Path


def squeue(directory: Path, line: str, code: int = 0) -> SlurmConfig:
    """Return a Slurm whose squeue prints a text."""
    (directory / "answer").write_text(line)
    program = directory / "squeue"
    program.write_text(f"#!/bin/sh\n/bin/cat {directory}/answer >&{1 + bool(code)}\nexit {code}\n")
    program.chmod(0o755)
    return SlurmConfig(bin=directory)


def test_a_jobs_times(tmp_path: Path) -> None:
    line = f"{7:<12}{1000:<12}{1700000000:<20}{1700000004:<20}{1700000009:<20}{'a job':<200}\n"
    found = job_times(squeue(tmp_path, line + line.replace("7", "8", 1)), 7)
    assert found is not None
    assert (found.job_id, found.user_id, found.name) == (7, 1000, "a job")
    assert found.submitted_at == datetime.fromtimestamp(1_700_000_000, UTC)
    assert found.started_at == datetime.fromtimestamp(1_700_000_004, UTC)
    assert found.ended_at == datetime.fromtimestamp(1_700_000_009, UTC)


def test_what_lies_ahead_has_not_happened(tmp_path: Path) -> None:
    ahead = int(time.time()) + 3600
    found = job_times(squeue(tmp_path, f"7 1000 1700000000 {ahead} N/A  job"), 7)
    assert found is not None
    assert (found.started_at, found.ended_at) == (None, None)


def test_a_job_that_is_forgotten(tmp_path: Path) -> None:
    assert job_times(squeue(tmp_path, "slurm_load_jobs error: Invalid job id specified", 1), 7) is None
    assert job_times(squeue(tmp_path, ""), 7) is None


def test_a_slurm_that_does_not_answer(tmp_path: Path) -> None:
    with pytest.raises(SlurmError, match="Unable to contact"):
        job_times(squeue(tmp_path, "Unable to contact slurm controller", 1), 7)


@given(st.text())
def test_no_name_looks_like_another_job(name: str) -> None:
    found = times._times(f"7 1000 1700000000 N/A N/A {name}\n", 7)  # noqa: SLF001 - what reads input
    assert found is not None
    assert (found.user_id, found.ended_at) == (1000, None)
    assert found.name.isprintable()


@given(st.text())
def test_anything_else_is_refused_or_nothing(output: str) -> None:
    try:
        found = times._times(output, 7)  # noqa: SLF001 - what reads input
    except SlurmError:
        return
    assert found is None or found.job_id == 7
