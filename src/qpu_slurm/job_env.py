# SPDX-License-Identifier: Apache-2.0
"""What `qpu-slurm job-env` prints: the variables of a job's steps, for the SPANK plugin.

It runs as root on the compute node when a step starts. Which sessions the job holds stands in its
AdminComment, how the QPUs are reached in the node's own configuration; nothing that a user can write is
trusted. The keys of QPUs behind the gateway are asked for there, by the job's user: for that, the process
becomes him, for good. The plugin reads lines `NAME=value`, or one line `error: sentence`, which ends the job.

A heterogeneous job is one job: whichever component asks gets the QPUs of all.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import msgspec

from qpu_slurm.environment import JobQpu, to_environ
from qpu_slurm.errors import NoLease, QpuSlurmError, SlurmError, UserMistake
from qpu_slurm.handover import Handover
from qpu_slurm.secret import Secret
from qpu_slurm.slurm.query import connect

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from qpu_slurm.config import Config, QpuConfig
    from qpu_slurm.slurm.job import JobRecord
    from qpu_slurm.slurm.query import Query

USER_KEY = "QPU_SLURM_API_KEY"
"""The variable in which the plugin hands the user's own credential over."""

_SECONDS = 7.0
"""What all of it may take: the plugin (plugin/remote.c) ends this process after 8 s."""

_SLURM_SECONDS = 3
"""What one question to Slurm may take; a heterogeneous job may need two."""

_NOBODYS_GROUP = 65_534


def job_env(config: Config, job_id: int, environ: Mapping[str, str], *, query: Query | None = None) -> str:
    """Return the lines to print.

    Args:
        config: What the admin wrote, on this node.
        job_id: The job; of a heterogeneous job, any component.
        environ: Holds the user's own credential, where the plugin published one.
        query: How Slurm is asked; by default what `config` says.

    Returns:
        Nothing for a job that has no QPU.
    """
    deadline = time.monotonic() + _SECONDS
    slurm = msgspec.structs.replace(config.slurm, timeout=min(config.slurm.timeout, _SLURM_SECONDS))
    try:
        records = (query or connect(slurm)).components(job_id)
        if not records:
            raise SlurmError(f"Slurm does not know job {job_id}.")
        # What the asking component named comes first.
        records.sort(key=lambda record: record.job_id != job_id)
        variables = to_environ(_qpus(config, records, environ, deadline))
    except QpuSlurmError as error:
        return error_line(error)
    return "".join(f"{name}={value}\n" for name, value in variables.items())


def error_line(error: QpuSlurmError) -> str:
    """Return the line that ends a job with a sentence."""
    return f"error: {' '.join(str(error).split())}\n"


def _qpus(
    config: Config, records: Sequence[JobRecord], environ: Mapping[str, str], deadline: float
) -> list[JobQpu]:
    handover = Handover.merged(Handover.from_comment(record.admin_comment) for record in records)
    if handover.error:
        raise UserMistake(handover.error)
    qpus = {name: config.qpu(name) for name in handover.sessions}
    user_key = Secret(environ[USER_KEY]) if environ.get(USER_KEY) else None
    # First, since the job's user cannot read the admin's shared keys.
    keys = {name: qpu.key(user_key) for name, qpu in qpus.items() if qpu.credentials != "gateway"}
    if len(keys) < len(qpus):
        keys |= _keys_from_gateway(config, records[0], deadline)
    bound = []
    for name, session_id in handover.sessions.items():
        if name not in keys:
            raise NoLease(f"The gateway has no key for {name}: this job does not hold it any more.")
        job_qpu = JobQpu.bind(
            _through_gateway(config, qpus[name]),
            api_key=keys[name],
            session_id=session_id,
            hold=handover.holds(name),
        )
        # A session that the job's own programs may create lives no longer than the job, either.
        if records[0].time_left is not None:
            max_ttl = max(1, min(qpus[name].max_ttl, records[0].time_left))
            job_qpu = msgspec.structs.replace(job_qpu, max_ttl=max_ttl)
        bound.append(job_qpu)
    return bound


def _keys_from_gateway(config: Config, record: JobRecord, deadline: float) -> dict[str, Secret]:
    # Imported before this process becomes somebody who may not read what is installed; and only if needed.
    from qpu_slurm.gateway.client import GatewayBroker  # noqa: PLC0415

    gateway = GatewayBroker(config)
    _become(record.user_id)
    return gateway.keys(record.leader, seconds=min(5.0, max(0.5, deadline - time.monotonic())))


def _become(user_id: int) -> None:
    """Become a job's user, with nobody's groups: MUNGE tells who asks, and nothing else is to be opened."""
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(_NOBODYS_GROUP, _NOBODYS_GROUP, _NOBODYS_GROUP)
        os.setresuid(user_id, user_id, user_id)
    elif os.geteuid() != user_id:
        raise SlurmError(f"User {os.geteuid()} cannot ask for the keys of user {user_id}.")


def _through_gateway(config: Config, qpu: QpuConfig) -> QpuConfig:
    """Return a QPU as the gateway shows it to jobs, if it is behind it."""
    if qpu.credentials != "gateway" or config.gateway is None:
        return qpu
    url = config.gateway.url
    return msgspec.structs.replace(
        qpu,
        # qiskit-ibm-runtime takes a URL as it is only if it contains `experimental`.
        endpoint=f"{url}/experimental/api/v1",
        iam_endpoint=url,
        search_endpoint=url,
        catalog_endpoint=f"{url}/catalog",
    )
