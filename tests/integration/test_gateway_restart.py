# SPDX-License-Identifier: Apache-2.0
"""The gateway restarts while clients ask it: none of them is refused, and no request is lost.

The socket is held as a socket unit of systemd holds it; see sd_listen_fds(3).
"""

from __future__ import annotations

import http.client
import itertools
import os
import shutil
import socket
import subprocess
import threading
import traceback
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Self

import pytest
import requests
from qiskit_ibm_runtime.api.session import RetrySession

from qpu_slurm import providers
from qpu_slurm.gateway import client as gateway_client
from qpu_slurm.job.variables import from_environ
from qpu_slurm.journal.model import LeaseState
from qpu_slurm.leases.availability import QpuState
from qpu_slurm_devkit.emulator import Fault
from tests.integration.gateway_site import PROGRAM, SECONDS, Site
from tests.integration.test_gateway_process import command, own, speak_tls, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from qpu_slurm_devkit.emulator import Emulator
    from tests.integration.gateway_site import Job

__all__ = ["own"]

ACTIVATE = "systemd-socket-activate"

RESTARTS = 10

PAUSES = {0.02: 0, 0.1: 0, 0.4: 0, 1.3: 5}
"""Seconds between two requests over one connection, and how often a request is tried again. A client that
pauses for longer than a gateway that stops waits for it needs that: its request may be on its way as the
connection is ended. The others try nothing twice."""


INPUT = b'{"pubs": [["?"]], "version": 2}'


@pytest.fixture
def held(own: Site) -> Site:
    """Return a host on which systemd holds the gateway's socket."""
    own.hold()
    return own


class Load:
    """Clients that ask again and again until they are stopped.

    Attributes:
        answered: How many requests were answered.
        lost: What became of the others.
        submitted: The tasks that the service has confirmed.
    """

    def __init__(self, site: Site, jobs: list[Job]) -> None:
        self.answered = 0
        self.lost: list[str] = []
        self.submitted: list[str] = []
        self._site = site
        self._stop = threading.Event()
        clients: list[Callable[[], Iterator[None]]] = [self._hooks, self._hooks, self._users]
        clients += [partial(self._runtime, job, pause) for job, pause in zip(jobs, PAUSES, strict=True)]
        clients += [partial(self._ours, jobs[0]), partial(self._new_connections, jobs[1])]
        self._threads = [threading.Thread(target=self._run, args=(client,)) for client in clients]
        self._numbers = itertools.count(1000)

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def has_come_to(self, answered: int) -> bool:
        """Tell whether as many requests are answered, or one is lost."""
        return self.answered >= answered or bool(self.lost)

    def _run(self, client: Callable[[], Iterator[None]]) -> None:
        try:
            for _ in client():
                self.answered += 1
                if self._stop.wait(0.02):
                    return
        except Exception as error:  # noqa: BLE001 - whatever it is, it is a request that was lost
            self.lost.append("".join(traceback.format_exception(error)))

    def _hooks(self) -> Iterator[None]:
        """Start and end jobs with a step each."""
        hooks = self._site.hooks()
        while True:
            job_id = next(self._numbers)
            hooks.acquire(self._site.request("ibm_fez", job_id=job_id))
            yield
            assert hooks.step_started(job_id, "0", "a.out", 0.0, seconds=SECONDS)
            yield
            assert hooks.keys(job_id, seconds=SECONDS)
            yield
            hooks.step_ended(job_id, "0", 0.0)
            yield
            (lease,) = hooks.release(job_id, "Done.")
            assert lease.state is LeaseState.RELEASED
            yield

    def _users(self) -> Iterator[None]:
        """Ask how the QPUs are."""
        while True:
            assert self._site.hooks().qpus()
            yield
            self._stop.wait(1.1)

    def _runtime(self, job: Job, pause: float) -> Iterator[None]:
        """Ask with the HTTP client of qiskit-ibm-runtime."""
        url, patience = f"{self._site.url}/api/v1", (SECONDS, SECONDS)
        with RetrySession(url, PAUSES[pause], retries_connect=0, timeout=patience) as session:
            session.headers["Authorization"] = job.token
            while True:
                task = session.post("/jobs", json=job.submission()).json()["id"]
                self.submitted.append(task)
                yield
                self._stop.wait(pause)
                assert session.get(f"/jobs/{task}").json()["id"] == task
                yield
                self._stop.wait(pause)

    def _ours(self, job: Job) -> Iterator[None]:
        """Do what task_runner does."""
        provider = providers.connect(from_environ(job.environ)["ibm_fez"].access())
        while True:
            tags = (f"restart:{next(self._numbers)}",)
            task = provider.submit("sampler", INPUT, session_id=job.session_id, tags=tags)
            self.submitted.append(task)
            yield
            assert provider.task(task)
            yield

    def _new_connections(self, job: Job) -> Iterator[None]:
        """Ask over a new connection each time."""
        url = f"{self._site.url}/api/v1/backends"
        while True:
            headers = {"Authorization": job.token, "Connection": "close"}
            answer = requests.get(url, headers=headers, timeout=SECONDS)
            answer.raise_for_status()
            yield


