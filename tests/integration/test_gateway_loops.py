# SPDX-License-Identifier: Apache-2.0
"""A program that submits one task after the other: the gateway looks when an end is likely."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
import requests

from qpu_slurm import providers
from qpu_slurm.job.variables import from_environ
from qpu_slurm_devkit.emulator import Drop, Emulator, Fault
from tests.integration.conftest import api_of
from tests.integration.gateway_site import SECONDS, Site

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.gateway_site import Job

TASK = 0.5
"""Seconds that a task of these tests runs."""


@pytest.fixture(scope="module")
def timed() -> Iterator[Emulator]:
    """Return an emulator whose tasks all take as long."""
    with Emulator(task_seconds=TASK, result_bytes=2000) as emulator:
        yield emulator


@pytest.fixture(scope="module")
def timed_site(timed: Emulator) -> Iterator[Site]:
    with Site(timed, gateway='reap_every = "1h"') as site:
        yield site.start()


@pytest.fixture
def job(timed: Emulator, timed_site: Site) -> Iterator[Job]:
    timed.reset()
    timed_site.forget()
    with timed_site.job(timed_site.acquire()) as job:
        yield job


def state(job: Job, task: str, **headers: str) -> dict[str, Any]:
    answer = job.send("GET", f"/jobs/{task}", params={"exclude_params": "true"}, headers=headers)
    assert answer.ok, answer.text
    document: dict[str, Any] = answer.json()
    return document


def wait(job: Job, task: str) -> dict[str, Any]:
    """Poll as qiskit-ibm-runtime does."""
    deadline = time.monotonic() + SECONDS
    while (found := state(job, task))["status"] in {"Queued", "Running"}:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return found


def loop(job: Job, tasks: int = 4, **fields: object) -> list[str]:
    """Run some tasks, one after the other; return their results."""
    found = []
    for _ in range(tasks):
        body = {key: value for key, value in job.submission(**fields).items() if value is not None}
        answer = job.send("POST", "/jobs", json=body)
        assert answer.ok, answer.text
        task = answer.json()["id"]
        assert wait(job, task)["status"] == "Completed"
        answer = job.send("GET", f"/jobs/{task}/results")
        assert answer.status_code == 200
        found.append(answer.text)
    return found


def count(emulator: Emulator, method: str, path: str = "", ending: str = "") -> int:
    return sum(
        request.method == method and request.path.startswith(path) and request.path.endswith(ending)
        for request in emulator.requests()
    )


def test_a_loop_asks_no_more_of_the_service_than_its_client_would(timed: Emulator, job: Job) -> None:
    before = len(timed.requests())
    loop(job, 8)
    through_gateway = len(timed.requests()) - before
    api = api_of(timed)
    with api.http:
        for _ in range(8):
            task = api.submit([["?"]], job.session_id)
            while api.status(task) in {"Queued", "Running"}:
                time.sleep(0.1)
            api.send("GET", f"/jobs/{task}/results")
    assert through_gateway <= len(timed.requests()) - before - through_gateway


def test_a_result_is_there_when_its_client_asks(timed: Emulator, job: Job) -> None:
    expected = loop(job)
    read = count(timed, "GET", ending="/results")
    task = job.submit()
    wait(job, task)
    # The gateway learns that the task is over before it has all of the result.
    timed.wait_for(lambda emulator: count(emulator, "GET", ending="/results") > read)
    fetched = count(timed, "GET", ending="/results")
    answer = job.send("GET", f"/jobs/{task}/results")
    assert (answer.text, answer.headers["Content-Type"]) == (expected[0], "text/plain; charset=utf-8")
    assert count(timed, "GET", ending="/results") == fetched
    # Once: from then on, the service is asked.
    assert job.send("GET", f"/jobs/{task}/results").text == expected[0]
    assert count(timed, "GET", ending="/results") == fetched + 1


@pytest.mark.parametrize("private", [True, False])
def test_the_result_of_a_private_task_is_left_to_its_client(timed: Emulator, job: Job, private: bool) -> None:  # noqa: FBT001 - a parameter
    """The service deletes it when it is read."""
    loop(job)
    before = count(timed, "GET", ending="/results")
    task = job.submit(private=private)
    assert wait(job, task)["status"] == "Completed"
    assert (count(timed, "GET", ending="/results") > before) is not private
    assert job.send("GET", f"/jobs/{task}/results").text.startswith('{"results"')


def test_a_client_that_asks_again_waits_for_another_state(timed: Emulator, job: Job) -> None:
    """One that asks for several tasks in turn does not."""
    tasks = [job.submit() for _ in range(3)]
    for _ in range(2):
        for task in tasks:
            state(job, task)
    asked = count(timed, "GET", "/jobs/")
    begin = time.monotonic()
    while state(job, tasks[-1])["status"] != "Completed":
        assert time.monotonic() < begin + SECONDS
    assert count(timed, "GET", "/jobs/") - asked < 30


def test_requests_that_wait_keep_no_other_out(timed: Emulator, timed_site: Site, job: Job) -> None:
    """More wait than one job may have under way at once; none of them is refused, nor are others."""
    timed.inject(Fault(method="GET", path="/jobs/*", late=0.2, times=None))
    task = job.submit()
    statuses: list[int] = []

    def ask() -> None:
        with requests.Session() as http:
            http.headers["Authorization"] = job.token
            for _ in range(3):
                url = f"{timed_site.url}/api/v1/jobs/{task}?exclude_params=true"
                statuses.append(http.get(url, headers={"Prefer": "wait=2"}, timeout=SECONDS).status_code)

    threads = [threading.Thread(target=ask) for _ in range(14)]
    for thread in threads:
        thread.start()
    assert job.send("GET", f"/sessions/{job.session_id}").ok
    for thread in threads:
        thread.join()
    assert set(statuses) == {200}


def test_a_client_can_wait_for_a_result(job: Job) -> None:
    expected = loop(job)[0]
    task = job.submit()
    answers: list[requests.Response] = []
    deadline = time.monotonic() + SECONDS
    while not answers or answers[-1].status_code == 204:
        assert time.monotonic() < deadline
        answers.append(job.send("GET", f"/jobs/{task}/results", headers={"Prefer": "wait=2"}))
    assert answers[-1].text == expected
    assert all(answer.headers["Preference-Applied"] == "wait" for answer in answers[:-1])
    assert len(answers) <= 3


@pytest.mark.parametrize(
    "preference", ["wait=99999999", "wait=-1", "wait=x", "wait", "respond-async, wait=1", ""]
)
def test_no_client_waits_longer_than_two_seconds(job: Job, preference: str) -> None:
    task = job.submit()
    begin = time.monotonic()
    answer = job.send("GET", f"/jobs/{task}/results", headers={"Prefer": preference})
    assert answer.status_code in {200, 204}
    assert time.monotonic() - begin < 2 + SECONDS / 3


def test_a_loop_that_names_no_session_asks_for_none(timed: Emulator, job: Job) -> None:
    """As `EstimatorV2(mode=backend)` does: it runs in the job's session."""
    loop(job, 1, session_id=None)
    path = f"/sessions/{job.session_id}"
    before = count(timed, "GET", path)
    loop(job, 3, session_id=None)
    assert count(timed, "GET", path) == before
    assert {task.session_id for task in timed.tasks()} == {job.session_id}
    timed.close_session(job.session_id)
    loop(job, 2, session_id=None)
    first, second = (session.id for session in timed.sessions())
    assert first == job.session_id
    assert [task.session_id for task in timed.tasks()] == [first] * 4 + [second] * 2


