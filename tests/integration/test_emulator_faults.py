# SPDX-License-Identifier: Apache-2.0
"""Faults on demand, and the record of what was asked."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
import requests

from qpu_slurm_devkit.emulator import Drop, Fault

if TYPE_CHECKING:
    from qpu_slurm_devkit.emulator import Emulator
    from tests.integration.conftest import Api


def test_a_status_is_answered_instead_and_nothing_takes_effect(emulator: Emulator, api: Api) -> None:
    emulator.inject(Fault(method="POST", path="/sessions", status=429, retry_after="7"))
    response = api.send("POST", "/sessions", json={"backend": "ibm_fez"})
    assert (response.status_code, response.headers["Retry-After"]) == (429, "7")
    assert response.json()["errors"][0]["message"] == "Injected fault."
    assert emulator.sessions() == []
    api.open()
    assert len(emulator.sessions()) == 1


def test_an_answer_may_be_any_text(emulator: Emulator, api: Api) -> None:
    emulator.inject(Fault(path="/backends", status=502, body="<html>Bad gateway</html>"))
    response = api.send("GET", "/backends")
    assert (response.status_code, response.text) == (502, "<html>Bad gateway</html>")


def test_answers_may_come_late(emulator: Emulator, api: Api) -> None:
    emulator.inject(Fault(path="/backends", delay=0.3))
    begin = time.monotonic()
    assert api.send("GET", "/backends").status_code == 200
    assert time.monotonic() - begin >= 0.3


def test_an_answer_may_come_late_after_it_took_effect(emulator: Emulator, api: Api) -> None:
    emulator.inject(Fault(method="POST", path="/sessions", late=60))
    with pytest.raises(requests.Timeout):
        api.http.post(f"{api.url}/sessions", json={"backend": "ibm_fez"}, timeout=0.5)
    assert len(emulator.sessions()) == 1


def test_a_fault_may_be_one_accounts(emulator: Emulator, api: Api) -> None:
    emulator.inject(Fault(account=emulator.accounts[1].name, times=None, status=500))
    assert api.send("GET", "/backends").status_code == 200
    token = {"grant_type": "urn:ibm:params:oauth:grant-type:apikey"}
    statuses = [
        requests.post(
            f"{emulator.url}/identity/token", data=token | {"apikey": account.api_key}, timeout=10
        ).status_code
        for account in emulator.accounts
    ]
    assert statuses == [200, 500]


def test_what_is_to_go_wrong_yet_is_listed(emulator: Emulator, api: Api) -> None:
    emulator.inject(Fault(path="/backends", status=503))
    assert [fault.status for fault in emulator.faults()] == [503]
    api.send("GET", "/backends")
    assert emulator.faults() == []


@pytest.mark.parametrize(("when", "opened"), [(Drop.BEFORE, 0), (Drop.AFTER, 1)])
def test_an_answer_may_be_lost_before_or_after_it_took_effect(
    emulator: Emulator, api: Api, when: Drop, opened: int
) -> None:
    emulator.inject(Fault(method="POST", path="/sessions", drop=when))
    with pytest.raises(requests.ConnectionError):
        api.open()
    assert len(emulator.sessions()) == opened
    assert [(request.status, request.fault) for request in emulator.requests()][-1] == (0, f"drop {when}")


def test_a_fault_passes_over_the_first_and_ends_by_itself(emulator: Emulator, api: Api) -> None:
    emulator.inject(Fault(path="/backends/*", skip=1, times=2, status=503))
    statuses = [api.send("GET", "/backends/ibm_fez/status").status_code for _ in range(4)]
    assert statuses == [200, 503, 503, 200]


def test_faults_may_be_forgotten(emulator: Emulator, api: Api) -> None:
    emulator.inject(Fault(times=None, status=500))
    assert api.send("GET", "/backends").status_code == 500
    emulator.clear_faults()
    assert api.send("GET", "/backends").status_code == 200


def test_faults_reach_iam_too(emulator: Emulator) -> None:
    emulator.inject(Fault(path="/identity/token", status=503))
    assert requests.post(f"{emulator.url}/identity/token", timeout=240).status_code == 503


def test_connections_may_be_refused_for_a_while(emulator: Emulator, api: Api) -> None:
    session = api.open()
    emulator.refuse(0.3)
    with pytest.raises(requests.ConnectionError, match="refused"):
        requests.get(f"{api.url}/backends", timeout=5)
    time.sleep(0.5)
    assert api.state(session) == "open"


def test_requests_are_recorded_and_no_credential_with_them(emulator: Emulator, api: Api) -> None:
    api.get("/jobs", pending="true")
    api.send("GET", "/nothing")
    (token, jobs, nothing) = emulator.requests()
    assert (token.method, token.path, token.status) == ("POST", "/identity/token", 200)
    assert (jobs.path, jobs.query, jobs.status, jobs.account) == ("/jobs", "pending=true", 200, "premium")
    assert (nothing.path, nothing.status) == ("/nothing", 404)
    told = [
        requests.get(f"{emulator.url}/emulator/{what}", timeout=240).text
        for what in ("requests", "events", "sessions", "tasks", "accounts")
    ]
    bearer = str(api.http.headers["Authorization"]).removeprefix("Bearer ")
    for secret in (api.account.api_key, bearer):
        assert not any(secret in text for text in told)


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "faults", {"stauts": 500}),
        ("POST", "faults", {"drop": "sometimes"}),
        ("POST", "advance", {"seconds": -1}),
        ("PUT", "backends/ibm_fez", {}),
        ("PUT", "backends/ibm_fez", {"status": "tired"}),
        ("PUT", "backends/ibm_nowhere", {"status": "paused"}),
        ("POST", "sessions/unknown/close", {}),
    ],
)
def test_the_control_endpoint_refuses_what_it_does_not_know(
    emulator: Emulator, method: str, path: str, body: object
) -> None:
    response = requests.request(method, f"{emulator.url}/emulator/{path}", json=body, timeout=240)
    assert response.status_code in {400, 404}
