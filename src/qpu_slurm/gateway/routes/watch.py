# SPDX-License-Identifier: Apache-2.0
"""Health and metrics of the gateway. They need no credential, and contain no secret."""

from __future__ import annotations

from aiohttp import web

from qpu_slurm.errors import JournalError
from qpu_slurm.gateway.answers import json_answer
from qpu_slurm.gateway.gateway import GATEWAY
from qpu_slurm.gateway.metrics import CONTENT_TYPE

ROUTES = web.RouteTableDef()


@ROUTES.get("/healthz")
async def health(request: web.Request) -> web.Response:
    """Say whether requests can be served: the journal can be read. What became of a lost one is added.

    The digests of the configuration tell whether this host's file, or another's, says the same. Under
    systemd, it says whose the socket is: `systemd` or `own`.
    """
    gateway = request.app[GATEWAY]
    try:
        await gateway.pools.watch.run(gateway.observer.find, 0)
    except JournalError:
        return json_answer({"status": "the journal cannot be read"}, 503)
    if gateway.damage:
        return json_answer({"status": "the journal is damaged"}, 503)
    losses = gateway.losses
    health = {"status": "ok", "configuration": gateway.digests}
    if gateway.socket:
        health["socket"] = gateway.socket
    return json_answer(health | ({"journal": losses[-1]} if losses else {}))


@ROUTES.get("/metrics")
async def metrics(request: web.Request) -> web.Response:
    """Return the metrics for Prometheus."""
    gateway = request.app[GATEWAY]
    text = await gateway.pools.watch.run(gateway.metrics.text)
    return web.Response(body=text, headers={"Content-Type": CONTENT_TYPE})
