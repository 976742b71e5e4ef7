# SPDX-License-Identifier: Apache-2.0
"""The lease's QPU, and the usage of the instance."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from aiohttp import web

from qpu_slurm.gateway.answers import ApiError, json_answer
from qpu_slurm.gateway.ibm.dialect import IBM
from qpu_slurm.gateway.ibm.requests import decoded, held, own

if TYPE_CHECKING:
    from qpu_slurm.gateway.callers import Caller

ROUTES = web.RouteTableDef()


class _Devices(msgspec.Struct):
    devices: list[msgspec.Raw]


class _Device(msgspec.Struct):
    name: str


_DEVICE = msgspec.json.Decoder(_Device | str)
"""How the service lists a QPU: as an object; by name where no API version after 2024-01-01 is asked for."""


@ROUTES.get("/backends")
@held
async def list_backends(request: web.Request, caller: Caller) -> web.StreamResponse:
    """List the QPU, as the service describes it."""
    found = await request.app[IBM].copies(caller.qpu.name).answer(request, caller, "backends")
    devices = decoded(found.status, found.headers, found.body, _Devices).devices
    own = [device for device in devices if _name(device) == caller.qpu.backend]
    return json_answer({"devices": own})


@ROUTES.get("/backends/{name}/{what:configuration|properties|status|defaults}")
@held
async def describe(request: web.Request, caller: Caller) -> web.StreamResponse:
    """Describe the QPU."""
    name, what = request.match_info["name"], request.match_info["what"]
    own("backend", name, caller.qpu.backend)
    copies = request.app[IBM].copies(caller.qpu.name)
    return (await copies.answer(request, caller, "backends", name, what)).response()


@ROUTES.get("/instances/usage")
@held
async def usage(request: web.Request, caller: Caller) -> web.StreamResponse:
    """Return the usage of the instance. The runtime client requests it at every submission."""
    copies = request.app[IBM].copies(caller.qpu.name)
    return (await copies.answer(request, caller, "instances", "usage")).response()


def _name(device: msgspec.Raw) -> str:
    try:
        listed = _DEVICE.decode(device)
    except msgspec.MsgspecError:
        raise ApiError(502, "The quantum service's answer cannot be understood.", kind="upstream") from None
    return listed if isinstance(listed, str) else listed.name
