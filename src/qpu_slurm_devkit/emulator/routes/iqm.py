# SPDX-License-Identifier: Apache-2.0
"""What IQM Server answers. Its clients know no path below a host and a port, so it has IBM's prefix, too.

No path is both's: a job's id is a UUID here, which no id of IBM's jobs is.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web

from qpu_slurm_devkit.emulator.answers import json_answer
from qpu_slurm_devkit.emulator.clock import timestamp
from qpu_slurm_devkit.emulator.iqm import answers
from qpu_slurm_devkit.emulator.service import SERVICE

if TYPE_CHECKING:
    from qpu_slurm_devkit.emulator.iqm.chip import Chip
    from qpu_slurm_devkit.emulator.iqm.server import IqmServer
    from qpu_slurm_devkit.emulator.iqm.tasks import IqmTask
    from qpu_slurm_devkit.emulator.settings import Account

PREFIX: Final = "/api/v1"

ROUTES = web.RouteTableDef()

_QPU: Final = "/quantum-computers/{qc}"
_CALIBRATION: Final = "/calibration-sets/{qc}/{set}"
_JOB: Final = "/jobs/{id:[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}}"

_OPERATIONAL: Final = {"active": "online", "paused": "maintenance", "offline": "offline"}

_LIMITS: Final = {
    "max_circuits_per_job": 100,
    "max_shots_per_circuit": 100_000,
    "max_executions_per_job": 1_000_000,
    "max_instructions_per_circuit": 100_000,
}

_LONGEST_WAIT: Final = 30
_WAIT: Final = 10


@ROUTES.get("/about")
async def about(request: web.Request) -> web.Response:
    """Tell what the server is."""
    account_of(request)
    return json_answer({"version": "emulated"})


@ROUTES.get("/quantum-computers")
async def list_qpus(request: web.Request) -> web.Response:
    """List the QPUs."""
    account_of(request)
    return json_answer({"quantum_computers": [_listed(chip) for chip in _server(request).chips.values()]})


@ROUTES.get(_QPU)
async def show_qpu(request: web.Request) -> web.Response:
    """Show a QPU, as qrmi 0.26 reads it; why it is not up is not told."""
    chip = _chip(request)
    document = _listed(chip) | {
        "description": "",
        "backend_type": "hardware",
        "number_of_qubits": len(chip.qubits),
        "pulla_enabled": False,
        "limits": _LIMITS,
        "operational": _OPERATIONAL[chip.status],
        "health": _health(request, chip),
        "queue_length": _server(request).qpus[chip.name].pending,
        "pricing": {"payg_price_per_second": "0"},
        "additional_info": {
            "academy_url": "",
            "best_suited_for": [],
            "documentation_url": "",
            "mock_url": "",
        },
    }
    return json_answer(document)


@ROUTES.get(_QPU + "/health")
async def health(request: web.Request) -> web.Response:
    """Tell whether a QPU is up; the server does not say why not."""
    return json_answer(_health(request, _chip(request)))


@ROUTES.get(_QPU + "/limits")
async def limits(request: web.Request) -> web.Response:
    """Tell how large a job may be."""
    _chip(request)
    return json_answer(_LIMITS)


@ROUTES.get(_QPU + "/queue-availability")
async def queue(request: web.Request) -> web.Response:
    """Tell how many jobs wait."""
    qpu = _server(request).qpus[_chip(request).name]
    return json_answer({"queue_length": qpu.pending, "available": []})


@ROUTES.get(_QPU + "/artifacts/{what}")
async def configuration(request: web.Request) -> web.Response:
    """Describe what lies where on a QPU."""
    chip, what = _chip(request), request.match_info["what"]
    if what != "static-quantum-architectures":
        raise answers.no_artifact(what)
    return json_answer([chip.static_architecture()])


@ROUTES.get(_CALIBRATION)
async def calibration_set(request: web.Request) -> web.Response:
    """Give a calibration set."""
    return json_answer(_calibrated(request).calibration_set())


@ROUTES.get(_CALIBRATION + "/dynamic-quantum-architecture")
async def dynamic_architecture(request: web.Request) -> web.Response:
    """Describe the gates that are calibrated."""
    return json_answer(_calibrated(request).dynamic_architecture())


@ROUTES.get(_CALIBRATION + "/metrics")
async def metrics(request: web.Request) -> web.Response:
    """Tell how good the gates are."""
    return json_answer(_calibrated(request).quality_metrics())


@ROUTES.post("/jobs/{qc}/{type:circuit|run|sweep}")
async def submit(request: web.Request) -> web.Response:
    """Take a job."""
    account, chip = account_of(request), _chip(request)
    if request.match_info["type"] != "circuit":
        raise answers.no_type(request.match_info["type"])
    task = _server(request).submit(
        account,
        chip,
        await request.read(),
        tag=request.query.get("tag"),
        timeslot=_flag(request, "use_timeslot"),
    )
    return _described(request, task)


@ROUTES.get(_JOB)
async def show_job(request: web.Request) -> web.Response:
    """Show a job, at its end if the client wants to wait for that."""
    task = _task(request)
    if not _flag(request, "wait_until_terminal"):
        return _described(request, task)
    seconds = request.query.get("timeout_seconds", str(_WAIT))
    if not seconds.isdecimal() or int(seconds) > _LONGEST_WAIT:
        raise answers.bad_input(f"timeout_seconds is a number from 0 to {_LONGEST_WAIT}.")
    with suppress(TimeoutError):
        async with asyncio.timeout(int(seconds)):
            await task.over.wait()
    answer = _described(request, task)
    if task.status.pending:
        answer.headers["IQM-Long-Poll-Timed-Out"] = "true"
    return answer


@ROUTES.get(_JOB + "/payload")
async def payload(request: web.Request) -> web.Response:
    """Give back what was submitted."""
    task = _task(request)
    headers = {"IQM-Job-Type": "circuit"}
    return web.Response(body=task.input.read_bytes(), content_type="application/json", headers=headers)


@ROUTES.get(_JOB + "/artifacts/{what}")
async def artifact(request: web.Request) -> web.Response:
    """Give a part of a job's result."""
    what = request.match_info["what"]
    found = _task(request).artifact(what)
    if found is None:
        raise answers.no_result(what)
    return web.Response(body=found, content_type="application/json")


