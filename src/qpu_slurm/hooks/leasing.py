# SPDX-License-Identifier: Apache-2.0
"""One core, two ways to reach it: the broker in this process, or behind the gateway."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qpu_slurm.config import Config
    from qpu_slurm.journal.model import Lease, LeaseRequest, Refusal


class Leasing(Protocol):
    """Who grants leases and ends them."""

    def acquire(self, request: LeaseRequest) -> tuple[Lease, ...]:
        """See `Broker.acquire`."""

    def release(self, job_id: int, reason: str, *, run: str = "", others: bool = False) -> tuple[Lease, ...]:
        """See `Broker.release`."""

    def refuse(self, refusal: Refusal) -> None:
        """See `Broker.refuse`."""


@contextmanager
def leasing(config: Config) -> Iterator[Leasing]:
    """Reach the broker: through the gateway if there is one, in this process otherwise.

    Raises:
        JournalError: It is in this process, and the journal cannot be opened.
    """
    # Each is imported where it is needed: a hook waits for nothing else.
    if config.gateway is not None:
        from qpu_slurm.gateway.client import GatewayBroker  # noqa: PLC0415

        yield GatewayBroker(config)
        return
    from qpu_slurm.journal.journal import Journal  # noqa: PLC0415
    from qpu_slurm.leases.broker import Broker  # noqa: PLC0415

    with Journal(config.journal) as journal:
        yield Broker(config, journal)
