# SPDX-License-Identifier: Apache-2.0
"""What a job's leases add to its AdminComment, and which jobs Slurm's records lack it for.

The gateway answers a job's prolog before it writes the job's AdminComment. If the gateway is killed in
between, or if Slurm does not answer, the job runs and Slurm's record of it says nothing. `takeover` is the
opposite case: Slurm's record names a lease that the journal lacks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import msgspec

from qpu_slurm.errors import SlurmError
from qpu_slurm.journal.model import Hold
from qpu_slurm.slurm.admin_comment import AdminComment, Granted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from qpu_slurm.journal.model import Lease
    from qpu_slurm.slurm.job import JobRecord

_RUNS = frozenset({"RUNNING", "SUSPENDED", "STOPPED"})
"""The states of a job whose prolog has ended. Until then, the prolog may be about to write the comment."""


class Commented(NamedTuple):
    """A job with what its AdminComment holds.

    Attributes:
        job: Slurm's record of it; of a heterogeneous job, the leader's, or its first component's.
        own: What this record's comment holds.
        comment: What the comments of all components hold together.
    """

    job: JobRecord
    own: AdminComment
    comment: AdminComment


class Unwritten(NamedTuple):
    """A running job whose AdminComment lacks leases.

    Attributes:
        job: Slurm's record of it; of a heterogeneous job, the leader's.
        comment: What the comment has to hold.
    """

    job: JobRecord
    comment: AdminComment


def of_leases(leases: Iterable[Lease]) -> AdminComment:
    """Return the comment of a job that has been granted these leases.

    Args:
        leases: The leases, with why they were chosen (`Lookup.with_choices`).
    """
    leases = list(leases)
    return AdminComment(
        sessions={lease.qpu: lease.session_id for lease in leases},
        hold={lease.qpu: "task" for lease in leases if lease.session_id is None and lease.hold is Hold.TASK},
        leases={
            lease.qpu: Granted(id=lease.id, created_at=lease.created_at, tag=lease.tag) for lease in leases
        },
        chosen={lease.qpu: lease.chosen for lease in leases if lease.chosen is not None},
    )


def lacking(comment: AdminComment, leases: Iterable[Lease]) -> list[Lease]:
    """Return the leases that a comment does not name. It may name those of an earlier run of the job."""
    return [
        lease
        for lease in leases
        if (granted := comment.leases.get(lease.qpu)) is None or granted.id != lease.id
    ]


def completed(comment: AdminComment, leases: Iterable[Lease]) -> AdminComment:
    """Return a comment that names these leases, too, in place of older ones on the same QPUs."""
    new = of_leases(leases)
    kept = {name: hold for name, hold in comment.hold.items() if name not in new.sessions}
    chosen = {name: choice for name, choice in comment.chosen.items() if name not in new.sessions}
    return msgspec.structs.replace(
        comment,
        sessions=comment.sessions | new.sessions,
        hold=kept | new.hold,
        leases=comment.leases | new.leases,
        chosen=chosen | new.chosen,
        # The job does not wait any more.
        waiting="",
        qpus=(),
        tries=0,
    )


def commented(jobs: Iterable[JobRecord]) -> Iterator[Commented]:
    """Read the AdminComments of jobs. A job is left out if an operator wrote something else in our place."""
    components: dict[int, list[JobRecord]] = {}
    for job in jobs:
        components.setdefault(job.leader, []).append(job)
    for records in components.values():
        records.sort(key=lambda record: record.job_id)
        try:
            comments = [AdminComment.from_comment(record.admin_comment) for record in records]
        except SlurmError:
            continue
        yield Commented(
            records[0], comments[0], comments[0] if len(comments) == 1 else AdminComment.merged(comments)
        )


def unwritten(
    jobs: Iterable[Commented],
    leases: Iterable[Lease],
    with_choices: Callable[[Iterable[Lease]], list[Lease]],
) -> Iterator[Unwritten]:
    """Compare the leases of running jobs with their AdminComments.

    Args:
        jobs: Slurm's jobs.
        leases: The journal's open leases, read before Slurm was asked.
        with_choices: The journal's.

    Yields:
        Each job whose comment has to be written.
    """
    granted: dict[int, list[Lease]] = {}
    for lease in leases:
        if lease.granted:
            granted.setdefault(lease.job_id, []).append(lease)
    for job, own, comment in jobs:
        if job.job_id not in granted or job.state not in _RUNS or comment.error:
            continue
        held = [
            lease for lease in granted[job.job_id] if lease.user_id == job.user_id and lease.is_of(job.run)
        ]
        if missing := lacking(comment, held):
            yield Unwritten(job, completed(own, with_choices(missing)))
