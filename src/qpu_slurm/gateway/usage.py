# SPDX-License-Identifier: Apache-2.0
"""What a session that ended has used, as the service tells; for the metrics, and for nothing else."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec
import structlog

from qpu_slurm.gateway.answers import ApiError, Cut
from qpu_slurm.gateway.routes.common import read_as
from qpu_slurm.leases.model import LeaseState

if TYPE_CHECKING:
    from collections.abc import Iterable

    from qpu_slurm.gateway.gateway import Gateway
    from qpu_slurm.leases.model import Lease

_PAUSES = (0.0, 2.0, 10.0, 30.0, 120.0, 600.0)
"""Seconds between two looks: a session that is closed ends when the task that runs in it does."""

_NOT_FOUND = 404
_PAGE = 200
_PAGES = 50

_log = structlog.get_logger(__name__)


class _Session(msgspec.Struct):
    state: str
    elapsed_time: float | None = None


class _Usage(msgspec.Struct):
    seconds: float = 0.0


class _Task(msgspec.Struct):
    usage: _Usage = msgspec.field(default_factory=_Usage)


class _Tasks(msgspec.Struct):
    jobs: list[_Task]


def account_for(gateway: Gateway, leases: Iterable[Lease]) -> None:
    """Count what sessions have used, once they have ended; later, and if the service tells."""
    for lease in leases:
        qpu = gateway.config.qpus.get(lease.qpu)
        if lease.session_id and lease.state is LeaseState.RELEASED and qpu and qpu.credentials == "gateway":
            gateway.later(_count(gateway, lease.qpu, lease.session_id))


async def _count(gateway: Gateway, qpu: str, session_id: str) -> None:
    for pause in _PAUSES:
        await asyncio.sleep(pause)
        try:
            session = await _session(gateway, qpu, session_id)
            if session.state != "closed":
                continue
            executed = await _executed(gateway, qpu, session_id)
        except (ApiError, Cut) as error:
            _log.info("usage not known", qpu=qpu, session_id=session_id, why=str(error))
            if isinstance(error, ApiError) and error.status == _NOT_FOUND:
                return
            continue
        locked = max(session.elapsed_time or 0.0, 0.0)
        gateway.metrics.locked_seconds.labels(qpu).inc(locked)
        gateway.metrics.qpu_seconds.labels(qpu).inc(executed)
        gateway.metrics.idle_seconds.labels(qpu).inc(max(locked - executed, 0.0))
        _log.info("session used", qpu=qpu, session_id=session_id, locked=locked, executed=executed)
        return


async def _session(gateway: Gateway, qpu: str, session_id: str) -> _Session:
    async with gateway.upstream(qpu).send("GET", "sessions", session_id) as answer:
        return await read_as(answer, _Session)


async def _executed(gateway: Gateway, qpu: str, session_id: str) -> float:
    """Add up what the tasks of a session took."""
    total = 0.0
    for page in range(_PAGES):
        query = [
            ("exclude_params", "true"),
            ("session_id", session_id),
            ("limit", str(_PAGE)),
            ("offset", str(page * _PAGE)),
        ]
        async with gateway.upstream(qpu).send("GET", "jobs", query=query) as answer:
            tasks = (await read_as(answer, _Tasks)).jobs
        total += sum(max(task.usage.seconds, 0.0) for task in tasks)
        if len(tasks) < _PAGE:
            break
    return total
