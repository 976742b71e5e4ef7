# SPDX-License-Identifier: Apache-2.0
"""What is known of a job: for who ran it, signed with MUNGE as all that is the gateway's own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

from qpu_slurm.errors import Refused
from qpu_slurm.gateway.routes.control import signed
from qpu_slurm.leases import job_history

if TYPE_CHECKING:
    from qpu_slurm.gateway.gateway import Gateway

ROUTES = web.RouteTableDef()


@ROUTES.get("/jobs/{job:[0-9]{1,10}}/history")
@signed
async def history(request: web.Request, gateway: Gateway, _: bytes, uid: int) -> object:
    """Tell what is known of a job to its user, or to Slurm."""
    job_id = int(request.match_info["job"])
    found = await gateway.apart(job_history.read, gateway.reader, gateway.config.slurm, job_id)
    if uid not in gateway.trusted and found.users != {uid}:
        raise Refused(f"Job {job_id} is not a job of user {uid}.")
    return found
