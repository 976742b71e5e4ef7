# SPDX-License-Identifier: Apache-2.0
"""The broker, as hooks and commands reach it: through the cluster's gateway, or without one.

A cluster with a gateway has its broker and journal there, and `gateway/client.py` sends each call to it. On a
cluster without one, `local.py` opens the journal and does the same in this process. Nothing but this module
chooses between them.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from qpu_slurm.lifecycle.leasing import Leasing

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qpu_slurm.config import Config
    from qpu_slurm.journal.balances import Balance
    from qpu_slurm.leases.availability import QpuReport
    from qpu_slurm.leases.job_history import JobHistory


class JobBroker(Leasing, Protocol):
    """What hooks and commands ask of a broker, wherever it runs."""

    def qpus(self) -> tuple[QpuReport, ...]:
        """Report the state of every QPU; see `Availability.look`."""

    def budgets(self, user_id: int) -> tuple[Balance, ...]:
        """Return the balance of every budget that limits a user; behind a gateway, who asks is the user."""

    def history(self, job_id: int) -> JobHistory:
        """Return what is known of a job; see `job_history.read`."""


@contextmanager
def broker(config: Config, *, make: bool = True) -> Iterator[JobBroker]:
    """Reach the broker that grants leases and ends them.

    Args:
        config: What the admin wrote.
        make: Create the journal if there is none and this process is to have it.

    Raises:
        JournalError: This process is to have the journal, and it cannot be opened.
    """
    # Each is imported where it is needed: hooks do not wait for the other.
    if config.gateway is not None:
        from qpu_slurm.gateway.client import GatewayBroker  # noqa: PLC0415

        yield GatewayBroker(config)
        return
    from qpu_slurm.reach.local import LocalBroker, open_journal  # noqa: PLC0415

    with open_journal(config, make=make) as journal:
        yield LocalBroker(config, journal)


@contextmanager
def records(config: Config) -> Iterator[JobBroker]:
    """Reach a broker to read from: the journal, where this user may open it here; else the gateway.

    Raises:
        JournalError: There is no gateway, and the journal cannot be opened.
    """
    if config.gateway is not None and not os.access(config.journal, os.R_OK | os.W_OK):
        with broker(config) as there:
            yield there
        return
    from qpu_slurm.reach.local import LocalBroker, open_journal  # noqa: PLC0415

    with open_journal(config) as journal:
        yield LocalBroker(config, journal)
