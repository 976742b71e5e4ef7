# SPDX-License-Identifier: Apache-2.0
"""The parts of IBM Cloud that clients need before they reach the API: IAM, Global Search, Global Catalog.

The gateway answers all of them: a job key is not an IAM key, and compute nodes need no internet access.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import parse_qs

import structlog
from aiohttp import web

from qpu_slurm.gateway.answers import ApiError, json_answer
from qpu_slurm.gateway.gateway import GATEWAY
from qpu_slurm.gateway.ibm.dialect import IBM
from qpu_slurm.gateway.ibm.requests import held
from qpu_slurm.gateway.requests import begin, small_body

if TYPE_CHECKING:
    from qpu_slurm.gateway.callers import Caller

ROUTES = web.RouteTableDef()

_GRANT = "urn:ibm:params:oauth:grant-type:apikey"
_PLAN = "slurm"

_log = structlog.get_logger(__name__)


@ROUTES.post("/identity/token")
async def give_token(request: web.Request) -> web.Response:
    """Return a token for a job key."""
    gateway = request.app[GATEWAY]
    try:
        form = parse_qs((await small_body(request)).decode("ascii"), max_num_fields=20)
    except ValueError:
        form = {}
    if form.get("grant_type") != [_GRANT]:
        return _refuse("BXNIM0102E", "Unable to get a token: the grant type is not supported.")
    try:
        caller = gateway.callers.of_key(form.get("apikey", [""])[0])
    except ApiError as error:
        if error.temporary:  # the key could not be checked
            raise
        gateway.metrics.errors.labels(error.kind).inc()
        _log.warning("key refused", why=error.message, peer=request.remote)
        return _refuse("BXNIM0415E", error.message)
    request["caller"] = caller
    begin(request, caller.lease.user_id)
    gateway.credit.earn(caller.lease.id)
    return json_answer(request.app[IBM].tokens.answer(caller.lease))


@ROUTES.post("/v3/resources/search")
@held
async def search(request: web.Request, caller: Caller) -> web.Response:
    """List the caller's instances: the one that its lease is on."""
    request.app[GATEWAY].credit.earn(caller.lease.id)
    # A client that searches has just started.
    request.app[IBM].copies(caller.qpu.name).foresee_start(caller.lease.id)
    item = {
        "crn": caller.qpu.instance,
        "name": caller.qpu.name,
        "service_plan_unique_id": _PLAN,
        # Clients skip instances without an allocation.
        "doc": {"extensions": {"backends": [caller.qpu.backend]}},
        "tags": [],
    }
    return json_answer({"items": [item], "limit": 1})


@ROUTES.get("/catalog/{plan}")
async def describe_plan(request: web.Request) -> web.Response:
    """Describe the only plan. It contains no secret, and some clients send no token."""
    if request.match_info["plan"] != _PLAN:
        raise web.HTTPNotFound
    return json_answer(
        {
            "id": _PLAN,
            "name": _PLAN,
            "kind": "plan",
            "overview_ui": {"en": {"display_name": _PLAN.capitalize()}},
            "metadata": {"pricing": {"type": "subscription"}},
        }
    )


def _refuse(code: str, message: str) -> web.Response:
    """Return an error in IAM's shape."""
    return json_answer(
        {"errorCode": code, "errorMessage": message, "context": {"requestId": "qpu-slurm"}}, 400
    )
