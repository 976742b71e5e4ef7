# SPDX-License-Identifier: Apache-2.0
"""What passes through the gateway: large, broken off, refused, too much at once."""

from __future__ import annotations

import queue
import socket
import threading
import time
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Self

import psutil
import pytest
import requests

from qpu_slurm_devkit.emulator import Drop, Emulator, Fault
from tests.integration.gateway_site import SECONDS, Site

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.gateway_site import Job

SIZE = 100_000_000
PIECE = b"x" * 1_000_000

ROOM = 24_000_000
"""Bytes by which the gateway may grow while 100 MB pass: buffers, and what an allocator keeps."""


@pytest.fixture
def job(site: Site) -> Iterator[Job]:
    with site.job(site.acquire()) as job:
        yield job


class Growth:
    """How much larger a process has been than it was."""

    def __init__(self, site: Site) -> None:
        assert site.process is not None
        self._process = psutil.Process(site.process.pid)
        self._before = self._process.memory_info().rss
        self._most = self._before
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.005):
            self._most = max(self._most, self._process.memory_info().rss)

    @property
    def bytes(self) -> int:
        return self._most - self._before


def large(job: Job, *, named: bool = True) -> Iterator[bytes]:
    """Write a submission of 100 MB whose session comes last, or not at all."""
    yield b'{"program_id": "sampler", "backend": "ibm_fez", "params": {"pubs": [], "x": "'
    for _ in range(SIZE // len(PIECE)):
        yield PIECE
    yield b'"}, "session_id": "%b"}' % job.session_id.encode() if named else b'"}}'


def test_what_is_large_costs_no_memory() -> None:
    with Emulator(result_bytes=SIZE) as emulator, Site(emulator) as site:
        site.start()
        with site.job(site.acquire()) as job:
            job.submit()  # what a first request needs is not what a large one does
            with Growth(site) as nameless:
                assert job.send("POST", "/jobs", data=large(job, named=False)).ok
            with Growth(site) as upload:
                task = job.send("POST", "/jobs", data=large(job)).json()["id"]
            emulator.wait_for(lambda emulator: emulator.tasks()[-1].done_at)
            with Growth(site) as result, job.send("GET", f"/jobs/{task}/results", stream=True) as answer:
                got = sum(len(piece) for piece in answer.iter_content(1 << 20))
            with Growth(site) as shown, job.send("GET", f"/jobs/{task}", stream=True) as answer:
                assert sum(len(piece) for piece in answer.iter_content(1 << 20)) > SIZE
            assert got == pytest.approx(SIZE, rel=0.01)
            for growth in (nameless, upload, result, shown):
                assert growth.bytes < ROOM


class Recorder:
    """A service that takes whatever comes, answers nothing, and shows what it got with a POST."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/api/v1"
        self._posts: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        # The gateway asks for other things besides, such as whether the QPU is available.
        with suppress(OSError):  # closed by `end`
            while True:
                connection, _ = self._listener.accept()
                threading.Thread(target=self._record, args=(connection,), daemon=True).start()

    def _record(self, connection: socket.socket) -> None:
        got = b""
        with connection, suppress(OSError):  # it was aborted, or kept open
            connection.settimeout(SECONDS)
            while piece := connection.recv(1 << 20):
                got += piece
        if got.startswith(b"POST "):
            self._posts.put(got)

    def end(self) -> bytes:
        """Wait until the other side has hung up on a POST; return what it sent."""
        got = self._posts.get(timeout=SECONDS)
        self._listener.shutdown(socket.SHUT_RDWR)  # which wakes who waits for another one
        self._listener.close()
        return got


@pytest.mark.parametrize("way", ["length", "chunked"])
@pytest.mark.parametrize("end", [b'"session_id": "foreign"}', b'"x": 1}', b'"session_id": "OWN"} x'])
def test_the_service_never_gets_the_end_of_what_is_refused(emulator: Emulator, way: str, end: bytes) -> None:
    recorder = Recorder()
    with Site(emulator, endpoint=recorder.url) as site:
        site.start()
        until = datetime.now(UTC) + timedelta(minutes=15)
        lease = site.journal.intend(job_id=7, user_id=1000, qpu="ibm_fez", expires_at=until)
        lease = site.journal.hold(lease.id, "own", until)
        with site.job(lease) as job:
            begin = b'{"program_id": "sampler", "backend": "ibm_fez", "params": {"x": "'
            body = begin + b"x" * 2_000_000 + b'"}, ' + end.replace(b"OWN", b"own")
            data = (body[start : start + 65536] for start in range(0, len(body), 65536))
            answer = job.send("POST", "/jobs", data=data if way == "chunked" else body)
            assert answer.status_code in {400, 403}
        head, _, sent = recorder.end().partition(b"\r\n\r\n")
    assert b"POST /api/v1/jobs" in head
    assert sent.count(b"x") > 1_000_000
    assert end[:13] not in sent
    assert not sent.endswith(b"0\r\n\r\n")


# Too much.


def test_a_body_that_is_too_large_is_refused(emulator: Emulator) -> None:
    with Site(emulator, gateway="max_body = 1048576") as site:
        site.start()
        with site.job(site.acquire()) as job:
            begin = time.monotonic()
            declared = job.send("POST", "/jobs", data=b"x" * 1_048_577)
            chunked = job.send("POST", "/jobs", data=large(job))
            other = job.send("POST", "/sessions", data=b"x" * 100_000)
            assert [answer.status_code for answer in (declared, chunked, other)] == [413, 413, 413]
            assert "1048576 bytes" in declared.json()["errors"][0]["message"]
            assert time.monotonic() - begin < SECONDS
    assert emulator.tasks() == []


TOWERS = b"[" * 70 + b"]" * 70 + b","


@pytest.mark.parametrize("size", [12_000, 60_000, 600_000])
def test_no_submission_keeps_the_gateway_from_answering(
    site: Site, job: Job, emulator: Emulator, size: int
) -> None:
    """Brackets that open and close, many times over, are the most that there can be to do for each byte."""
    begin = b'{"program_id": "sampler", "backend": "ibm_fez", "params": {"pubs": [], "x": ['
    end = b'0]}, "session_id": "%b"}' % job.session_id.encode()
    body = begin + TOWERS * (size // len(TOWERS)) + end
    asked = threading.Thread(target=job.send, args=("POST", "/jobs"), kwargs={"data": body})
    asked.start()
    emulator.wait_for(lambda _: healthy(site))
    asked.join()
    assert len(emulator.tasks()) == 1


def test_what_is_nested_too_deeply_is_refused_before_it_ends(
    site: Site, job: Job, emulator: Emulator
) -> None:
    host, port = site.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=SECONDS) as connection:
        head = f"POST /api/v1/jobs HTTP/1.1\r\nHost: x\r\nContent-Length: {SIZE}\r\n"
        head += f"Authorization: {job.token}\r\n\r\n"
        connection.sendall(head.encode() + b'{"params": ' + b"[" * 101)
        assert connection.recv(1 << 16).startswith(b"HTTP/1.1 400 ")
    assert emulator.tasks() == []


def healthy(site: Site) -> bool:
    try:
        return requests.get(f"{site.url}/healthz", timeout=SECONDS).ok
    except requests.ConnectionError:
        return False


# What goes wrong behind it.


def test_a_submission_whose_answer_was_lost_is_lost_for_the_client_too(job: Job, emulator: Emulator) -> None:
    """An answer would be a lie: nobody knows whether it took effect."""
    emulator.inject(Fault(method="POST", path="/jobs", drop=Drop.AFTER))
    with pytest.raises(requests.ConnectionError):
        job.send("POST", "/jobs", json=job.submission())
    assert len(emulator.tasks()) == 1


def test_a_service_that_is_away_is_told_of(job: Job, emulator: Emulator) -> None:
    job.get("/jobs")
    emulator.inject(Fault(method="GET", path="/jobs", drop=Drop.AFTER, times=10))
    assert job.send("GET", "/jobs").status_code == 502
    emulator.clear_faults()
    emulator.refuse(1)
    time.sleep(0.2)  # until it is noticed that connections have gone
    answer = job.send("POST", "/jobs", json=job.submission())
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "2")
    time.sleep(1)
    assert job.send("POST", "/jobs", json=job.submission()).ok
    assert len(emulator.tasks()) == 1


@pytest.mark.parametrize(("method", "path"), [("GET", "/jobs"), ("POST", "/jobs")])
def test_a_token_that_the_service_refuses_is_renewed_once(
    job: Job, emulator: Emulator, method: str, path: str
) -> None:
    body = job.submission() if method == "POST" else None
    emulator.inject(Fault(method=method, path=path, status=401))
    assert job.send(method, path, json=body).ok
    emulator.inject(Fault(method=method, path=path, status=401, times=2))
    # To the job, its own key is fine.
    assert job.send(method, path, json=body).status_code == 503


@pytest.mark.parametrize("status", [400, 404, 409, 429, 500, 503])
def test_the_services_own_errors_are_handed_on(job: Job, emulator: Emulator, status: int) -> None:
    emulator.inject(Fault(method="POST", path="/jobs", status=status, retry_after="7"))
    answer = job.send("POST", "/jobs", json=job.submission())
    assert (answer.status_code, answer.headers["Retry-After"]) == (status, "7")
    assert answer.json()["errors"][0]["message"] == "Injected fault."
    emulator.inject(Fault(method="GET", path="/jobs/xyz", status=status))
    assert job.send("GET", "/jobs/xyz").status_code == status


def test_a_client_that_goes_away_leaves_nothing_behind(site: Site, job: Job, emulator: Emulator) -> None:
    with hung_up(job, site):
        pass
    assert job.send("POST", "/jobs", json=job.submission()).ok
    assert len(emulator.tasks()) == 1


@contextmanager
def hung_up(job: Job, site: Site) -> Iterator[None]:
    """Begin a submission, and hang up in its midst."""
    host, port = site.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=SECONDS) as connection:
        head = f"POST /api/v1/jobs HTTP/1.1\r\nHost: x\r\nContent-Length: {SIZE}\r\n"
        head += f"Authorization: {job.token}\r\n\r\n"
        connection.sendall(head.encode() + b'{"params": "' + PIECE)
        yield
