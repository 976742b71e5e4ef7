# SPDX-License-Identifier: Apache-2.0
"""The broker and the journal in this process."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from qpu_slurm.errors import ConfigError, NoJournalError, SlurmError
from qpu_slurm.journal.journal import Journal
from qpu_slurm.leases.broker import Broker

if TYPE_CHECKING:
    from qpu_slurm.config import Config, SlurmConfig
    from qpu_slurm.journal.balances import Balance
    from qpu_slurm.leases.availability import QpuReport
    from qpu_slurm.leases.job_history import JobHistory
    from qpu_slurm.slurm.job import JobRecord


class LocalBroker(Broker):
    """A broker that also reads from the journal and from Slurm what a gateway would answer."""

    def qpus(self) -> tuple[QpuReport, ...]:
        """Report the state of every QPU, and which this process's user may use; see `Availability.look`."""
        # Here, since hooks have no use for it.
        from qpu_slurm.leases.availability import Availability, with_access  # noqa: PLC0415
        from qpu_slurm.slurm.control import Control  # noqa: PLC0415
        from qpu_slurm.slurm.licenses import Licenses  # noqa: PLC0415

        slurm = self._config.slurm
        availability = Availability(self._config, self._journal, Control(slurm), Licenses(slurm))
        return with_access(availability.look(jobs_of(slurm)), self._config, os.getuid())

    def budgets(self, user_id: int) -> tuple[Balance, ...]:
        """Return the balance of every budget that limits a user."""
        from qpu_slurm.leases.budgets import balances_of  # noqa: PLC0415 - likewise

        return balances_of(self._config, self._journal, user_id)

    def history(self, job_id: int) -> JobHistory:
        """Return what is known of a job; see `job_history.read`."""
        from qpu_slurm.leases import job_history  # noqa: PLC0415 - likewise

        return job_history.read(self._journal, self._config.slurm, job_id)


def jobs_of(slurm: SlurmConfig) -> list[JobRecord] | None:
    """Return Slurm's jobs; None if Slurm does not answer."""
    from qpu_slurm.slurm.query import connect  # noqa: PLC0415 - likewise

    try:
        return connect(slurm).jobs()
    except SlurmError:
        return None


def is_here(config: Config) -> bool:
    """Return whether this is the host of keys and journal: the gateway's, or the controller without one."""
    if config.gateway is None:
        return True
    host = urlsplit(config.gateway.url).hostname
    with suppress(OSError):
        for family, *_, address in socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM):
            with suppress(OSError), socket.socket(family, socket.SOCK_STREAM) as probe:
                # Only an address of this machine can be bound.
                probe.bind(address)
                return True
    return False


def open_journal(config: Config, *, make: bool = False) -> Journal:
    """Open the journal on this host.

    Args:
        config: What the admin wrote.
        make: Create it if there is none. An empty journal on the wrong host would hide where the journal is.

    Raises:
        ConfigError: With `make`, the journal belongs on another host.
        NoJournalError: There is none; the message says where it is.
        JournalError: It cannot be opened.
    """
    if make and not is_here(config):
        raise ConfigError("The journal is on the gateway's host: do this there, with its configuration.")
    try:
        return Journal(config.journal, make=make)
    except NoJournalError as error:
        run = "Run this there, as root or SlurmUser."
        if config.gateway is not None:
            url = config.gateway.url
            where = f"It is on the host of the gateway {url}, with the gateway's configuration. {run}"
        else:
            where = f"It is on the controller. {run} If this is the controller, no job has had a QPU yet."
        raise NoJournalError(f"{error} {where}") from None
