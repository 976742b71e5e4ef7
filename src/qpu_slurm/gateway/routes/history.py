# SPDX-License-Identifier: Apache-2.0
"""The history of a job, for its user. MUNGE signs the request."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

from qpu_slurm.errors import RefusedError
from qpu_slurm.gateway.routes.control import signed
from qpu_slurm.leases import job_history

if TYPE_CHECKING:
    from qpu_slurm.gateway.gateway import Gateway

ROUTES = web.RouteTableDef()


@ROUTES.get("/jobs/{job:[0-9]{1,10}}/history")
@signed
async def history(request: web.Request, gateway: Gateway, _: bytes, uid: int) -> object:
    """Return the history of a job to its user, or to Slurm."""
    job_id = int(request.match_info["job"])

    async def read() -> job_history.JobHistory:
        return await gateway.pools.queries.run(
            job_history.read, gateway.observer, gateway.config.slurm, job_id
        )

    if uid in gateway.trusted:
        return await read()
    # The journal is a file, and Slurm a program to start. So Slurm is asked for the job's own user only, or
    # for a job that never got a lease, whose user only Slurm knows.
    leases = gateway.reader.leases(job_id=job_id, over=True)
    if leases and leases[-1].user_id != uid:
        raise _not_his(job_id)
    with gateway.histories.one(uid):
        gateway.histories_per_minute.one(uid)
        found = await read()
    if found.users != {uid}:
        raise _not_his(job_id)
    return found


def _not_his(job_id: int) -> RefusedError:
    return RefusedError(f"Job {job_id} belongs to another user.")
