# SPDX-License-Identifier: Apache-2.0
"""Why a job waits, in words."""

from __future__ import annotations

import pytest

from qpu_slurm.slurm.admin_comment import AdminComment
from qpu_slurm.slurm.job import JobRecord
from qpu_slurm.slurm.reasons import why_it_waits

LEFT = AdminComment(waiting="ibm_fez is closed: a new fridge.", qpus=("ibm_fez",)).into_comment("")


@pytest.mark.parametrize(
    ("reason", "comment", "says"),
    [
        ("Licenses", "", "No license is free of ibm_fez: "),
        ("Resources", "", "waits for nodes"),
        ("BeginTime", LEFT, "ibm_fez is closed: a new fridge."),
        ("None", LEFT, "ibm_fez is closed: a new fridge."),
        # It waits for something else by now.
        ("Priority", LEFT, "Jobs of a higher priority come first."),
        ("BeginTime", "", "put off"),
        ("BeginTime", '{"qpu_slurm": 7}', "put off"),
        ("QOSMaxJobsPerUserLimit", "", "Slurm's reason is QOSMaxJobsPerUserLimit."),
    ],
)
def test_a_reason_is_said_in_words(reason: str, comment: str, says: str) -> None:
    assert says in why_it_waits(job("PENDING", reason, comment))


@pytest.mark.parametrize("state", ["RUNNING", "COMPLETED"])
def test_a_job_that_does_not_wait_has_no_reason(state: str) -> None:
    assert not why_it_waits(job(state, "None", LEFT))


def job(state: str, reason: str, comment: str) -> JobRecord:
    return JobRecord(
        job_id=7,
        het_job_id=None,
        user_id=1000,
        state=state,
        batch=True,
        gres=(),
        licenses=("ibm_fez",),
        time_left=60,
        reason=reason,
        admin_comment=comment,
    )
