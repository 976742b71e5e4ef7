# SPDX-License-Identifier: Apache-2.0
"""Whether the sessions that jobs hold are used: a QPU that is locked and idle is paid for, too."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from enum import StrEnum
from typing import TYPE_CHECKING

from qpu_slurm.errors import QpuSlurmError
from qpu_slurm.journal.model import LeaseState
from qpu_slurm.providers.base import SessionState
from qpu_slurm.system.deadline import Deadline

if TYPE_CHECKING:
    from collections.abc import Iterable

    from qpu_slurm.journal.model import Lease
    from qpu_slurm.leases.broker import Broker

_ANSWER_SECONDS = 5.0
_AT_ONCE = 16


class Use(StrEnum):
    """What a session is used for now.

    BUSY: a task runs or waits in it. LOCKED: none does, and the QPU is kept from others all the same. IDLE:
    none does, and others may use the QPU.
    """

    BUSY = "busy"
    LOCKED = "locked"
    IDLE = "idle"


def uses(broker: Broker, leases: Iterable[Lease]) -> dict[int, Use]:
    """Ask the services whether leases' sessions are used; those that have no answer in time are left out.

    Args:
        broker: Knows the way to each service.
        leases: Those that are not HELD are left out, too.

    Returns:
        The use, by the lease's number.
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

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        found = zip(held, pool.map(ask, held), strict=True)
        return {lease.id: use for lease, use in found if use is not None}
