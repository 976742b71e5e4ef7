# SPDX-License-Identifier: Apache-2.0
"""The routes of IQM's dialect. Its clients know no path below a host and a port.

So some paths are IBM's as well. There, the credential says which dialect a request speaks: IQM's clients show
the job key itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from aiohttp import web

from qpu_slurm.gateway.ibm import tasks as ibm_tasks
from qpu_slurm.gateway.iqm import jobs, qpus
from qpu_slurm.gateway.iqm.requests import shows_job_key

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_SHARED = web.RouteTableDef()


def _or_ibms(handler: Handler) -> Handler:
    """Leave a request to IBM's dialect that shows no job key."""

    async def serve(request: web.Request) -> web.StreamResponse:
        return await (handler if shows_job_key(request) else ibm_tasks.task)(request)

    return serve


_SHARED.get(jobs.JOB)(_or_ibms(jobs.show))
_SHARED.delete(jobs.JOB)(_or_ibms(jobs.delete))
_SHARED.post(jobs.JOB + "/{what:cancel}")(_or_ibms(jobs.cancel))

ROUTES: Final = tuple(("/api/v1", routes) for routes in (_SHARED, qpus.ROUTES, jobs.ROUTES))
"""Prefixes, and what is below them. They come before IBM's, and are all of IQM's."""
