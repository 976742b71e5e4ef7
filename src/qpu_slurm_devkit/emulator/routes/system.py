# SPDX-License-Identifier: Apache-2.0
"""What the IBM Quantum System API answers, and its storage."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aiohttp import web

from qpu_slurm_devkit.emulator.answers import json_answer
from qpu_slurm_devkit.emulator.routes.common import body, caller
from qpu_slurm_devkit.emulator.service import SERVICE
from qpu_slurm_devkit.emulator.system.storage import PREFIX as STORAGE_PREFIX
from qpu_slurm_devkit.emulator.system.tasks import SystemTaskRequest

if TYPE_CHECKING:
    from qpu_slurm_devkit.emulator.backends import Backend
    from qpu_slurm_devkit.emulator.qpu import Qpu
    from qpu_slurm_devkit.emulator.system.system import System
    from qpu_slurm_devkit.emulator.system.tasks import SystemTask

PREFIX = "/system"

ROUTES = web.RouteTableDef()
STORAGE_ROUTES = web.RouteTableDef()

_VERSIONS = ("2025-08-01", "2025-08-15")


@ROUTES.get("/version")
async def version(_: web.Request) -> web.Response:
    """Tell the latest version of the API."""
    return json_answer({"version": _VERSIONS[-1]})


@ROUTES.get("/versions")
async def versions(_: web.Request) -> web.Response:
    """List the versions of the API."""
    return json_answer({"versions": _VERSIONS})


@ROUTES.get("/v1/backends")
async def list_backends(request: web.Request) -> web.Response:
    """List the QPUs."""
    caller(request)
    qpus = request.app[SERVICE].qpus.values()
    return json_answer({"backends": [_backend(qpu) for qpu in qpus]})


@ROUTES.get("/v1/backends/{name}")
async def show_backend(request: web.Request) -> web.Response:
    """Tell whether a QPU is up."""
    return json_answer(_backend(_qpu(request)))


@ROUTES.get("/v1/backends/{name}/configuration")
async def configuration(request: web.Request) -> web.Response:
    """Give a QPU's configuration."""
    return web.Response(body=_qpu(request).backend.configuration, content_type="application/json")


@ROUTES.get("/v1/backends/{name}/properties")
async def properties(request: web.Request) -> web.Response:
    """Give a QPU's last calibration."""
    return web.Response(body=_qpu(request).backend.properties, content_type="application/json")


@ROUTES.get("/v1/backends/{name}/lanes")
async def lanes(request: web.Request) -> web.Response:
    """Tell how many tasks a QPU holds at once, for the centre and for IBM's cloud."""
    _qpu(request)
    of_centre = {"lanes": _system(request).lanes}
    return json_answer({"hpc_workload_manager": of_centre, "ibm_quantum_compute": {"lanes": 0}})


@ROUTES.post("/v1/jobs")
async def submit(request: web.Request) -> web.Response:
    """Take a task. Whether its input is there, and can be executed, shows when it is."""
    account = caller(request)
    _system(request).submit(account, await body(request, SystemTaskRequest))
    return web.Response(status=204)


@ROUTES.get("/v1/jobs")
async def list_tasks(request: web.Request) -> web.Response:
    """List the instance's tasks, the oldest first; those that were deleted are not among them."""
    account = caller(request)
    now = request.app[SERVICE].clock.now()
    tasks = (task for task in _system(request).tasks.values() if task.account.crn == account.crn)
    return json_answer({"jobs": [task.description(now) for task in tasks]})


@ROUTES.get("/v1/jobs/{id}")
async def show_task(request: web.Request) -> web.Response:
    """Show a task."""
    return json_answer(_task(request).description(request.app[SERVICE].clock.now()))


@ROUTES.post("/v1/jobs/{id}/cancel")
async def cancel(request: web.Request) -> web.Response:
    """End a task that has not ended."""
    _system(request).cancel(_task(request))
    return web.Response(status=204)


@ROUTES.delete("/v1/jobs/{id}")
async def delete(request: web.Request) -> web.Response:
    """Forget a task that is over."""
    _system(request).delete(_task(request))
    return web.Response(status=204)


@STORAGE_ROUTES.route("*", STORAGE_PREFIX + "/{bucket}")
@STORAGE_ROUTES.route("*", STORAGE_PREFIX + "/{bucket}/{key:.*}")
async def store(request: web.Request) -> web.Response:
    """Read or write an object, or list a bucket."""
    return await _system(request).storage.answer(request, request.app[SERVICE].clock.now())


def _system(request: web.Request) -> System:
    return request.app[SERVICE].system


def _qpu(request: web.Request) -> Qpu[Backend]:
    caller(request)
    return _system(request).qpu(request.match_info["name"])


def _task(request: web.Request) -> SystemTask:
    return _system(request).task(caller(request), request.match_info["id"])


def _backend(qpu: Qpu[Backend]) -> dict[str, Any]:
    backend = qpu.backend
    status = "online" if backend.up else backend.status
    document = {"name": backend.name, "status": status, "version": backend.version, "locked": False}
    return document | ({"message": backend.message} if backend.message else {})
