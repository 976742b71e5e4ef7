# SPDX-License-Identifier: Apache-2.0
"""How the QPUs are, for everybody who has an account on the cluster: why jobs wait is no secret.

Nothing is asked for it: what the last look has seen is brought up to date with the journal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

from qpu_slurm.errors import UnavailableError
from qpu_slurm.gateway.routes.control import signed
from qpu_slurm.leases.availability import as_now

if TYPE_CHECKING:
    from qpu_slurm.gateway.gateway import Gateway

ROUTES = web.RouteTableDef()


@ROUTES.get("/qpus")
@signed
async def qpus(_: web.Request, gateway: Gateway, _body: bytes, uid: int) -> object:
    """Tell how the QPUs are."""
    if uid not in gateway.trusted:
        gateway.looks_per_minute.one(uid)
    if gateway.reports is None:
        raise UnavailableError("The gateway has just started, and has not checked the QPUs yet. Try again.")
    return await gateway.pools.queries.run(as_now, gateway.reports, gateway.reader)
