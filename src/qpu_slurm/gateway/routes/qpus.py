# SPDX-License-Identifier: Apache-2.0
"""How the QPUs are, for everybody who has an account on the cluster: why jobs wait is no secret.

Nothing is asked for it: what the last look has seen is brought up to date with the journal.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from aiohttp import web

from qpu_slurm.gateway.routes.control import signed
from qpu_slurm.leases.availability import as_now, not_checked, with_access

if TYPE_CHECKING:
    from qpu_slurm.gateway.gateway import Gateway
    from qpu_slurm.leases.availability import QpuReport

ROUTES = web.RouteTableDef()

_FIRST_LOOK_SECONDS = 3.0
"""How long to wait for the first check of the QPUs; who asks waits for five."""


@ROUTES.get("/qpus")
@signed
async def qpus(_: web.Request, gateway: Gateway, _body: bytes, uid: int) -> object:
    """Tell how the QPUs are, and which the user who asks may use."""
    if uid not in gateway.trusted:
        gateway.looks_per_minute.one(uid)
    if gateway.reports is None:  # it has just started
        with suppress(TimeoutError):
            async with asyncio.timeout(_FIRST_LOOK_SECONDS):
                await gateway.looked.wait()
    reports = gateway.reports or not_checked(gateway.config)
    config = gateway.config

    def own() -> tuple[QpuReport, ...]:
        return with_access(as_now(reports, gateway.observer), config, uid)

    return await gateway.pools.queries.run(own)
