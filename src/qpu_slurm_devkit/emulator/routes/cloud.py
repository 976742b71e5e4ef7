# SPDX-License-Identifier: Apache-2.0
"""The parts of IBM Cloud that clients need before they reach the API: IAM, Global Search, Global Catalog."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

from qpu_slurm_devkit.emulator.answers import json_answer
from qpu_slurm_devkit.emulator.service import SERVICE

if TYPE_CHECKING:
    from qpu_slurm_devkit.emulator.settings import Account

ROUTES = web.RouteTableDef()

_GRANT = "urn:ibm:params:oauth:grant-type:apikey"
_PRICING = {"premium": "subscription", "open": "free"}


@ROUTES.post("/identity/token")
async def issue_token(request: web.Request) -> web.Response:
    """Turn an API key into a token."""
    form = await request.post()
    identity = request.app[SERVICE].identity
    if form.get("grant_type") != _GRANT:
        return _iam_error("BXNIM0102E", "Unable to get a token: the grant type is not supported.")
    token = identity.issue(str(form.get("apikey", "")))
    if token is None:
        return _iam_error("BXNIM0415E", "Provided API key could not be found.")
    return json_answer(token)


@ROUTES.post("/v3/resources/search")
async def search(request: web.Request) -> web.Response:
    """List the caller's instances."""
    instances = request.app[SERVICE].identity.instances(request)
    items = [
        {
            "crn": account.crn,
            "name": account.name,
            "service_plan_unique_id": _plan_id(account),
            # Instances without an allocation are passed over by clients.
            "doc": {"extensions": {"backends": list(request.app[SERVICE].qpus)}},
            "tags": [],
        }
        for account in instances
    ]
    return json_answer({"items": items, "limit": len(items)})


@ROUTES.get("/catalog/{plan}")
async def describe_plan(request: web.Request) -> web.Response:
    """Describe a plan."""
    plan = request.match_info["plan"].removeprefix("plan-of-")
    if plan not in _PRICING:
        raise web.HTTPNotFound
    return json_answer(
        {
            "id": request.match_info["plan"],
            "name": plan,
            "kind": "plan",
            "overview_ui": {"en": {"display_name": plan.capitalize()}},
            "metadata": {"pricing": {"type": _PRICING[plan]}},
        }
    )


def _plan_id(account: Account) -> str:
    return f"plan-of-{account.plan}"


def _iam_error(code: str, message: str) -> web.Response:
    """Refuse, in IAM's own shape."""
    return json_answer(
        {"errorCode": code, "errorMessage": message, "context": {"requestId": "emulator"}}, 400
    )
