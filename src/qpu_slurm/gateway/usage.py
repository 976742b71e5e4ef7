# SPDX-License-Identifier: Apache-2.0
"""What sessions that ended were used for: asked for in the background, for the journal, metrics and Slurm."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, NoReturn

import msgspec
import structlog

from qpu_slurm.errors import QpuSlurmError, SlurmError
from qpu_slurm.handover import Handover, Usage
from qpu_slurm.leases.accountant import Accountant
from qpu_slurm.slurm.control import Control
from qpu_slurm.slurm.query import connect

if TYPE_CHECKING:
    from qpu_slurm.gateway.gateway import Gateway
    from qpu_slurm.leases.accountant import Used

_LOOK_SECONDS = 2.0
"""How often the journal is asked for sessions that ended without a release, such as by their last task."""

_RUNNING = "RUNNING"

_log = structlog.get_logger(__name__)


async def keep_account(gateway: Gateway) -> NoReturn:
    """Account for sessions as they end, beginning with those that ended while no gateway was there."""
    accountant = Accountant(gateway.config, gateway.journal)
    while True:
        gateway.ended.clear()
        try:
            found = await gateway.apart(accountant.run)
            for used in found:
                _count(gateway, used)
            for used in found:
                await gateway.apart(_tell_slurm, gateway, used)
        except QpuSlurmError as error:
            _log.error("the accountant failed", why=str(error))
        except Exception:  # noqa: BLE001 - it has to try again, whatever it was
            _log.exception("the accountant failed")
        with suppress(TimeoutError):
            async with asyncio.timeout(_LOOK_SECONDS):
                await gateway.ended.wait()


def _count(gateway: Gateway, used: Used) -> None:
    metrics, qpu = gateway.metrics, used.lease.qpu
    metrics.locked_seconds.labels(qpu).inc(used.locked_seconds)
    metrics.qpu_seconds.labels(qpu).inc(used.executed_seconds)
    metrics.idle_seconds.labels(qpu).inc(max(used.locked_seconds - used.executed_seconds, 0.0))


def _tell_slurm(gateway: Gateway, used: Used) -> None:
    """Write what a job has used into Slurm's record of it, while that can be written: as long as it runs."""
    lease = used.lease
    if lease.state.final:
        return
    sessions = [
        session
        for session in gateway.journal.history.sessions(lease.id)
        if session.locked_seconds is not None
    ]
    usage = Usage(
        locked=round(sum(session.locked_seconds or 0.0 for session in sessions), 3),
        executed=round(sum(session.executed_seconds or 0.0 for session in sessions), 3),
    )
    slurm = gateway.config.slurm
    try:
        job = connect(slurm).job(lease.job_id)
        if job is None or job.state != _RUNNING:
            return
        left = Handover.from_comment(job.admin_comment)
        left = msgspec.structs.replace(left, usage={**left.usage, lease.qpu: usage})
        Control(slurm).set_admin_comment(job.job_id, left.into_comment(job.admin_comment))
    except SlurmError as error:
        _log.info("Slurm's record has no usage", job_id=lease.job_id, why=str(error))
