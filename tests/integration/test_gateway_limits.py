# SPDX-License-Identifier: Apache-2.0
"""One user, one job, one host cannot take the gateway from the others."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import pytest
import requests

from qpu_slurm.errors import UnavailableError
from qpu_slurm.gateway import messages
from qpu_slurm.leases.availability import QpuReport
from qpu_slurm_devkit.emulator import Fault
from tests.integration.gateway_site import SECONDS, Site
from tests.integration.test_gateway_control import AS_ANOTHER, OTHERS, ask, credential, refusal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qpu_slurm_devkit.emulator import Emulator
    from tests.integration.gateway_site import Job

SLOW = 4
"""Seconds that the service takes for what has to be under way for a while."""


def connect(site: Site, source: str = "127.0.0.1") -> socket.socket:
    host, port = site.url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=SECONDS, source_address=(source, 0))


def closed(connection: socket.socket) -> bool:
    """Wait until the gateway answers a connection or closes it; say which."""
    try:
        return connection.recv(1 << 16) == b""
    except ConnectionResetError:
        return True


@contextmanager
def under_way(site: Site, emulator: Emulator, *jobs: Job) -> Iterator[list[int]]:
    """Have jobs ask for something that takes a while; yields the statuses that they have got so far."""
    emulator.inject(Fault(method="GET", path="/jobs", delay=SLOW, times=len(jobs)))
    statuses: list[int] = []
    before = len(site.events("request begins"))

    def get(job: Job) -> None:
        headers = {"Authorization": job.token}
        answer = requests.get(f"{site.url}/api/v1/jobs", headers=headers, timeout=SECONDS)
        statuses.append(answer.status_code)

    threads = [threading.Thread(target=get, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    emulator.wait_for(lambda _: len(site.events("request begins")) >= before + len(jobs))
    yield statuses
    emulator.clear_faults()
    for thread in threads:
        thread.join()


def metric(site: Site, name: str) -> float:
    lines = requests.get(f"{site.url}/metrics", timeout=SECONDS).text.splitlines()
    return float(next(line for line in lines if line.startswith(f"{name} ")).rpartition(" ")[2])


# Connections.


@pytest.mark.parametrize("path", ["/identity/token", messages.LEASES_PATH])
def test_a_small_body_has_to_arrive_in_time(emulator: Emulator, path: str) -> None:
    with Site(emulator, gateway='request_timeout = "1s"') as site:
        site.start()
        with connect(site) as connection:
            connection.sendall(f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 60000\r\n\r\n".encode())
            connection.settimeout(0.3)
            answer = b""
            for _ in range(SECONDS * 3):
                connection.sendall(b"x")
                try:
                    answer = connection.recv(1 << 16)
                except TimeoutError:
                    continue
                break
            assert answer.startswith(b"HTTP/1.1 408 ")


def test_idle_connections_make_room_for_others(emulator: Emulator) -> None:
    with Site(emulator, gateway="max_connections = 5") as site, ExitStack() as stack:
        site.start()
        crowd = [stack.enter_context(connect(site)) for _ in range(20)]
        assert requests.get(f"{site.url}/healthz", timeout=SECONDS).ok
        assert site.hooks().acquire(site.request("ibm_fez"))
        assert closed(crowd[0])
        assert site.events("connections run short")[0]["limit"] == "max_connections"
        assert metric(site, "qpu_slurm_connections_closed_total") >= 15
        assert metric(site, 'qpu_slurm_connections{state="open"}') <= 5
        assert metric(site, "qpu_slurm_connections_limit") == 5


def test_hooks_and_steps_have_places_when_all_others_are_taken(emulator: Emulator) -> None:
    with (
        Site(emulator, gateway="max_connections = 3\nreserved_connections = 2") as site,
        ExitStack() as stack,
    ):
        site.start()
        job = stack.enter_context(site.job(site.acquire()))
        last = stack.enter_context(site.job(site.acquire()))
        last.http.close()
        with under_way(site, emulator, job, job, job) as statuses:
            answer = requests.get(
                f"{site.url}/api/v1/backends", headers={"Authorization": last.token}, timeout=SECONDS
            )
            assert (answer.status_code, answer.headers["Connection"]) == (503, "close")
            # A gateway that is full is well, and nothing should restart it.
            for path in ("/healthz", "/healthz/live"):
                assert requests.get(site.url + path, timeout=SECONDS).ok
            # Whoever only keeps such a place has to leave it, too.
            crowd = [stack.enter_context(connect(site)) for _ in range(4)]
            (lease,) = site.hooks().acquire(site.request("torino"))
            assert list(site.hooks().keys(lease.job_id)) == ["torino"]
            assert site.hooks().release(lease.job_id, "Done.")
            assert closed(crowd[0])
            assert statuses == []
        assert statuses == [200] * 3


def test_one_address_cannot_take_them_all(emulator: Emulator) -> None:
    settings = "max_connections_per_address = 2\nreserved_connections = 1"
    with Site(emulator, gateway=settings) as site, site.start().job(site.acquire()) as job:
        job.http.close()
        with under_way(site, emulator, job, job) as statuses:
            head = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"
            with connect(site) as here, connect(site, "127.0.0.2") as elsewhere:
                for connection in (here, elsewhere):
                    connection.sendall(head)
                assert here.recv(1 << 16).startswith(b"HTTP/1.1 503 ")
                assert elsewhere.recv(1 << 16).startswith(b"HTTP/1.1 200 ")
            assert site.hooks().keys(job.lease.job_id)
            assert statuses == []
        warned = site.events("connections run short")[0]
        assert (warned["limit"], warned["of"]) == ("max_connections_per_address", "127.0.0.1")


def test_one_user_cannot_take_them_all(emulator: Emulator) -> None:
    with Site(emulator, gateway="max_connections_per_user = 2") as site, ExitStack() as stack:
        site.start()
        jobs = [stack.enter_context(site.job(site.acquire(user_id=1000))) for _ in range(3)]
        other = stack.enter_context(site.job(site.acquire(user_id=1001)))
        with under_way(site, emulator, *jobs[:2]) as statuses:
            refused = jobs[2].send("GET", "/sessions/x")
            assert (refused.status_code, refused.headers["Retry-After"]) == (429, "1")
            assert "User 1000 has 2 requests under way" in refused.json()["errors"][0]["message"]
            assert other.get(f"/sessions/{other.session_id}")["id"] == other.session_id
            assert statuses == []
        assert jobs[2].get(f"/sessions/{jobs[2].session_id}")
        assert metric(site, 'qpu_slurm_limits_reached_total{limit="max_connections_per_user"}') == 1


def test_a_request_is_logged_when_it_begins(site: Site, emulator: Emulator) -> None:
    with site.job(site.acquire()) as job, under_way(site, emulator, job):
        begun = site.events("request begins")[-1]
        assert (begun["path"], begun["job_id"], begun["user_id"]) == (
            "/api/v1/jobs",
            job.lease.job_id,
            job.lease.user_id,
        )
        assert begun["request"] not in {event["request"] for event in site.events("request")}
    emulator.wait_for(lambda _: begun["request"] in {event["request"] for event in site.events("request")})


# Slurm, asked for users.


SQUEUE = """#!/bin/sh
echo "$@" >> {calls}
sleep {seconds}
exit 1
"""


@contextmanager
def slurm(site: Site, seconds: int = 0) -> Iterator[list[str]]:
    """Put a squeue where the gateway looks for it, which knows no job; yields what was asked."""
    calls = site.directory / "calls"
    calls.touch()
    for name in ("squeue", "sacct", "scontrol"):
        program = site.directory / name
        program.write_text(SQUEUE.format(calls=calls, seconds=seconds))
        program.chmod(0o755)
    before = len(calls.read_text().splitlines())
    asked: list[str] = []
    yield asked
    asked += calls.read_text().splitlines()[before:]


@pytest.mark.parametrize("uid", OTHERS)
def test_slurm_is_not_asked_for_another_users_job(site: Site, uid: int) -> None:
    lease = site.acquire(user_id=1000)
    path = messages.job_history_path(lease.job_id)
    with slurm(site) as asked:
        for _ in range(3):
            status, kind, _ = refusal(ask(site, "GET", path, credential(site, "GET", path, uid=uid)))
            assert (status, kind) == (403, "RefusedError")
    assert not [call for call in asked if str(lease.job_id) in call]


@pytest.mark.parametrize("uid", OTHERS)
def test_a_user_gets_only_so_many_histories_at_once(site: Site, uid: int) -> None:
    lease = site.acquire(user_id=uid)
    path = messages.job_history_path(lease.job_id)
    signed = [credential(site, "GET", path, uid=uid) for _ in range(6)]
    answers: list[Any] = []

    def get(credential: str) -> None:
        answers.append(ask(site, "GET", path, credential))

    with slurm(site, seconds=2):
        threads = [threading.Thread(target=get, args=(one,)) for one in signed]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    refused = [answer for answer in answers if answer.status_code != 200]
    assert len(refused) == 4
    for answer in refused:
        status, _, why = refusal(answer)
        assert (status, "under way already" in why) == (429, True)
        with pytest.raises(UnavailableError):
            messages.raise_error(status, answer.content)


@pytest.mark.parametrize("uid", OTHERS)
def test_a_user_asks_only_so_often_how_the_qpus_are(site: Site, uid: int) -> None:
    path = messages.QPUS_PATH
    # Made beforehand, so that the minute is long enough.
    signed = credentials(site, "GET", path, uid, 70)
    answers = [ask(site, "GET", path, one) for one in signed]
    assert [answer.status_code for answer in answers] == [200] * 60 + [429] * 10
    reports = messages.decode(answers[0].content, tuple[QpuReport, ...])
    assert [report.qpu for report in reports] == ["ibm_fez", "torino", "own"]
    assert "60 times for the state of the QPUs within a minute" in refusal(answers[-1])[2]
    # Slurm's own user is in nobody's way.
    assert ask(site, "GET", path, credential(site, "GET", path)).status_code == 200


def credentials(site: Site, method: str, path: str, uid: int, count: int) -> list[str]:
    """Sign a request several times, in one process of a user."""
    payload = messages.binding(method, path).decode()
    made = subprocess.run(
        [sys.executable, "-c", AS_ANOTHER * count, str(site.munge.socket), payload],
        user=uid,
        capture_output=True,
        text=True,
        check=True,
        timeout=SECONDS,
        cwd="/",
    )
    return made.stdout.split()


# Sessions.


def test_a_job_opens_only_so_many_sessions_in_a_minute(emulator: Emulator) -> None:
    with Site(emulator, gateway="sessions_per_minute = 3") as site, site.start().job(site.later()) as job:
        for _ in range(3):
            session = job.send("POST", "/sessions", json={}).json()["id"]
            assert job.send("DELETE", f"/sessions/{session}/close").ok
        refused = job.send("POST", "/sessions", json={})
        assert refused.status_code == 429
        assert 0 < int(refused.headers["Retry-After"]) <= 61
        with site.job(site.later("torino")) as other:
            assert other.send("POST", "/sessions", json={}).ok
            # The one that it has is no other one.
            assert other.send("POST", "/sessions", json={}).ok
    assert len(emulator.sessions()) == 4


def test_who_opens_sessions_keeps_no_hook_waiting(emulator: Emulator) -> None:
    with Site(emulator, acquire_timeout=30, gateway="sessions_per_minute = 100") as site:
        site.start()
        with site.job(site.later()) as job:
            emulator.inject(Fault(method="POST", path="/sessions", delay=10))
            statuses: list[int] = []
            headers = {"Authorization": job.token}

            def post() -> None:
                url = f"{site.url}/api/v1/sessions"
                answer = requests.post(url, json={}, headers=headers, timeout=2 * SECONDS)
                statuses.append(answer.status_code)

            before = len(site.events("request begins"))
            threads = [threading.Thread(target=post) for _ in range(50)]
            for thread in threads:
                thread.start()
            emulator.wait_for(lambda _: len(site.events("request begins")) >= before + 50)
            (lease,) = site.hooks().acquire(site.request("torino"))
            assert site.hooks().release(lease.job_id, "Done.")
            assert statuses == []
            for thread in threads:
                thread.join()
    assert statuses == [200] * 50
    assert len(emulator.sessions()) == 2
