# SPDX-License-Identifier: Apache-2.0
"""The broker as the start and the end of a job need it, wherever it runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from qpu_slurm.journal.model import Lease, LeaseRequest, Refusal


class Leasing(Protocol):
    """Grants leases and ends them."""

    def acquire(self, request: LeaseRequest) -> tuple[Lease, ...]:
        """See `Broker.acquire`."""

    def release(self, job_id: int, reason: str, *, run: str = "", others: bool = False) -> tuple[Lease, ...]:
        """See `Broker.release`."""

    def refuse(self, refusal: Refusal) -> object:
        """See `Broker.refuse`."""