@ROUTES.post(_JOB + "/cancel")
async def cancel(request: web.Request) -> web.Response:
    """End a job that has not ended."""
    task = _task(request)
    _server(request).cancel(task)
    return _described(request, task)


@ROUTES.delete(_JOB)
async def delete(request: web.Request) -> web.Response:
    """Forget a job."""
    _server(request).delete(_task(request))
    return web.Response(status=204)


def account_of(request: web.Request) -> Account:
    """Tell whose request it is: the token is the API key itself.

    Raises:
        IqmError: It is not known.
    """
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    for account in request.app[SERVICE].settings.accounts:
        if scheme.lower() == "bearer" and account.api_key == token:
            request["account"] = account.name
            return account
    raise answers.unauthorized()


def _server(request: web.Request) -> IqmServer:
    return request.app[SERVICE].iqm


def _chip(request: web.Request) -> Chip:
    account_of(request)
    return _server(request).chip(request.match_info["qc"])


def _calibrated(request: web.Request) -> Chip:
    chip, set_id = _chip(request), request.match_info["set"]
    if set_id not in {"default", chip.calibration_set_id}:
        raise answers.no_calibration_set(set_id)
    return chip


def _task(request: web.Request) -> IqmTask:
    return _server(request).task(account_of(request), request.match_info["id"])


def _described(request: web.Request, task: IqmTask) -> web.Response:
    return json_answer(task.description(request.app[SERVICE].clock.now(), _server(request).ahead(task)))


def _health(request: web.Request, chip: Chip) -> dict[str, Any]:
    return {"healthy": chip.up, "updated_at": timestamp(request.app[SERVICE].clock.now())}


def _flag(request: web.Request, name: str) -> bool:
    return request.query.get(name, "").lower() == "true"


def _listed(chip: Chip) -> dict[str, Any]:
    return {
        "id": chip.id,
        "alias": chip.name,
        "display_name": f"IQM {chip.name.capitalize()}",
        "station_control_version": "emulated",
    }
