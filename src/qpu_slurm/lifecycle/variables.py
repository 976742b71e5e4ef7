# SPDX-License-Identifier: Apache-2.0
"""The variables of a job's QPUs for the programs of a step."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import msgspec

from qpu_slurm.errors import NoLeaseError, RequestError
from qpu_slurm.job.variables import JobQpu
from qpu_slurm.providers.lifetime import session_ttl
from qpu_slurm.slurm.admin_comment import AdminComment

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from qpu_slurm.config import Config, QpuConfig
    from qpu_slurm.slurm.job import JobRecord
    from qpu_slurm.system.secret import Secret


class Opened(NamedTuple):
    """What a step gets for one QPU.

    Attributes:
        key: The credential.
        session_id: The session that the job has there now; None while it has none.
    """

    key: Secret
    session_id: str | None


def handover(records: Iterable[JobRecord]) -> AdminComment:
    """Return what the start of a job has left for its steps; of a heterogeneous job, of all components.

    Raises:
        SlurmError: A record holds something else in its place.
    """
    return AdminComment.merged(AdminComment.from_comment(record.admin_comment) for record in records)


def of_step(
    config: Config, records: Sequence[JobRecord], opened: Mapping[str, Opened], qpus: Mapping[str, QpuConfig]
) -> list[JobQpu]:
    """Return a job's QPUs as its step sees them, those first that the step's own component asked for.

    Args:
        config: What the admin wrote.
        records: Slurm's record of the job, the component of the step first.
        opened: What the step gets, by QPU.
        qpus: The QPUs that the job has, as `config` says them.

    Raises:
        RequestError: The job must not run: its user made a mistake.
        NoLeaseError: The job no longer holds a QPU.
    """
    left = handover(records)
    if left.error:
        raise RequestError(left.error)
    found = []
    for name in left.sessions:
        if name not in opened:
            raise NoLeaseError(f"The gateway has no key for {name}: this job no longer holds it.")
        job_qpu = JobQpu.bind(
            through_gateway(config, qpus[name]),
            api_key=opened[name].key,
            session_id=opened[name].session_id,
            hold=left.holds(name),
            tag=granted.tag if (granted := left.leases.get(name)) else None,
            asked=chosen.asked if (chosen := left.chosen.get(name)) else None,
        )
        found.append(
            msgspec.structs.replace(
                job_qpu,
                job_id=records[0].leader,
                user_id=records[0].user_id,
                # A session that the job's own programs create must not outlive the job, either.
                max_ttl=session_ttl(qpus[name].max_ttl, records[0].time_left),
            )
        )
    return found


def through_gateway(config: Config, qpu: QpuConfig) -> QpuConfig:
    """Return a QPU as jobs reach it: through the gateway, if it is behind it."""
    if not qpu.through_gateway or config.gateway is None:
        return qpu
    return qpu.seen_by_jobs(config.gateway.url)
