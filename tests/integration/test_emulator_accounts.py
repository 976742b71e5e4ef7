# SPDX-License-Identifier: Apache-2.0
"""Who may use the emulator, and how it says no."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import requests

if TYPE_CHECKING:
    from qpu_slurm_devkit.emulator import Emulator
    from tests.integration.conftest import Api

GRANT = "urn:ibm:params:oauth:grant-type:apikey"


def test_an_unknown_key_gets_no_token(emulator: Emulator) -> None:
    response = requests.post(
        f"{emulator.url}/identity/token", data={"grant_type": GRANT, "apikey": "another"}, timeout=10
    )
    assert response.status_code == 400
    assert response.json()["errorCode"] == "BXNIM0415E"


@pytest.mark.parametrize("header", [None, "Bearer made.up.token", "apikey another", "Basic x"])
def test_without_a_good_credential_nothing_is_answered(api: Api, header: str | None) -> None:
    if header is None:
        del api.http.headers["Authorization"]
    else:
        api.http.headers["Authorization"] = header
    response = api.send("GET", "/backends")
    assert response.status_code == 401
    (error,) = response.json()["errors"]
    assert error["code"] == 1200
    assert set(error) == {"code", "message", "solution", "more_info"}


def test_a_token_ends_with_its_time(emulator: Emulator, api: Api) -> None:
    emulator.advance(3599)
    assert api.send("GET", "/backends").status_code == 200
    emulator.advance(2)
    assert api.send("GET", "/backends").status_code == 401


def test_an_api_key_does_as_well_as_a_token(api: Api) -> None:
    api.http.headers["Authorization"] = f"apikey {api.account.api_key}"
    assert api.send("GET", "/backends").status_code == 200


def test_a_token_opens_its_own_instances_only(api: Api, open_plan: Api) -> None:
    api.http.headers["Service-CRN"] = open_plan.account.crn
    assert api.send("GET", "/backends").status_code == 403
    search = api.http.post(api.url.removesuffix("/api/v1") + "/v3/resources/search", json={}, timeout=240)
    assert [item["crn"] for item in search.json()["items"]] == [api.account.crn]


def test_sessions_and_tasks_belong_to_their_instance(api: Api, open_plan: Api, bell: str) -> None:
    session = api.open()
    task = api.submit([[bell]], session)
    assert open_plan.send("GET", f"/sessions/{session}").status_code == 404
    assert open_plan.send("DELETE", f"/sessions/{session}/close").status_code == 404
    assert open_plan.send("GET", f"/jobs/{task}").status_code == 404
    assert open_plan.send("POST", f"/jobs/{task}/cancel").status_code == 404
    assert open_plan.get("/workloads")["workloads"] == []
    assert open_plan.get("/jobs")["jobs"] == []


def test_the_open_plan_has_batches_but_no_dedicated_sessions(open_plan: Api) -> None:
    response = open_plan.send("POST", "/sessions", json={"backend": "ibm_fez", "mode": "dedicated"})
    assert response.status_code == 400
    assert response.json()["errors"][0]["code"] == 1352
    assert open_plan.state(open_plan.open(mode="batch")) == "open"


@pytest.mark.parametrize(
    ("request_line", "body", "status", "code"),
    [
        ("GET /nothing", None, 404, 1000),
        ("GET /backends/ibm_nowhere/status", None, 404, 1007),
        ("GET /sessions/unknown", None, 404, 1216),
        ("GET /jobs/unknown", None, 404, 1291),
        ("GET /jobs?limit=many", None, 400, 1208),
        ("GET /workloads?created_after=yesterday", None, 400, 1208),
        ("POST /sessions", {"backend": "ibm_nowhere"}, 404, 1007),
        ("POST /sessions", {"mode": "dedicated"}, 400, 1208),
        ("POST /sessions", {"backend": "ibm_fez", "mode": "other"}, 400, 1208),
        ("POST /sessions", {"backend": "ibm_fez", "max_ttl": 28801}, 400, 1208),
        ("POST /jobs", {"program_id": "sampler"}, 400, 1208),
        ("POST /jobs", {"program_id": "sampler", "params": []}, 400, 1208),
        ("POST /jobs", {"program_id": "sampler", "params": {}}, 400, 1208),
        ("POST /jobs", {"program_id": "other", "backend": "ibm_fez", "params": {}}, 404, 1290),
    ],
)
def test_mistakes_are_refused_in_the_shape_of_the_service(
    api: Api, request_line: str, body: object, status: int, code: int
) -> None:
    method, path = request_line.split(maxsplit=1)
    response = api.send(method, path, json=body)
    assert response.status_code == status
    assert response.json()["errors"][0]["code"] == code
    assert response.json()["trace"]
