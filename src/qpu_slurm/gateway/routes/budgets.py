# SPDX-License-Identifier: Apache-2.0
"""The budgets that limit a user, for that user. MUNGE signs the request."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

from qpu_slurm.gateway.routes.control import signed
from qpu_slurm.leases.budgets import balances_of

if TYPE_CHECKING:
    from qpu_slurm.gateway.gateway import Gateway

ROUTES = web.RouteTableDef()


@ROUTES.get("/budgets")
@signed
async def budgets(_: web.Request, gateway: Gateway, _body: bytes, uid: int) -> object:
    """Return the balance of every budget that limits the user who asks."""
    with gateway.histories.one(uid):
        gateway.histories_per_minute.one(uid)
        return await gateway.pools.queries.run(balances_of, gateway.config, gateway.observer, uid)