# What goes wrong.


def test_a_task_that_is_cancelled_meanwhile(job: Job) -> None:
    """Its client learns of it as the service tells it, though a result was expected."""
    loop(job)
    first, task = job.submit(), job.submit()
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(wait, job, task)
        assert job.send("POST", f"/jobs/{task}/cancel").ok
        found = waiting.result()
    assert wait(job, first)["status"] == "Completed"
    assert found["status"] == "Cancelled"
    assert found["state"]["reason"] == "Cancelled by the user."
    assert job.send("GET", f"/jobs/{task}/results").status_code == 204
    loop(job, 1)  # the session goes on


def test_a_task_that_the_service_ends(job: Job) -> None:
    loop(job)
    first = job.submit()
    waiting = job.submit()
    state(job, waiting)
    assert job.send("DELETE", f"/sessions/{job.session_id}/close").ok
    found = wait(job, waiting)
    assert (found["status"], found["state"]["reason"]) == ("Failed", "Session has been closed.")
    assert job.send("GET", f"/jobs/{waiting}/results").status_code == 204
    assert wait(job, first)["status"] == "Completed"


def test_a_task_that_fails(site: Site) -> None:
    """Here tasks are executed, and this one's input makes no sense."""
    with site.job(site.acquire()) as job:
        for _ in range(3):
            task = job.submit()
            found = wait(job, task)
            assert found["status"] == "Failed"
            assert found["state"]["reason"]
            answer = job.send("GET", f"/jobs/{task}/results", headers={"Prefer": "wait=2"})
            assert answer.status_code == 204


