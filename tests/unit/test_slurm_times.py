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
from qpu_slurm.slurm.times import job_times, number_of

if TYPE_CHECKING:
    from pathlib import Path


def squeue(directory: Path, line: str, code: int = 0) -> SlurmConfig:
    """Return a Slurm whose squeue prints a text."""
    (directory / "answer").write_text(line)
    program = directory / "squeue"
    program.write_text(f"#!/bin/sh\n/bin/cat {directory}/answer >&{1 + bool(code)}\nexit {code}\n")
    program.chmod(0o755)
    return SlurmConfig(bin=directory)


def line(*values: object) -> str:
    """Write a line as squeue does: each field in its width, whatever is in it."""
    widths = (12, 12, 20, 20, 20, 200)
    return "".join(f"{value:<{width}}" for value, width in zip(values, widths, strict=True)) + "\n"


def test_a_jobs_times(tmp_path: Path) -> None:
    lines = [line(job, 1000, 1700000000, 1700000004, 1700000009, "a job") for job in (7, 8)]
    found = job_times(squeue(tmp_path, "".join(lines)), 7)
    assert found is not None
    assert (found.job_id, found.user_id, found.name) == (7, 1000, "a job")
    assert found.submitted_at == datetime.fromtimestamp(1_700_000_000, UTC)
    assert found.started_at == datetime.fromtimestamp(1_700_000_004, UTC)
    assert found.ended_at == datetime.fromtimestamp(1_700_000_009, UTC)


def test_what_lies_ahead_has_not_happened(tmp_path: Path) -> None:
    ahead = int(time.time()) + 3600
    found = job_times(squeue(tmp_path, line(7, 1000, 1700000000, ahead, "N/A", "job")), 7)
    assert found is not None
    assert (found.started_at, found.ended_at) == (None, None)


def test_the_element_that_has_its_arrays_number_need_not_come_first(tmp_path: Path) -> None:
    elements = [line(job, 1000, 1700000000, "N/A", "N/A", f"of {job}") for job in (14, 15, 13)]
    slurm = squeue(tmp_path, "".join(elements))
    found = job_times(slurm, 13)
    assert found is not None
    assert found.name == "of 13"


def test_the_number_of_an_element(tmp_path: Path) -> None:
    assert number_of(squeue(tmp_path, line(15, 1000, 1700000000, "N/A", "N/A", "")), "13_2") == 15
    assert number_of(squeue(tmp_path, ""), "13_9") is None


def test_a_job_that_is_forgotten(tmp_path: Path) -> None:
    assert job_times(squeue(tmp_path, "slurm_load_jobs error: Invalid job id specified", 1), 7) is None
    assert job_times(squeue(tmp_path, ""), 7) is None


def test_a_slurm_that_does_not_answer(tmp_path: Path) -> None:
    with pytest.raises(SlurmError, match="Unable to contact"):
        job_times(squeue(tmp_path, "Unable to contact slurm controller", 1), 7)


@given(st.text(max_size=50))
def test_no_name_looks_like_another_job(name: str) -> None:
    padded = (name + "\n" + line(8, 0, 1, 1, 1, "forged")).encode()[:200].ljust(200)
    output = line(7, 1000, 1700000000, "N/A", "N/A", "").encode()[:-201] + padded + b"\n"
    [found] = times._times(output)  # noqa: SLF001 - what reads input
    assert (found.job_id, found.user_id, found.ended_at) == (7, 1000, None)
    assert found.name.isprintable()


@given(st.binary())
def test_anything_else_is_refused_or_nothing(output: bytes) -> None:
    try:
        found = list(times._times(output))  # noqa: SLF001 - what reads input
    except SlurmError:
        return
    assert not found
