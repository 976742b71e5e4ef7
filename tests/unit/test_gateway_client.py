# SPDX-License-Identifier: Apache-2.0
"""How hooks and steps ask the gateway, and what they do when it does not answer."""

from __future__ import annotations

import itertools
import socket
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from qpu_slurm.config import Config, GatewayConfig
from qpu_slurm.errors import ConfigError, NoLeaseError, RefusedError, UnavailableError
from qpu_slurm.gateway import messages
from qpu_slurm.gateway.client import GatewayBroker
from qpu_slurm.journal.model import LeaseRequest
from qpu_slurm.system import munge

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

REQUEST = LeaseRequest(job_id=7, user_id=1000, qpus=("ibm_fez",), seconds_left=60)

KEYS = b'{"ibm_fez": {"key": "key", "session_id": null}}'

Answer = tuple[int, bytes] | None
"""A status and a body; None cuts the connection."""


class Server(HTTPServer):
    """Answers what it was given, one after another, and the last again and again."""

    def __init__(self, port: int, answers: Sequence[Answer]) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.answers = itertools.chain(answers, itertools.repeat(answers[-1]))
        self.seen: list[tuple[str, str, str]] = []


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        server = self.server
        assert isinstance(server, Server)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        signature = messages.binding(self.command, self.path, body).hex()
        scheme, _, credential = self.headers["Authorization"].partition(" ")
        assert scheme == "MUNGE"
        server.seen.append((self.command, credential.rpartition(" ")[2], signature))
        answer = next(server.answers)
        if answer is None:
            self.close_connection = True
            return
        self.send_response(answer[0])
        self.send_header("Content-Length", str(len(answer[1])))
        self.send_header("Location", "http://127.0.0.1:9/")
        self.end_headers()
        self.wfile.write(answer[1])

    do_POST = do_DELETE = do_GET  # noqa: N815 - http.server's names

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(autouse=True)
def _credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make credentials of what they are made for and a number, without munged."""
    numbers = itertools.count()
    monkeypatch.setattr(munge, "encode", lambda payload, **_: f"{next(numbers)}-{payload.hex()}")


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def broker(port: int) -> GatewayBroker:
    gateway = GatewayConfig(url=f"http://127.0.0.1:{port}")
    return GatewayBroker(Config(path=Path("config.toml"), gateway=gateway, qpus={}))


@contextmanager
def serving(port: int, *answers: Answer) -> Iterator[Server]:
    with Server(port, answers) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def test_each_request_is_signed_by_a_credential_of_its_own(broker: GatewayBroker, port: int) -> None:
    with serving(port, (200, b"[]"), None, (200, b"[]"), (200, KEYS)) as server:
        assert broker.release(7, "It ended, äh?") == ()
        assert broker.acquire(REQUEST) == ()
        keys = broker.keys(7)
    assert {name: own.key.reveal() for name, own in keys.items()} == {"ibm_fez": "key"}
    assert [method for method, _, _ in server.seen] == ["DELETE", "POST", "POST", "GET"]
    assert [credential for _, credential, _ in server.seen] == [
        f"{number}-{signature}" for number, (_, _, signature) in enumerate(server.seen)
    ]


def test_a_step_is_told_of_with_what_is_worth_telling(broker: GatewayBroker, port: int) -> None:
    path, body = "/qpu-slurm/v1/jobs/7/steps", b'{"step":"0","name":"result.py","seconds_ago":60.0}'
    with serving(port, None, (200, KEYS), None, (200, b"null")) as server:
        assert broker.step_started(7, "0", "result.py", 4711).keys() == {"ibm_fez"}
        broker.step_ended(7, "0", 0.25)
    signed = [bytes.fromhex(signature) for _, _, signature in server.seen]
    assert signed == [
        *[messages.binding("POST", path, body)] * 2,
        *[messages.binding("DELETE", f"{path}/0?ago=0.250")] * 2,
    ]


def test_one_that_is_just_started_again_is_waited_for(broker: GatewayBroker, port: int) -> None:
    asked = threading.Thread(target=lambda: answers.append(broker.keys(7)))
    answers: list[object] = []
    asked.start()
    time.sleep(0.5)
    with serving(port, (200, b"{}")):
        asked.join()
    assert answers == [{}]


def test_an_epilog_waits_for_nobody(broker: GatewayBroker) -> None:
    begin = time.monotonic()
    with pytest.raises(UnavailableError, match="does not answer: Connection refused"):
        broker.release(7, "The job ended.")
    assert time.monotonic() - begin < 2.5  # a prolog waits for three seconds


def test_one_that_hangs_is_given_up_on(broker: GatewayBroker, port: int) -> None:
    with socket.create_server(("127.0.0.1", port)):
        begin = time.monotonic()
        with pytest.raises(UnavailableError, match="does not answer"):
            broker.keys(7, seconds=0.5)
        assert time.monotonic() - begin < 20


ERRORS = {
    "a mistake": (400, b'{"error": "There is none.", "kind": "NoLeaseError"}', NoLeaseError, "There is none"),
    "not for us": (403, b'{"error": "Only Slurm.", "kind": "RefusedError"}', RefusedError, "Only Slurm"),
    "unproven": (401, b'{"error": "Replayed.", "kind": "ReplayedError"}', UnavailableError, "Replayed"),
    "another error": (500, b'{"error": "Oh.", "kind": "SystemExit"}', UnavailableError, "Oh"),
    "no error of ours": (502, b"<html>", UnavailableError, "502"),
    "elsewhere": (302, b"", UnavailableError, "302"),
    "no answer of ours": (200, b"<html>", UnavailableError, "not a gateway of this release"),
    "no text": (200, b"\xff", UnavailableError, "not a gateway of this release"),
}


@pytest.mark.parametrize("how", ERRORS)
def test_what_went_wrong_there_is_raised_here(broker: GatewayBroker, port: int, how: str) -> None:
    status, body, kind, says = ERRORS[how]
    with serving(port, (status, body)) as server, pytest.raises(kind, match=says):
        broker.acquire(REQUEST)
    assert len(server.seen) == 1


def test_proxies_and_netrc_have_no_say(
    broker: GatewayBroker, port: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    netrc = tmp_path / "netrc"
    netrc.write_text("default login me password mine\n")
    monkeypatch.setenv("NETRC", str(netrc))
    with serving(port, (200, b"{}")):
        assert broker.keys(7) == {}


def test_an_authority_that_is_not_there_is_the_admins_mistake(tmp_path: Path, port: int) -> None:
    authority = tmp_path / "ca.pem"
    gateway = GatewayConfig(url=f"https://127.0.0.1:{port}", ca=authority)
    config = Config(path=Path("config.toml"), gateway=gateway, qpus={})
    with pytest.raises(ConfigError, match=r"ca\.pem"):
        GatewayBroker(config).keys(7)
    authority.write_text("no certificate\n")
    with pytest.raises(ConfigError, match=r"ca\.pem"):
        GatewayBroker(config).keys(7)
    with pytest.raises(ConfigError, match=r"no \[gateway\] table"):
        GatewayBroker(Config(path=Path("config.toml"), qpus={}))