@pytest.mark.parametrize(
    "fault",
    [
        Fault(method="GET", path="/jobs/*/results", drop=Drop.AFTER, times=2),
        Fault(method="GET", path="/jobs/*/results", drop=Drop.BEFORE, times=2),
        Fault(method="GET", path="/jobs/*/results", status=500, times=2),
        Fault(method="GET", path="/jobs/*/results", status=429, retry_after="1", times=2),
        Fault(method="GET", path="/jobs/*", status=429, times=2, skip=1),
        Fault(method="GET", path="/jobs/*/results", status=404, times=2),
    ],
    ids=str,
)
def test_a_look_that_fails_costs_the_client_nothing(timed: Emulator, job: Job, fault: Fault) -> None:
    expected = loop(job)[0]
    task = job.submit()
    state(job, task)
    timed.inject(fault)
    assert wait(job, task)["status"] == "Completed"
    timed.clear_faults()
    assert job.send("GET", f"/jobs/{task}/results").text == expected


def test_a_service_that_has_too_much_to_do_is_left_alone(timed: Emulator, job: Job) -> None:
    loop(job)
    task = job.submit()
    timed.inject(Fault(method="GET", path="/jobs/*", skip=1, status=429, retry_after="3", times=2))
    assert wait(job, task)["status"] == "Completed"
    looks = [request for request in timed.requests() if task in request.path and request.method == "GET"]
    refused = next(number for number, look in enumerate(looks) if look.status == 429)
    after = [look.time - looks[refused].time for look in looks[refused + 1 :] if look.status != 429]
    assert min(after) >= 2.9


def test_the_gateway_is_killed_in_the_middle_of_a_loop(timed: Emulator) -> None:
    """The next one knows nothing of the task, and finds it all the same."""
    timed.reset()
    with Site(timed) as site, site.start().job(site.acquire()) as job:
        expected = loop(job)[0]
        task = job.submit()
        state(job, task)
        site.kill()
        site.start()
        assert wait(job, task)["status"] == "Completed"
        assert job.send("GET", f"/jobs/{task}/results").text == expected


# Who is told what.


def test_each_lease_is_told_of_its_own_tasks_alone(timed_site: Site, job: Job) -> None:
    loop(job, 2)
    task = job.submit()
    wait(job, task)  # its result is in the gateway's memory
    with ExitStack() as stack:
        other = stack.enter_context(timed_site.job(timed_site.acquire()))
        for path in (f"/jobs/{task}?exclude_params=true", f"/jobs/{task}", f"/jobs/{task}/results"):
            for preference in ({}, {"Prefer": "wait=1"}):
                assert other.send("GET", path, headers=preference).status_code == 403
    assert job.send("GET", f"/jobs/{task}/results").ok


