# SPDX-License-Identifier: Apache-2.0
"""The state of IQM's dialect: the servers behind the gateway."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from aiohttp import web

from qpu_slurm.config import IqmServerQpu
from qpu_slurm.gateway.answers import unauthorized
from qpu_slurm.gateway.iqm.service import service_of
from qpu_slurm.gateway.iqm.upstream import IqmUpstream

if TYPE_CHECKING:
    from qpu_slurm.gateway.callers import Caller
    from qpu_slurm.gateway.gateway import Gateway
    from qpu_slurm.gateway.ibm.upstream import HttpUpstream


class Server(NamedTuple):
    """An IQM Server as the dialect needs it: what it says itself, and what is done with its provider."""

    raw: HttpUpstream
    tasks: IqmUpstream


class IqmDialect:
    """The servers, by QPU; see `gateway.Dialect`.

    Args:
        gateway: The gateway.
    """

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._servers: dict[str, Server] = {}

    def renew(self) -> None:
        """Apply the gateway's current QPUs and connections."""
        self._servers = {
            name: Server(service_of(qpu, self._gateway), IqmUpstream(qpu, self._gateway))
            for name, qpu in self._gateway.config.qpus.items()
            if isinstance(qpu, IqmServerQpu)
        }

    def server(self, caller: Caller) -> Server:
        """Return the server of a job's QPU.

        Raises:
            ApiError: The QPU is none of an IQM Server.
        """
        found = self._servers.get(caller.qpu.name)
        if found is None:
            raise unauthorized(f"This is the key of a job on {caller.qpu.name}, which is no QPU of IQM's.")
        return found


IQM = web.AppKey("iqm", IqmDialect)
