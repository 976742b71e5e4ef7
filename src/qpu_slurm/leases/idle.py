# SPDX-License-Identifier: Apache-2.0
"""Finds sessions that jobs hold but do not use: a locked QPU is billed even if it is idle."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from enum import StrEnum
from typing import TYPE_CHECKING

from qpu_slurm.errors import QpuSlurmError
from qpu_slurm.journal.model import LeaseState
from qpu_slurm.providers.base import SessionState
from qpu_slurm.system import structs
from qpu_slurm.system.deadline import Deadline

if TYPE_CHECKING:
    from collections.abc import Iterable

    from qpu_slurm.journal.model import Lease
    from qpu_slurm.leases.broker import Broker

_ANSWER_SECONDS = 5.0
_AT_ONCE = 16


class Use(StrEnum):
    """The use of a session.

    BUSY: a task runs or waits in it. LOCKED: it has no task, and still locks the QPU. IDLE: it has no task,
    and the QPU is free for others.
    """

    BUSY = "busy"
    LOCKED = "locked"
    IDLE = "idle"


def uses(broker: Broker, leases: Iterable[Lease]) -> dict[int, Use]:
    """Query the services for the use of leases' sessions.

    Args:
        broker: Returns the provider of each lease.
        leases: The leases. Only HELD ones are queried.

    Returns:
        The use by the lease's number, without leases whose service did not answer in time.
    """
    deadline = Deadline.after(_ANSWER_SECONDS)
    held = [lease for lease in leases if lease.state is LeaseState.HELD]

    def ask(lease: Lease) -> Use | None:
        session_id = lease.session_id or ""
        try:
            provider = broker.provider(lease, deadline=deadline)
            if provider.is_busy(session_id):
                return Use.BUSY
            state = provider.session(session_id).state
        except QpuSlurmError:
            return None
        return Use.LOCKED if state is SessionState.ACTIVE else Use.IDLE

    structs.prepare()
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        found = zip(held, pool.map(ask, held), strict=True)
        return {lease.id: use for lease, use in found if use is not None}
