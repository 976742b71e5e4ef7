# SPDX-License-Identifier: Apache-2.0
"""The IQM Server behind the gateway, asked with the admin's token."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog

from qpu_slurm.errors import QpuSlurmError
from qpu_slurm.gateway.answers import unavailable
from qpu_slurm.gateway.ibm.upstream import HttpUpstream

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from qpu_slurm.config import IqmServerQpu
    from qpu_slurm.gateway.gateway import Gateway
    from qpu_slurm.system.secret import Secret

_log = structlog.get_logger(__name__)


class KeyAsToken:
    """The admin's token, from its file; read again after it was refused, so a new one needs no restart.

    Args:
        qpu: The QPU with the token.
        pool: Where the file is read.
    """

    def __init__(self, qpu: IqmServerQpu, pool: Executor) -> None:
        self._qpu = qpu
        self._pool = pool
        self._token: Secret | None = None

    async def token(self) -> Secret:
        """Return the token; see `Tokens`."""
        if self._token is None:
            try:
                self._token = await _in(self._pool, self._qpu)
            except QpuSlurmError as error:
                _log.error("no token for the service", qpu=self._qpu.name, why=str(error))
                raise unavailable(f"The gateway has no access to {self._qpu.name} now.") from None
        return self._token

    def refused(self, token: Secret) -> None:
        """Drop a refused token."""
        if self._token is token:
            self._token = None


def service_of(qpu: IqmServerQpu, gateway: Gateway) -> HttpUpstream:
    """Return the server behind a QPU."""
    tokens = KeyAsToken(qpu, gateway.pools.short.executor)
    base = f"{qpu.endpoint.rstrip('/')}/api/v1"
    return HttpUpstream(qpu, base, gateway.client, tokens, {"Accept": "application/json"})


async def _in(pool: Executor, qpu: IqmServerQpu) -> Secret:
    return await asyncio.get_running_loop().run_in_executor(pool, qpu.key)
