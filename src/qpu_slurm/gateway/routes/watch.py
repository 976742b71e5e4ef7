# SPDX-License-Identifier: Apache-2.0
"""Health and metrics of the gateway. They need no credential, and contain no secret."""

from __future__ import annotations

import asyncio

from aiohttp import web

from qpu_slurm.errors import JournalError
from qpu_slurm.gateway.answers import json_answer
from qpu_slurm.gateway.gateway import GATEWAY, Gateway
from qpu_slurm.gateway.metrics import CONTENT_TYPE

ROUTES = web.RouteTableDef()

_READ_SECONDS = 3.0
"""How long a look into the journal may take: monitoring gives up after five seconds or more."""


@ROUTES.get("/healthz/live")
async def live(_: web.Request) -> web.Response:
    """Answer as long as the event loop runs: whoever gets no answer restarts the gateway, as systemd does."""
    return json_answer({"status": "alive"})


@ROUTES.get("/healthz")
async def ready(request: web.Request) -> web.Response:
    """Report whether jobs can start and end through this gateway: what a load balancer needs to know.

    Services and Slurm may be away: the hooks get an answer then, too, and a restart helps neither. The
    digests of the configuration show whether another host's file is the same. `journal` reports what became
    of a lost one. `socket` is who holds the socket under systemd: `systemd` or `own`.
    """
    gateway = request.app[GATEWAY]
    if why := await _why_not_ready(gateway):
        return json_answer({"status": why}, 503)
    losses = gateway.losses
    health = {"status": "ok", "configuration": gateway.digests}
    if gateway.socket:
        health["socket"] = gateway.socket
    return json_answer(health | ({"journal": losses[-1]} if losses else {}))


async def _why_not_ready(gateway: Gateway) -> str:
    """Return why the gateway cannot do its work now; empty if it can."""
    if gateway.limiter.draining:
        return "the gateway stops"
    try:
        async with asyncio.timeout(_READ_SECONDS):
            await gateway.pools.watch.run(gateway.observer.find, 0)
    except JournalError:
        return "the journal cannot be read"
    except TimeoutError:
        return f"the journal could not be read within {_READ_SECONDS:g} s"
    return "the journal is damaged" if gateway.damage else ""


@ROUTES.get("/metrics")
async def metrics(request: web.Request) -> web.Response:
    """Return the metrics for Prometheus."""
    gateway = request.app[GATEWAY]
    text = await gateway.pools.watch.run(gateway.metrics.text)
    return web.Response(body=text, headers={"Content-Type": CONTENT_TYPE})
