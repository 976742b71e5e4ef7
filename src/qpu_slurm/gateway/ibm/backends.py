# SPDX-License-Identifier: Apache-2.0
"""The QPU that the lease is on, and what the instance has used."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from aiohttp import web

from qpu_slurm.gateway.answers import ApiError, json_answer
from qpu_slurm.gateway.ibm.dialect import IBM
from qpu_slurm.gateway.ibm.requests import client_headers, held, own, query_of, read_as
from qpu_slurm.gateway.relay import relay

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
    upstream = request.app[IBM].upstream(caller.qpu.name)
    headers = client_headers(request) | {"Accept-Encoding": "identity"}
    async with upstream.send("GET", "backends", query=query_of(request), headers=headers) as answer:
        devices = (await read_as(answer, _Devices)).devices
    own = [device for device in devices if _name(device) == caller.qpu.backend]
    return json_answer({"devices": own})


@ROUTES.get("/backends/{name}/{what:configuration|properties|status|defaults}")
@held
async def describe(request: web.Request, caller: Caller) -> web.StreamResponse:
    """Describe the QPU."""
    name, what = request.match_info["name"], request.match_info["what"]
    own("backend", name, caller.qpu.backend)
    upstream = request.app[IBM].upstream(caller.qpu.name)
    query, headers = query_of(request), client_headers(request)
    async with upstream.send("GET", "backends", name, what, query=query, headers=headers) as answer:
        return await relay(request, answer)


@ROUTES.get("/instances/usage")
@held
async def usage(request: web.Request, caller: Caller) -> web.StreamResponse:
    """Tell what the instance has used; the runtime client asks at every submission."""
    upstream = request.app[IBM].upstream(caller.qpu.name)
    async with upstream.send("GET", "instances", "usage", headers=client_headers(request)) as answer:
        return await relay(request, answer)


def _name(device: msgspec.Raw) -> str:
    try:
        listed = _DEVICE.decode(device)
    except msgspec.MsgspecError:
        raise ApiError(502, "The quantum service's answer cannot be understood.", kind="upstream") from None
    return listed if isinstance(listed, str) else listed.name
