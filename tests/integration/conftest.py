# SPDX-License-Identifier: Apache-2.0
"""Fixtures against the emulator.

One emulator serves all tests that can do with its defaults, and is as new for each of them: starting one
takes half a second, and importing Qiskit in its simulations another second and a half.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import requests

from qpu_slurm_devkit.emulator import Account, Emulator
from tests.integration.gateway_site import Site
from tests.integration.steps import Step

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

SECONDS = 90


class Api:
    """The service's API in the hands of one account, without any client in between."""

    def __init__(self, emulator: Emulator, account: Account) -> None:
        self.url = f"{emulator.url}/api/v1"
        self.account = account
        self.http = requests.Session()
        grant = {"grant_type": "urn:ibm:params:oauth:grant-type:apikey", "apikey": account.api_key}
        token = self.http.post(f"{emulator.url}/identity/token", data=grant, timeout=SECONDS).json()
        self.http.headers["Authorization"] = f"Bearer {token['access_token']}"
        self.http.headers["Service-CRN"] = account.crn
        self.http.headers["IBM-API-Version"] = "2025-05-01"  # without it, some answers have an older form

    def send(
        self, method: str, path: str, *, json: object = None, params: Mapping[str, str] | None = None
    ) -> requests.Response:
        return self.http.request(method, self.url + path, json=json, params=params, timeout=SECONDS)

    def get(self, path: str, **query: str) -> dict[str, Any]:
        response = self.send("GET", path, params=query)
        response.raise_for_status()
        document: dict[str, Any] = response.json()
        return document

    def open(self, backend: str = "ibm_fez", **fields: object) -> str:
        response = self.send("POST", "/sessions", json={"backend": backend, "mode": "dedicated", **fields})
        response.raise_for_status()
        session_id: str = response.json()["id"]
        return session_id

    def state(self, session_id: str) -> str:
        state: str = self.get(f"/sessions/{session_id}")["state"]
        return state

    def submit(self, pubs: list[Any], session_id: str | None = None, **fields: object) -> str:
        response = self.try_to_submit({"pubs": pubs, "version": 2}, session_id, **fields)
        response.raise_for_status()
        task_id: str = response.json()["id"]
        return task_id

    def try_to_submit(
        self, params: Mapping[str, object], session_id: str | None = None, **fields: object
    ) -> requests.Response:
        body = {"program_id": "sampler", "backend": "ibm_fez", "params": params, **fields}
        if session_id is not None:
            body["session_id"] = session_id
        return self.send("POST", "/jobs", json=body)

    def status(self, task_id: str) -> str:
        status: str = self.get(f"/jobs/{task_id}", exclude_params="true")["status"]
        return status


def api_of(emulator: Emulator, account: Account | None = None) -> Api:
    return Api(emulator, account or emulator.accounts[0])


@pytest.fixture(scope="session")
def shared_emulator() -> Iterator[Emulator]:
    with Emulator() as emulator:
        yield emulator


@pytest.fixture(scope="session")
def shared_emulator_of_site() -> Iterator[Emulator]:
    with Emulator() as emulator:
        yield emulator


@pytest.fixture
def emulator(request: pytest.FixtureRequest) -> Emulator:
    """Return an emulator with two QPUs, a premium account and one on the Open plan, as new.

    Tests of a gateway have another one than all others, whose requests it would disturb: it asks by itself.
    """
    behind_gateway = "site" in request.fixturenames
    emulator: Emulator = request.getfixturevalue(
        "shared_emulator_of_site" if behind_gateway else "shared_emulator"
    )
    emulator.reset()
    return emulator


@pytest.fixture
def step(emulator: Emulator, tmp_path: Path) -> Iterator[Step]:
    """Return a job's step that holds a session."""
    with Step(emulator, tmp_path) as step:
        yield step


@pytest.fixture(scope="session")
def slow_emulator() -> Iterator[Emulator]:
    """Take longer for a task than any test does, and simulate nothing."""
    with Emulator(result_bytes=200, task_seconds=120) as emulator:
        yield emulator


@pytest.fixture
def slow_step(slow_emulator: Emulator, tmp_path: Path) -> Iterator[Step]:
    """Return a job's step, the tasks of which run until the clock is moved."""
    slow_emulator.reset()
    with Step(slow_emulator, tmp_path) as step:
        yield step


@pytest.fixture
def api(emulator: Emulator) -> Iterator[Api]:
    """Return the API in the hands of the premium account."""
    api = api_of(emulator)
    with api.http:
        yield api


@pytest.fixture
def open_plan(emulator: Emulator) -> Iterator[Api]:
    """Return the API in the hands of the account on the Open plan."""
    api = api_of(emulator, emulator.accounts[1])
    with api.http:
        yield api


@pytest.fixture(scope="session")
def shared_site(shared_emulator_of_site: Emulator) -> Iterator[Site]:
    with Site(shared_emulator_of_site) as site:
        yield site.start()


@pytest.fixture
def site(emulator: Emulator, shared_site: Site) -> Iterator[Site]:
    """Return a host with a gateway in front of the emulator, without any lease."""
    assert shared_site.emulator is emulator
    yield shared_site
    shared_site.forget()


@pytest.fixture(scope="module")
def module_site(request: pytest.FixtureRequest) -> Iterator[Site]:
    """Return a host of a module's own, with the QPUs that the module names in `QPUS`."""
    with Emulator() as emulator, Site(emulator, qpus=request.module.QPUS) as site:
        yield site.start()


@pytest.fixture(scope="session")
def bell() -> str:
    """Return a Bell pair, measured, as OpenQASM 3 in Heron's own instructions: half 0x0, half 0x3."""
    return (
        'OPENQASM 3.0; include "stdgates.inc"; bit[2] meas;'
        " rz(pi/2) $0; sx $0; rz(pi/2) $0; rz(pi/2) $1; sx $1; rz(pi/2) $1;"
        " cz $0, $1; rz(pi/2) $1; sx $1; rz(pi/2) $1;"
        " meas[0] = measure $0; meas[1] = measure $1;"
    )