@pytest.mark.parametrize("tls", [False, True])
def test_ten_restarts_under_load_lose_no_request(
    own: Site, emulator: Emulator, monkeypatch: pytest.MonkeyPatch, *, tls: bool
) -> None:
    # A hook gives up after five seconds, since Slurm waits. On a busy machine, Python takes longer to start.
    for name in ("_RELEASE_SECONDS", "_KEYS_SECONDS", "_STEP_END_SECONDS", "_PATIENCE"):
        monkeypatch.setattr(gateway_client, name, SECONDS)
    if tls:
        certificate = own.directory / "cert.pem"
        speak_tls(own, certificate, own.directory / "key.pem")
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))  # as jobs trust it
    own.hold()
    own.start()
    jobs = [own.job(own.acquire()) for _ in PAUSES]
    with Load(own, jobs) as load:
        for _ in range(RESTARTS):
            enough = load.answered + 30
            wait_until(partial(load.has_come_to, enough), SECONDS)
            assert own.stop() == 0
            own.start()
    assert not load.lost, "\n".join(load.lost)
    # Nor did any of them take effect twice.
    assert sorted(load.submitted) == sorted(task.id for task in emulator.tasks())


def test_what_is_under_way_is_answered_and_what_comes_waits_for_the_next(
    held: Site, emulator: Emulator
) -> None:
    held.start()
    with held.job(held.acquire()) as job, ThreadPoolExecutor() as pool:
        emulator.inject(Fault(method="GET", path="/backends", delay=8))
        slow = pool.submit(job.send, "GET", "/backends")
        wait_until(lambda: held.events("request begins"))
        ended = pool.submit(held.stop)
        wait_until(lambda: held.events("gateway stops"))
        # Somebody else's, over another connection.
        waits = pool.submit(requests.get, f"{held.url}/healthz", timeout=SECONDS)
        answer = slow.result()
        assert (answer.status_code, answer.headers["Connection"]) == (200, "close")
        assert ended.result() == 0
        assert not waits.done()
        held.start()
        assert waits.result().json()["status"] == "ok"


def test_a_connection_that_is_kept_gets_its_request_answered_while_the_gateway_stops(held: Site) -> None:
    held.start()
    with closing(client(held)) as idle, closing(client(held)) as used, ThreadPoolExecutor() as pool:
        for connection in (idle, used):
            connection.request("GET", "/healthz")
            assert connection.getresponse().read()
        ended = pool.submit(held.stop)
        wait_until(lambda: held.events("gateway stops"))
        used.request("GET", "/healthz/live")
        answer = used.getresponse()
        assert (answer.status, answer.headers["Connection"]) == (200, "close")
        answer.read()
        assert ended.result() == 0
        # A request that was sent as its connection was ended is answered, and what it hears is true.
        idle.request("GET", "/healthz")
        answer = idle.getresponse()
        assert (answer.status, answer.headers["Connection"]) == (503, "close")


def test_a_load_balancer_sees_that_the_gateway_stops(held: Site) -> None:
    held.start()
    with closing(client(held)) as balancer, ThreadPoolExecutor() as pool:
        balancer.request("GET", "/healthz")
        assert balancer.getresponse().read()
        ended = pool.submit(held.stop)
        wait_until(lambda: held.events("gateway stops"))
        balancer.request("GET", "/healthz")
        answer = balancer.getresponse()
        assert (answer.status, answer.read()) == (503, b'{"status":"the gateway stops"}')
        assert ended.result() == 0


def client(site: Site) -> http.client.HTTPConnection:
    address = site.url.removeprefix("http://").split(":")
    return http.client.HTTPConnection(address[0], int(address[1]), timeout=SECONDS)


