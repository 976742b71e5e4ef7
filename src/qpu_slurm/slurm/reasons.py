# SPDX-License-Identifier: Apache-2.0
"""Why a job waits, in words: Slurm's reason is one word, and the hooks left a sentence."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from qpu_slurm.errors import SlurmError
from qpu_slurm.slurm.admin_comment import AdminComment

if TYPE_CHECKING:
    from qpu_slurm.slurm.job import JobRecord

_WORDS: Final = {
    "None": "Slurm has not looked at it yet.",
    "Resources": "It is next, and waits for nodes.",
    "Priority": "Jobs of a higher priority come first.",
    "Dependency": "It waits for another job.",
    "DependencyNeverSatisfied": "The job that it waits for has failed: cancel it (scancel).",
    "BeginTime": "Its start was put off until later.",
    "JobHeldUser": "It is held: `scontrol release` starts it.",
    "JobHeldAdmin": "An admin holds it.",
    "PartitionDown": "Its partition is closed.",
    "PartitionTimeLimit": "Its time limit is longer than its partition allows.",
    "ReqNodeNotAvail": "The nodes that it asks for are not available.",
    "Reservation": "Its reservation has not begun.",
}
"""What the more frequent reasons of squeue(1) mean."""


def why_it_waits(job: JobRecord) -> str:
    """Say why a job waits; nothing for one that does not.

    Args:
        job: Slurm's record of it; of a heterogeneous job, the leader's.
    """
    if job.state != "PENDING":
        return ""
    try:
        left = AdminComment.from_comment(job.admin_comment).waiting
    except SlurmError:
        left = ""
    if left and job.reason in {"BeginTime", "None"}:
        return left
    if job.reason == "Licenses":
        names = ", ".join(job.licenses) or "its QPU"
        return (
            f"No license is free of {names}: it is closed, away, or in use by as many jobs as may. "
            "`qpu-slurm qpus` shows which."
        )
    return _WORDS.get(job.reason, f"Slurm's reason is {job.reason}.")
