# SPDX-License-Identifier: Apache-2.0
"""What the job's QPU is like, as the server tells it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec
from aiohttp import web

from qpu_slurm.gateway.answers import json_answer
from qpu_slurm.gateway.ibm.requests import read_as
from qpu_slurm.gateway.iqm.dialect import IQM
from qpu_slurm.gateway.iqm.requests import held, own_qpu
from qpu_slurm.gateway.relay import relay

if TYPE_CHECKING:
    from qpu_slurm.gateway.callers import Caller

ROUTES = web.RouteTableDef()

_QPU: Final = "/quantum-computers/{qc}"
_CALIBRATION: Final = "/calibration-sets/{qc}/{set:[A-Za-z0-9-]{1,64}}"


class _Listing(msgspec.Struct):
    """GET /quantum-computers."""

    quantum_computers: list[dict[str, Any]]


@ROUTES.get("/quantum-computers")
@held
async def list_qpus(request: web.Request, caller: Caller) -> web.StreamResponse:
    """List the job's QPU, and no other."""
    async with request.app[IQM].server(caller).raw.send("GET", "quantum-computers") as answer:
        listing = await read_as(answer, _Listing)
    own = [
        # Nothing of a job goes to the station itself.
        found | {"proxy_path": None}
        for found in listing.quantum_computers
        if caller.qpu.backend in {found.get("alias"), found.get("id")}
    ]
    return json_answer({"quantum_computers": own})


@ROUTES.get(_QPU)
@ROUTES.get(_QPU + "/{what:health|limits|queue-availability}")
@ROUTES.get(_QPU + "/{what:artifacts}/{artifact:[A-Za-z0-9_-]{1,64}}")
@held
async def show_qpu(request: web.Request, caller: Caller) -> web.StreamResponse:
    """Show something of the QPU."""
    parts = [own_qpu(request, caller), *_given(request, "what", "artifact")]
    async with request.app[IQM].server(caller).raw.send("GET", "quantum-computers", *parts) as answer:
        return await relay(request, answer)


@ROUTES.get(_CALIBRATION)
@ROUTES.get(_CALIBRATION + "/{what:dynamic-quantum-architecture|metrics}")
@held
async def show_calibration(request: web.Request, caller: Caller) -> web.StreamResponse:
    """Show something of a calibration."""
    parts = [own_qpu(request, caller), *_given(request, "set", "what")]
    async with request.app[IQM].server(caller).raw.send("GET", "calibration-sets", *parts) as answer:
        return await relay(request, answer)


def _given(request: web.Request, *names: str) -> list[str]:
    return [request.match_info[name] for name in names if name in request.match_info]
