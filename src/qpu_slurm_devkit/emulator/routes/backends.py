# SPDX-License-Identifier: Apache-2.0
"""The QPUs, and what the instance has used of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

from qpu_slurm_devkit.emulator.answers import json_answer
from qpu_slurm_devkit.emulator.routes.common import caller
from qpu_slurm_devkit.emulator.service import SERVICE

if TYPE_CHECKING:
    from qpu_slurm_devkit.emulator.backends import Backend
    from qpu_slurm_devkit.emulator.qpu import Qpu

ROUTES = web.RouteTableDef()

_LISTS_NAMES = "2024-01-01"
"""The version of the API up to which QPUs are listed by name (IBM's API text); qrmi asks for 2025-01-01, and
qiskit-ibm-runtime for a later one: both read objects."""

# The Open plan's ten minutes in 28 days.
_OPEN_PLAN_SECONDS = 600


@ROUTES.get("/backends")
async def list_backends(request: web.Request) -> web.Response:
    """List the QPUs: by name alone, unless the client asks for a version of the API that says more."""
    caller(request)
    qpus = request.app[SERVICE].qpus
    if request.headers.get("IBM-API-Version", "") <= _LISTS_NAMES:  # dates, so the older is the lesser
        return json_answer({"devices": list(qpus)})
    return json_answer({"devices": [qpu.backend.device(qpu.pending) for qpu in qpus.values()]})


@ROUTES.get("/backends/{name}/configuration")
async def configuration(request: web.Request) -> web.Response:
    """Give a QPU's configuration."""
    return web.Response(body=_qpu(request).backend.configuration, content_type="application/json")


@ROUTES.get("/backends/{name}/properties")
async def properties(request: web.Request) -> web.Response:
    """Give a QPU's last calibration, whichever was asked for: there is but one."""
    return web.Response(body=_qpu(request).backend.properties, content_type="application/json")


@ROUTES.get("/backends/{name}/status")
async def status(request: web.Request) -> web.Response:
    """Tell whether a QPU is up."""
    qpu = _qpu(request)
    return json_answer(qpu.backend.status_document(qpu.pending))


@ROUTES.get("/instances/usage")
async def usage(request: web.Request) -> web.Response:
    """Tell what the instance has used: its sessions' active time, and the tasks outside of sessions."""
    account = caller(request)
    service = request.app[SERVICE]
    now = service.clock.now()
    sessions = (s.locked_seconds(now) for s in service.sessions.values() if s.account.crn == account.crn)
    alone = (
        task.seconds(now)
        for task in service.tasks.values()
        if task.account.crn == account.crn and task.session is None
    )
    consumed = sum(sessions) + sum(alone)
    document = {
        "instance_id": account.crn,
        "plan_id": f"plan-of-{account.plan}",
        "usage_consumed_seconds": round(consumed, 3),
    }
    if account.plan == "open":
        document |= {
            "usage_allocation_seconds": _OPEN_PLAN_SECONDS,
            "usage_limit_reached": consumed >= _OPEN_PLAN_SECONDS,
        }
    return json_answer(document)


def _qpu(request: web.Request) -> Qpu[Backend]:
    caller(request)
    return request.app[SERVICE].qpu(request.match_info["name"])
