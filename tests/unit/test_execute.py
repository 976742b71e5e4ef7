# SPDX-License-Identifier: Apache-2.0
"""How often a task is asked for, and what that costs a task of any length."""

from __future__ import annotations

import pytest

from qpu_slurm.job.variables import JobQpu
from qpu_slurm.providers.expectation import pause
from qpu_slurm.system.secret import Secret
from qpu_slurm.tasks.execution import LONGEST_QUEUED, new_tags


def polls(seconds: float, answer: float = 0.005) -> tuple[int, float]:
    """Play a task that runs for so long: how often it is asked for, and how late its end is seen."""
    now, count = 0.0, 0
    while now < seconds:
        now += pause(now) + answer
        count += 1
    return count, now - seconds


@pytest.mark.parametrize("seconds", [0.01, 0.1, 0.5, 1, 2, 7.5, 30, 60, 600, 3600])
def test_a_tasks_end_is_seen_soon_and_with_few_questions(seconds: float) -> None:
    count, late = polls(seconds)

    assert late <= max(0.06, 0.05 * seconds)
    assert count <= 320


def test_a_queued_task_is_asked_for_at_least_every_second() -> None:
    assert pause(0, LONGEST_QUEUED) == pytest.approx(0.02)
    assert pause(36_000, LONGEST_QUEUED) == 1


def test_tags_name_the_slurm_job_and_the_task() -> None:
    qpu = job_qpu(tag="slurm-job:lab:42:0123456789abcdef")
    job, own, users = new_tags(qpu, {"SLURM_JOB_ID": "42"}, ["mine"])

    assert job == "slurm-job:lab:42:0123456789abcdef"
    assert own not in new_tags(qpu, {"SLURM_JOB_ID": "42"})
    assert users == "mine"


def test_without_a_tag_of_the_lease_the_jobs_number_has_to_do() -> None:
    """So it is where upstream's plugin has set the variables, and for jobs that an older hook has started."""
    assert new_tags(job_qpu(), {"SLURM_JOB_ID": "42"})[0] == "slurm-job:42"
    assert len(new_tags(job_qpu(), {})) == 1


def test_a_task_that_ends_with_its_step_says_with_which() -> None:
    job, own, step, mine = new_tags(job_qpu(), {"SLURM_JOB_ID": "42"}, ["mine"], step="42.0.0123456789abcdef")

    assert (job, step, mine) == ("slurm-job:42", "slurm-step:42.0.0123456789abcdef", "mine")
    assert own.startswith("qpu-slurm-task:")


def job_qpu(tag: str | None = None) -> JobQpu:
    return JobQpu(
        name="ibm_fez",
        backend="ibm_fez",
        endpoint="https://quantum.example",
        iam_endpoint="https://iam.example",
        instance="crn:v1:",
        api_key=Secret("key"),
        tag=tag,
    )
