# SPDX-License-Identifier: Apache-2.0
"""What a job's key opens, and what it does not."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import jwt
import pytest
import requests
from msgspec import structs

from qpu_slurm.gateway.ibm.tokens import Tokens
from qpu_slurm.gateway.keys import JobKeys
from qpu_slurm.journal.model import LeaseState
from tests.integration.gateway_site import GRANT, SECONDS
from tests.requests_of_jobs import requests_of_jobs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qpu_slurm_devkit.emulator import Emulator
    from tests.integration.conftest import Api
    from tests.integration.gateway_site import Job, Site


@pytest.fixture
def job(site: Site) -> Iterator[Job]:
    with site.job(site.acquire()) as job:
        yield job


@pytest.fixture
def other(site: Site) -> Iterator[Job]:
    """Return the job of another user, on the same QPU."""
    with site.job(site.acquire(user_id=1001)) as job:
        yield job


@pytest.fixture
def bound(site: Site) -> Iterator[Job]:
    with site.job(site.bind()) as job:
        yield job


def refusal(answer: requests.Response) -> tuple[int, str]:
    (error,) = answer.json()["errors"]
    assert {"code", "message", "solution", "more_info"} <= set(error)
    assert error["solution"] or answer.status_code != 403
    return answer.status_code, error["message"]


# What it opens.


def test_a_job_sees_its_qpu_and_no_other(job: Job) -> None:
    objects = job.send("GET", "/backends", headers={"IBM-API-Version": "2025-05-01"}).json()
    assert [device["name"] for device in objects["devices"]] == ["ibm_fez"]
    for headers in ({}, {"IBM-API-Version": "2024-01-01"}):
        assert job.send("GET", "/backends", headers=headers).json() == {"devices": ["ibm_fez"]}
    assert job.get("/backends/ibm_fez/configuration")["backend_name"] == "ibm_fez"
    assert job.get("/backends/ibm_fez/properties")["qubits"]
    assert job.get("/backends/ibm_fez/status")["state"] is True
    assert job.get("/instances/usage")["usage_consumed_seconds"] == 0
    assert refusal(job.send("GET", "/backends/ibm_torino/configuration")) == (
        403,
        "The backend 'ibm_torino' is not this job's; its own is 'ibm_fez'.",
    )


def test_a_qpu_may_have_another_name_than_its_backend(site: Site) -> None:
    with site.job(site.acquire("torino")) as job:
        assert job.get("/backends")["devices"] == ["ibm_torino"]
        assert job.get(f"/jobs/{job.submit()}")["backend"] == "ibm_torino"


def test_opening_a_session_answers_with_the_jobs_own(job: Job, emulator: Emulator) -> None:
    body = {"mode": "dedicated", "backend": "ibm_fez", "backend_name": "ibm_fez", "max_ttl": 28800}
    answer = job.send("POST", "/sessions", json=body)
    assert answer.json() == job.get(f"/sessions/{job.session_id}")
    assert answer.json()["id"] == job.session_id
    assert len(emulator.sessions()) == 1
    assert refusal(job.send("POST", "/sessions", json={"backend": "ibm_torino"}))[0] == 403
    assert refusal(job.send("POST", "/sessions", json={"backend": 7}))[0] == 400


def test_a_task_is_submitted_watched_and_fetched(job: Job, emulator: Emulator, bell: str) -> None:
    task = job.submit(params={"pubs": [[bell, None, 50]], "version": 2}, tags=["one"], cost=60)
    emulator.wait_for(lambda emulator: emulator.tasks()[0].done_at)
    assert job.get(f"/jobs/{task}", exclude_params="true")["session_id"] == job.session_id
    assert job.get(f"/jobs/{task}")["params"]["version"] == 2
    results = job.send("GET", f"/jobs/{task}/results")
    assert results.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert "__value__" in results.text
    assert "2 of 2 qubits" in job.send("GET", f"/jobs/{task}/logs").text
    assert job.get(f"/jobs/{task}/metrics")["usage"]["status"] == "final"
    assert job.send("PUT", f"/jobs/{task}/tags", json={"tags": ["two"]}).status_code == 204
    assert [found["id"] for found in job.get("/jobs", tags="two")["jobs"]] == [task]
    assert job.send("POST", f"/jobs/{task}/cancel").status_code == 409
    assert job.send("DELETE", f"/jobs/{task}").status_code == 204
    assert refusal(job.send("GET", f"/jobs/{task}"))[0] == 404


def test_a_session_is_closed_and_cancelled(job: Job, emulator: Emulator) -> None:
    body = {"accepting_jobs": False, "max_ttl": 28800}
    assert job.send("PATCH", f"/sessions/{job.session_id}", json=body).status_code == 204
    assert job.send("DELETE", f"/sessions/{job.session_id}/close").status_code == 204
    assert [session.state for session in emulator.sessions()] == ["closed"]
    answer = job.send("POST", "/jobs", json=job.submission())
    assert (answer.status_code, answer.json()["errors"][0]["code"]) == (400, 1217)


def test_the_listing_of_workloads_has_the_jobs_session_only(job: Job, other: Job) -> None:
    assert other.session_id != job.session_id
    for query in ({}, {"mode": "session"}, {"search": other.session_id}, {"next": "1"}):
        assert [found["id"] for found in job.get("/workloads", **query)["workloads"]] == [job.session_id]
    assert job.get("/workloads", mode="batch")["workloads"] == []


def test_a_job_that_is_bound_reads_what_the_qpu_is_like_and_no_more(bound: Job, emulator: Emulator) -> None:
    assert bound.get("/backends/ibm_fez/configuration")["backend_name"] == "ibm_fez"
    assert bound.get("/jobs", pending="true")["jobs"] == []
    fez = {"backend": "ibm_fez"}
    for method, path, body in (
        ("POST", "/sessions", fez),
        ("POST", "/jobs", {"program_id": "sampler", "params": {}, **fez}),
        ("GET", "/jobs/x", None),
        ("GET", "/workloads", None),
    ):
        status, message = refusal(bound.send(method, path, json=body))
        assert (status, "only bound to ibm_fez" in message) == (403, True)
    assert (emulator.sessions(), emulator.tasks()) == ([], [])


# What it does not open.


def test_nothing_of_another_job_is_shown_or_done(job: Job, other: Job, emulator: Emulator) -> None:
    emulator.set_backend("ibm_fez", "paused")
    task = other.submit()
    for method, path in (
        ("GET", ""),
        ("DELETE", ""),
        ("GET", "/results"),
        ("GET", "/logs"),
        ("GET", "/metrics"),
        ("POST", "/cancel"),
        ("PUT", "/tags"),
    ):
        body = {"tags": ["mine"]} if method == "PUT" else None
        status, message = refusal(job.send(method, f"/jobs/{task}{path}", json=body))
        assert (status, message) == (403, f"The task '{task}' is not this job's.")
    assert [found["id"] for found in other.get("/jobs")["jobs"]] == [task]
    assert job.get("/jobs")["jobs"] == []
    assert job.get("/jobs", session_id=other.session_id)["jobs"] == []
    assert (
        job.send("GET", f"/jobs?session_id={other.session_id}&session_id={job.session_id}").json()["count"]
        == 0
    )
    session = f"/sessions/{other.session_id}"
    for method, path in (("GET", session), ("PATCH", session), ("DELETE", f"{session}/close")):
        status, message = refusal(job.send(method, path, json={"accepting_jobs": False}))
        assert (status, f"its own is '{job.session_id}'" in message) == (403, True)
    (record,) = [record for record in emulator.sessions() if record.id == other.session_id]
    assert (record.state, record.accepting_tasks) == ("open", True)
    assert [(found.status, found.tags) for found in emulator.tasks()] == [("Queued", ())]


def test_a_task_of_nobodys_session_is_not_the_jobs(job: Job, api: Api) -> None:
    task = api.submit([["?"]])
    assert refusal(job.send("GET", f"/jobs/{task}"))[0] == 403


def test_whose_a_task_is_is_known_after_a_restart(site: Site, job: Job, other: Job) -> None:
    task = job.submit()
    site.kill()
    site.start()
    assert job.get(f"/jobs/{task}")["id"] == task
    assert refusal(other.send("GET", f"/jobs/{task}"))[0] == 403


REST = '"program_id": "sampler", "params": {}'
FEZ = '"backend": "ibm_fez"'

SUBMISSIONS = [
    (f'{{"backend": "ibm_torino", "session_id": "OWN", {REST}}}', {403}, "backend"),
    (f'{{{FEZ}, "session_id": "FOREIGN", {REST}}}', {403}, "session_id"),
    (f'{{{FEZ}, {REST}, "session_id": "FOREIGN"}}', {403}, "session_id"),
    (f'{{"session_id": "OWN", {REST}}}', {403}, "must name its 'backend'"),
    (f'{{{FEZ}, "session_id": null, {REST}}}', {403}, "session_id"),
    (f'{{{FEZ}, "session_id": ["OWN"], {REST}}}', {403}, "session_id"),
    (f'{{"session_id": "FOREIGN", {FEZ}, {REST}, "session_id": "OWN"}}', {400, 403}, "session_id"),
    (f'{{"session_id": "OWN", {FEZ}, {REST}, "session_id": "FOREIGN"}}', {400}, "twice"),
    (f'{{"session_id": "OWN", {FEZ}, {REST}, "session\\u005fid": "FOREIGN"}}', {400}, "twice"),
    (f'{{"session_id": "OWN", {FEZ}, {REST}, "Session_ID": "FOREIGN"}}', {400}, "twice"),
    (f'{{"session\\u005fid": "FOREIGN", {FEZ}, {REST}}}', {403}, "session_id"),
    (f'{{{FEZ}, {REST}, "\\u0073ession_id": "FOREIGN"}}', {403}, "session_id"),
    (f'{{{FEZ}, {REST}, "session_\\u0131d": "FOREIGN"}}', {400, 403}, "session_"),
    (f'{{{FEZ}, {REST}, "Session_ID": "FOREIGN"}}', {403}, "not contain 'Session_ID'"),
    (f'{{{FEZ}, {REST}, "session_id ": "FOREIGN"}}', {403}, "not contain 'session_id '"),
    (f'{{{FEZ}, {REST}, "session_id\\u0000": "FOREIGN"}}', {403}, "not contain"),
    (f'{{{FEZ}, {REST}, "session_id": 7}}', {403}, "session_id"),
    (f'{{{FEZ}, {REST}}}, "session_id": "FOREIGN"', {400}, "expected nothing more"),
    (f'{{{FEZ}, {REST}}}{{"session_id": "FOREIGN"}}', {400}, "expected nothing more"),
    (f'{{"session_id": "OWN", {FEZ}, "start_session": true, {REST}}}', {403}, "not contain 'start_session'"),
    ('[{"session_id": "OWN"}]', {400}, "expected an object"),
    ("", {400}, "ends before"),
    (f"{{{FEZ}, {REST}", {400}, "ends before"),
    ('{"session_id": "OWN"', {400}, "ends before"),
]
WAYS = ("small", "large", "chunked")


@pytest.mark.parametrize(("text", "statuses", "why", "way"), [(*s, way) for s in SUBMISSIONS for way in WAYS])
def test_a_submission_to_anywhere_else_never_takes_effect(  # noqa: PLR0917 - pytest names them
    job: Job, other: Job, emulator: Emulator, text: str, statuses: set[int], why: str, way: str
) -> None:
    body = text.replace("OWN", job.session_id).replace("FOREIGN", other.session_id).encode()
    if way != "small":
        # Too much to be held as a whole.
        body = body.replace(b'"params": {}', b'"params": {"x": "' + b"x" * 300_000 + b'"}')
    pieces = (body[start : start + 10_000] for start in range(0, len(body), 10_000))
    status, message = refusal(job.send("POST", "/jobs", data=pieces if way == "chunked" else body))
    assert status in statuses, message
    assert why in message
    assert emulator.tasks() == []


def body_without_session(size: int, end: str = "") -> bytes:
    body = {"program_id": "sampler", "backend": "ibm_fez", "params": {"pubs": [["?"]], "x": "y" * size}}
    return (json.dumps(body, indent=1) + end).encode()


@pytest.mark.parametrize("end", ["", "\n", "\n" * 200_000], ids=["brace", "newline", "newlines"])
@pytest.mark.parametrize("way", ["length", "chunked"])
@pytest.mark.parametrize("size", [10, 400_000])
@pytest.mark.usefixtures("other")
def test_a_submission_that_names_no_session_runs_in_the_jobs(
    job: Job, emulator: Emulator, size: int, way: str, end: str
) -> None:
    body = body_without_session(size, end)
    pieces = (body[start : start + 10_000] for start in range(0, len(body), 10_000))
    answer = job.send("POST", "/jobs", data=pieces if way == "chunked" else body)
    assert answer.ok, answer.text
    (task,) = emulator.tasks()
    assert task.session_id == job.session_id
    params = job.get(f"/jobs/{task.id}")["params"]
    assert params == {"pubs": [["?"]], "x": "y" * size}


def test_what_is_refused_opens_no_session(site: Site, emulator: Emulator) -> None:
    with site.job(site.later()) as job:
        for body in (
            b'{"backend": "ibm_torino", "program_id": "sampler", "params": {}}',
            b'{"backend": "ibm_fez", "program_id": "sampler", "params": {}, "start_session": true}',
            b'{"backend": "ibm_fez", "program_id": "sampler", "params": {',
            body_without_session(400_000)[:-2],
            body_without_session(400_000, "}"),
        ):
            assert refusal(job.send("POST", "/jobs", data=body))[0] in {400, 403}
    assert emulator.sessions() == []


@pytest.mark.parametrize("where", ["first", "last"])
@pytest.mark.parametrize("size", [10, 400_000])
def test_keys_may_come_in_any_order(job: Job, where: str, size: int) -> None:
    body = job.submission(params={"pubs": [["?"]], "x": "y" * size})
    if where == "last":
        body = dict(reversed(body.items()))
    assert job.send("POST", "/jobs", data=json.dumps(body, indent=1)).ok


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/users/me"),
        ("GET", "/instance"),
        ("GET", "/sessions"),
        ("DELETE", "/sessions"),
        ("POST", "/jobs/x/results"),
        ("PUT", "/jobs/x"),
        ("GET", "/jobs/..%2Fsessions"),
        ("GET", "/jobs/x%2Fresults"),
        ("GET", "/backends/ibm_fez/../../tags"),
        ("GET", "/backends/ibm_fez/secrets"),
        ("GET", "/backends/..%2F..%2Fjobs/status"),
        ("GET", "/analytics/usage"),
        ("POST", "/programs"),
    ],
)
def test_what_the_gateway_does_not_know_is_not_asked(
    job: Job, emulator: Emulator, method: str, path: str
) -> None:
    before = requests_of_jobs(emulator)
    assert refusal(job.send(method, path))[0] in {403, 404, 405}
    assert requests_of_jobs(emulator) == before


@pytest.mark.parametrize("path", ["/jobs", "/sessions", "/backends"])
def test_what_is_compressed_cannot_be_looked_at(job: Job, path: str) -> None:
    answer = job.send("POST", path, data=b"x", headers={"Content-Encoding": "gzip"})
    assert refusal(answer) == (415, "Compressed requests are not accepted.")


# Keys and tokens.


def token_of(site: Site, key: str) -> requests.Response:
    form = {"grant_type": GRANT, "apikey": key}
    return requests.post(f"{site.url}/identity/token", data=form, timeout=SECONDS)


def test_a_token_is_what_clients_expect_of_iam(site: Site, job: Job) -> None:
    answer = token_of(site, job.key).json()
    claims = jwt.decode(answer["access_token"], options={"verify_signature": False})
    assert claims["exp"] - claims["iat"] == answer["expires_in"]
    assert answer["expiration"] == claims["exp"]
    form = {"grant_type": "password", "apikey": job.key}
    other = requests.post(f"{site.url}/identity/token", data=form, timeout=SECONDS)
    assert (other.status_code, other.json()["errorCode"]) == (400, "BXNIM0102E")


def test_a_key_that_was_not_given_opens_nothing(site: Site, job: Job) -> None:
    foreign = JobKeys(b"x" * 32).key(job.lease).reveal()
    changed = [
        job.key[:place] + chr(ord(job.key[place]) ^ 1) + job.key[place + 1 :] for place in (20, 40, -1)
    ]
    for key in (
        "",
        "x",
        job.key[:-1],
        foreign,
        *changed,
        "qpu-slurm-job-key-" + "_" * 54,
        site.account.api_key,
        "ü",
    ):
        answer = token_of(site, key)
        assert (answer.status_code, answer.json()["errorCode"]) == (400, "BXNIM0415E"), key
    assert token_of(site, job.key).ok


def test_a_key_and_its_tokens_end_with_the_lease(site: Site, job: Job, other: Job) -> None:
    task = job.submit()
    site.journal.end(job.lease.job_id, "Done.")
    assert refusal(job.send("GET", f"/jobs/{task}")) == (
        401,
        f"Job {job.lease.job_id} no longer holds ibm_fez.",
    )
    assert token_of(site, job.key).status_code == 400
    site.journal.finish(job.lease.id, LeaseState.RELEASED)
    assert refusal(job.send("POST", "/jobs", json=job.submission()))[0] == 401
    assert other.get("/jobs")["count"] == 0


def test_a_token_that_is_forged_or_too_old_opens_nothing(site: Site, job: Job) -> None:
    keys = JobKeys.beside(site.config.journal)
    claims = jwt.decode(job.token.split()[1], options={"verify_signature": False})
    secret = keys.macs("tokens")[0]
    stranger = Tokens(JobKeys(b"x" * 32)).answer(job.lease)["access_token"]
    tokens = {
        "": "has no token",
        "Bearer ": "has no token",
        f"Basic {job.key}": "has no token",
        f"Bearer {job.key}": "not one of this gateway's",
        f"Bearer {stranger}": "not one of this gateway's",
        f"Bearer {jwt.encode(claims, '', 'none')}": "not one of this gateway's",
        f"Bearer {jwt.encode(claims | {'exp': int(time.time()) - 1}, secret, 'HS256')}": "has expired",
        f"Bearer {jwt.encode({'sub': claims['sub']}, secret, 'HS256')}": "not one of this gateway's",
        f"Bearer {jwt.encode(claims | {'sub': '9999 x'}, secret, 'HS256')}": "does not exist",
    }
    for header, why in tokens.items():
        job.http.headers["Authorization"] = header
        status, message = refusal(job.send("GET", "/backends"))
        assert (status, why in message) == (401, True), header


def test_a_key_of_an_earlier_journals_lease_opens_nothing(site: Site, job: Job) -> None:
    earlier = structs.replace(job.lease, created_at=job.lease.created_at.replace(year=2020))
    key = JobKeys.beside(site.config.journal).key(earlier)
    assert token_of(site, key.reveal()).status_code == 400


def test_refusals_are_logged_and_counted_without_any_key(site: Site, job: Job, other: Job) -> None:
    refusal(job.send("GET", f"/sessions/{other.session_id}"))
    token_of(site, "qpu-slurm-job-key-" + "A" * 54)
    last = [event for event in site.events("refused") if event["status"] == 403][-1]
    assert (last["job_id"], last["user_id"]) == (job.lease.job_id, 1000)
    assert other.session_id in last["why"]
    assert site.events("key refused")
    log = site.log()
    for secret in (
        job.key,
        site.account.api_key,
        job.token.split()[1],
        "AAAAAA",
    ):
        assert secret not in log
    metrics = requests.get(f"{site.url}/metrics", timeout=SECONDS).text
    assert 'qpu_slurm_errors_total{kind="forbidden"}' in metrics