def test_what_takes_too_long_is_carried_on_by_the_next_gateway(emulator: Emulator) -> None:
    """A hook waits for a service that does not answer; it asks again, and notices nothing else."""
    with Site(emulator, acquire_timeout=60) as site, ThreadPoolExecutor() as pool:
        site.hold()
        site.start()
        emulator.inject(Fault(method="POST", path="/sessions", late=40))
        hook = pool.submit(site.hooks().acquire, site.request("ibm_fez", job_id=70))
        wait_until(emulator.sessions, SECONDS)
        assert site.stop() == 0
        assert site.events("requests are cut off: they took too long")
        site.start()
        (lease,) = hook.result()
        assert [session.id for session in emulator.sessions()] == [lease.session_id]


def test_a_step_that_has_just_started_is_written_down_before_the_gateway_ends(held: Site) -> None:
    held.start()
    lease = held.acquire()
    for number in range(20):
        held.hooks().step_started(lease.job_id, str(number), "a.out", 0.0)
    assert held.stop() == 0
    assert len(held.journal.history.steps(lease.job_id, lease.run)) == 20


def test_nobody_is_refused_how_the_qpus_are_before_they_were_checked(held: Site, emulator: Emulator) -> None:
    emulator.inject(Fault(method="GET", path="/backends", delay=8))
    held.start()
    assert [report.state for report in held.hooks().qpus()] == [QpuState.UNKNOWN] * 3


# The socket.


@pytest.mark.skipif(shutil.which(ACTIVATE) is None, reason=f"needs {ACTIVATE}")
def test_systemds_own_program_passes_the_socket(own: Site) -> None:
    """It listens, and starts the gateway when the first connection comes."""
    settings = own.config.gateway
    assert settings is not None
    argv = [ACTIVATE, f"--listen={settings.listen}", str(PROGRAM), "--config", str(own.path), "gateway"]
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            wait_until(lambda: _is_listened_on(settings.listen))
            assert requests.get(f"{settings.url}/healthz", timeout=SECONDS).ok
            assert own.events("gateway listens")[0]["held_by_systemd"] is True
        finally:
            process.terminate()


def _is_listened_on(address: str) -> bool:
    """Look without connecting, which would start the gateway for a connection that is gone again."""
    port = f":{int(address.rpartition(':')[2]):04X} "
    return any(port in line and " 0A " in line for line in Path("/proc/net/tcp").read_text().splitlines())


@pytest.mark.parametrize("pid", ["1", "", "4194305"])
def test_a_socket_that_is_another_process_is_left_alone(own: Site, pid: str) -> None:
    own.start({"LISTEN_FDS": "1", "LISTEN_PID": pid})
    assert requests.get(f"{own.url}/healthz", timeout=SECONDS).ok
    wait_until(lambda: own.events("gateway listens"))
    assert own.events("gateway listens")[0]["held_by_systemd"] is False


def test_what_the_gateway_starts_does_not_inherit_the_socket(held: Site) -> None:
    """Neither the descriptor nor the variables: squeue would keep the port open."""
    held.start()
    assert held.process is not None
    wait_until(lambda: held.events("gateway listens"))
    assert held.events("gateway listens")[0]["held_by_systemd"] is True
    flags = Path(f"/proc/{held.process.pid}/fdinfo/3").read_text().split()
    assert int(flags[flags.index("flags:") + 1], 8) & os.O_CLOEXEC


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("127.0.0.1", "Write the same port into ListenStream="),
        ("0.0.0.0", "keys would be sent unencrypted"),  # noqa: S104 - this is what is refused
    ],
)
def test_a_socket_that_does_not_fit_the_configuration_is_refused(own: Site, address: str, why: str) -> None:
    same = own.config.gateway is not None and address == "0.0.0.0"  # noqa: S104 - compared, not listened on
    port = int(own.config.gateway.listen.rpartition(":")[2]) if same and own.config.gateway else 0
    with socket.create_server((address, port)) as other:
        done = command(own, other)
    assert (done.returncode, why in done.stderr) == (1, True), done.stderr


def test_what_is_no_socket_that_listens_is_refused(own: Site) -> None:
    with socket.socket() as other:
        done = command(own, other)
    assert (done.returncode, "no TCP socket that listens" in done.stderr) == (1, True)