def test_a_lease_that_ends_while_its_client_waits_is_told_nothing(
    timed: Emulator, timed_site: Site, job: Job
) -> None:
    task = job.submit()
    state(job, task)
    answers: list[int] = []

    def ask() -> None:
        answers.append(job.send("GET", f"/jobs/{task}/results", headers={"Prefer": "wait=2"}).status_code)

    timed.inject(Fault(method="GET", path="/jobs/*", late=0.5, times=None))
    thread = threading.Thread(target=ask)
    thread.start()
    time.sleep(0.1)
    timed_site.end_leases()
    thread.join()
    assert answers == [401]


# Copies of what clients ask at every submission.


def asked(emulator: Emulator, path: str) -> int:
    return count(emulator, "GET", path, path)


@pytest.mark.parametrize("path", ["/instances/usage", "/backends/ibm_fez/status", "/backends"])
def test_what_every_submission_asks_is_answered_from_a_copy(timed: Emulator, job: Job, path: str) -> None:
    answers = [job.send("GET", path) for _ in range(5)]
    assert all(answer.ok for answer in answers)
    assert asked(timed, path) <= 2  # one of them after a second or two
    assert {answer.headers["Content-Type"] for answer in answers} == {"application/json"}


@pytest.mark.parametrize("path", ["/backends/ibm_fez/properties", "/backends/ibm_fez/configuration"])
def test_a_client_that_asks_again_wants_to_see_what_is_new(
    timed: Emulator, timed_site: Site, job: Job, path: str
) -> None:
    first = job.get(path)
    before = asked(timed, path)
    assert job.get(path) == first
    assert asked(timed, path) == before + 1
    with timed_site.job(timed_site.acquire()) as other:  # it has not seen the copy
        assert other.get(path) == first
    assert asked(timed, path) == before + 1


def test_no_cache_gets_what_is_new(timed: Emulator, job: Job) -> None:
    path = "/backends/ibm_fez/status"
    job.get(path)
    before = asked(timed, path)
    assert job.send("GET", path, headers={"Cache-Control": "no-cache"}).ok
    assert asked(timed, path) > before


def test_the_calibration_check_sees_the_newest_calibration(timed: Emulator, job: Job) -> None:
    provider = providers.connect(from_environ(job.environ)["ibm_fez"].access())
    before = provider.calibrated_at()
    newest = datetime.now(UTC).replace(microsecond=0)
    timed.calibrate("ibm_fez", newest)
    assert provider.calibrated_at() == newest != before


def test_a_qpu_that_goes_away_is_seen_within_seconds(timed: Emulator, job: Job) -> None:
    assert job.get("/backends/ibm_fez/status")["status"] == "active"
    timed.set_backend("ibm_fez", "paused", "Back soon.")
    begin = time.monotonic()
    while job.get("/backends/ibm_fez/status")["status"] == "active":
        assert time.monotonic() < begin + SECONDS
        time.sleep(0.2)
    timed.set_backend("ibm_fez", "active", "")


def test_copies_are_kept_by_everything_that_an_answer_depends_on(job: Job) -> None:
    objects = job.send("GET", "/backends", headers={"IBM-API-Version": "2025-05-01"}).json()
    names = job.send("GET", "/backends", headers={"IBM-API-Version": "2024-01-01"}).json()
    assert [device["name"] for device in objects["devices"]] == names["devices"] == ["ibm_fez"]


def test_an_error_is_not_kept(timed: Emulator, job: Job) -> None:
    timed.inject(Fault(method="GET", path="/instances/usage", status=500))
    path, fresh = "/instances/usage", {"Cache-Control": "no-cache"}
    assert job.send("GET", path, headers=fresh).status_code == 500
    assert job.send("GET", path).ok
