# SPDX-License-Identifier: Apache-2.0
"""The provider on the wire: what it sends, byte by byte, and answers that break off in the middle."""

from __future__ import annotations

import json
import socket
import ssl
import subprocess
import threading
import time
from typing import TYPE_CHECKING, NamedTuple, Self

import pytest

from qpu_slurm.errors import RefusedError, ServiceError, UnavailableError
from qpu_slurm.providers.base import Access
from qpu_slurm.providers.ibm import Patience, QuantumComputeService
from qpu_slurm.system.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

KEY = "a key/with+signs"
CRN = "crn:v1:bluemix:public:quantum-computing:us-east:a/1:2::"
TOKEN = b'{"access_token": "a.b.c", "expires_in": 3600}'
PATIENCE = Patience(connect=0.5, read=0.5, call=1.0, submit=0.5, settle=0.1)


def answer(body: bytes, *headers: str, status: str = "200 OK", length: int | None = None) -> bytes:
    """Write an HTTP answer; one whose length says more than there is breaks off."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body) if length is None else length}", *headers]
    return "\r\n".join([*lines, "Connection: close", "", ""]).encode() + body


class Script:
    """A server that gives answers written beforehand, one a connection, and keeps what it was sent."""

    def __init__(self, *answers: bytes, tls: ssl.SSLContext | None = None) -> None:
        self._answers = answers
        self._listener = socket.create_server(("127.0.0.1", 0))
        if tls is not None:
            self._listener = tls.wrap_socket(self._listener, server_side=True)
        self.url = f"http{'s' * bool(tls)}://127.0.0.1:{self._listener.getsockname()[1]}"
        self.received: list[bytes] = []
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()

    def _serve(self) -> None:
        for text in self._answers:
            try:
                connection = self._listener.accept()[0]
            except OSError:
                return
            with connection, connection.makefile("rb") as file:
                head = b"".join(iter(file.readline, b"\r\n"))
                length = next(
                    (
                        int(line[15:])
                        for line in head.split(b"\r\n")
                        if line.lower().startswith(b"content-length:")
                    ),
                    0,
                )
                self.received.append(head + b"\r\n" + file.read(length))
                connection.sendall(text)


def service_of(script: Script, url: str = "") -> QuantumComputeService:
    access = Access(
        type="ibm-quantum-compute-service",
        backend="ibm_fez",
        endpoint=f"{url or script.url}/api/v1/",
        iam_endpoint=url or script.url,
        instance=CRN,
        api_key=Secret(KEY),
    )
    return QuantumComputeService(access, patience=PATIENCE)


def test_what_is_sent() -> None:
    with Script(answer(TOKEN), answer(b'{"id": "task-1", "surprise": [1]}')) as script:
        parameters = json.dumps({"pubs": ["x" * (1 << 20)]}).encode()
        submit = service_of(script).submit
        assert submit("sampler", parameters, session_id="s-1", tags=["a", "b"], cost=30) == "task-1"
    iam, job = script.received
    assert iam.startswith(b"POST /identity/token HTTP/1.1\r\n")
    assert b"Authorization" not in iam
    assert iam.endswith(
        b"\r\n\r\ngrant_type=urn%3Aibm%3Aparams%3Aoauth%3Agrant-type%3Aapikey&apikey=a+key%2Fwith%2Bsigns"
    )
    head, _, body = job.partition(b"\r\n\r\n")
    assert head.startswith(b"POST /api/v1/jobs HTTP/1.1\r\n")
    headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n")[1:])
    assert headers["Authorization"] == "Bearer a.b.c"
    assert headers["Service-CRN"] == CRN
    assert headers["Content-Type"] == "application/json"
    assert headers["IBM-API-Version"].startswith("20")
    assert headers["User-Agent"].startswith("qpu_slurm")
    assert headers["X-Qx-Client-Application"].startswith("qpu_slurm")
    assert body.endswith(b',"params":' + parameters + b"}")
    assert json.loads(body) == {
        "program_id": "sampler",
        "backend": "ibm_fez",
        "session_id": "s-1",
        "tags": ["a", "b"],
        "cost": 30,
        "params": json.loads(parameters),
    }


class Pieces:
    """An input that is not in memory as a whole."""

    def __len__(self) -> int:
        return 12

    def __iter__(self) -> Iterator[bytes]:
        yield from (b'{"pu', b'bs":', b" []}")


def test_an_input_in_pieces_is_sent_again_from_its_beginning() -> None:
    refusal = answer(b"", "Retry-After: 0", status="429 Too Many Requests")
    with Script(answer(TOKEN), refusal, answer(b'{"id": "task-1"}')) as script:
        assert service_of(script).submit("sampler", Pieces(), session_id="s", tags=["a"]) == "task-1"
    assert [sent.endswith(b',"params":{"pubs": []}}') for sent in script.received] == [False, True, True]


def test_a_credential_in_netrc_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "netrc").write_text("default login somebody password secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with Script(answer(TOKEN), answer(b'{"state": true, "status": "active"}')) as script:
        assert service_of(script).status().online
    assert b"Authorization" not in script.received[0]
    assert b"Authorization: Bearer a.b.c" in script.received[1]


def test_the_environments_proxy_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    far = "http://quantum.invalid:8080"
    with Script(answer(TOKEN), answer(b'{"state": true, "status": "active"}')) as script:
        monkeypatch.setenv("http_proxy", script.url.replace("//", "//somebody:secret@"))
        assert service_of(script, far).status().online
    assert [sent.split(b" ", 2)[1].decode() for sent in script.received] == [
        f"{far}/identity/token",
        f"{far}/api/v1/backends/ibm_fez/status",
    ]
    assert all(b"\r\nProxy-Authorization: Basic " in sent for sent in script.received)


def test_the_environment_may_except_a_server_from_its_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "quantum.invalid,127.0.0.1")
    with Script(answer(TOKEN), answer(b'{"state": true, "status": "active"}')) as script:
        assert service_of(script).status().online


def test_a_proxy_that_is_not_there_is_an_outage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with Script() as script, pytest.raises(UnavailableError, match="cannot be reached"):
        service_of(script, "http://quantum.invalid").status()


def test_an_authority_of_ones_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    argv = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 1 -subj /CN=x"
    files = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*argv.split(), *files], check=True, capture_output=True, timeout=30)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)

    online = answer(b'{"state": true, "status": "active"}')
    for variable in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"):
        monkeypatch.delenv(variable, raising=False)
    # What requests reads, and what stands for the machine's own list, which hooks trust.
    for variable in ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"):
        monkeypatch.setenv(variable, str(certificate))
        with Script(answer(TOKEN), online, tls=tls) as script:
            assert service_of(script).status().online
        monkeypatch.delenv(variable)
    with Script(answer(TOKEN), tls=tls) as script, pytest.raises(RefusedError) as refused:
        service_of(script).status()
    sentence = str(refused.value)
    server = script.url.removeprefix("https://")
    assert f"{server} shows a certificate of an authority that this host does not trust" in sentence
    assert "REQUESTS_CA_BUNDLE" in sentence
    assert "key" not in sentence


def test_a_token_is_renewed_before_it_expires() -> None:
    online = answer(b'{"state": true, "status": "active"}')
    short = answer(b'{"access_token": "first", "expires_in": 1}')
    with Script(short, online, online, answer(TOKEN), online) as script:
        service = service_of(script)
        service.status()
        service.status()
        time.sleep(0.92)
        service.status()
    assert [b"Bearer first" in sent for sent in script.received] == [False, True, True, False, False]
    assert b"Bearer a.b.c" in script.received[-1]


def test_a_redirection_is_not_followed() -> None:
    with Script(answer(TOKEN)) as elsewhere:
        moved = answer(b"", f"Location: {elsewhere.url}/", status="307 Temporary Redirect")
        with Script(answer(TOKEN), moved) as script, pytest.raises(RefusedError, match="307"):
            service_of(script).status()
    assert elsewhere.received == []


def test_a_result_that_breaks_off_is_read_on() -> None:
    result = b"0123456789" * 100_000
    broken = [answer(result[:end], length=len(result)) for end in (0, 400_000, 700_000)]
    with Script(answer(TOKEN), *broken[1:], answer(result)) as script:
        assert b"".join(service_of(script).result("t")) == result
    assert len(script.received) == 4


def test_a_result_that_always_breaks_off_is_given_up() -> None:
    broken = answer(b"0123456789", length=20)
    with Script(answer(TOKEN), *[broken] * 9) as script, pytest.raises(UnavailableError, match="breaks off"):
        list(service_of(script).result("t"))
    assert len(script.received) == 4


def test_a_result_that_is_not_there_yet() -> None:
    nothing = answer(b"", status="204 No Content")
    with Script(answer(TOKEN), nothing, answer(b"{}")) as script:
        assert b"".join(service_of(script).result("t")) == b"{}"


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ("Completed", "completed"),
        ("CANCELLED", "cancelled"),
        ("Cancelled - Ran too long", "cancelled"),
        ("Failed", "failed"),
    ],
)
def test_states_of_a_task(status: str, expected: str) -> None:
    document = {
        "id": "t",
        "state": {"status": status, "reason": "why\x07", "reason_solution": "do"},
        "created": "x",
    }
    with Script(answer(TOKEN), answer(json.dumps(document).encode())) as script:
        task = service_of(script).task("t")
    assert (task.status, task.reason, task.created_at) == (expected, "why. do.", None)


def test_a_state_that_is_not_known_is_told() -> None:
    document = answer(b'{"id": "t", "status": "Dreaming"}')
    with Script(answer(TOKEN), document) as script, pytest.raises(ServiceError, match="Dreaming"):
        service_of(script).task("t")


# What a version of the service may leave out.

ALL_OF_A_SESSION = (
    '{"id": "s", "state": "closed", "elapsed_time": 2.5, "timestamps": ['
    '{"status": "open", "timestamp": "2026-11-24T12:00:00Z"},'
    '{"status": "active", "timestamp": "2026-11-24T12:00:01.5"},'
    '{"status": "closed", "timestamp": "2026-11-24T12:00:04Z"}]}'
)
ALL_OF_ITS_TASKS = (
    '{"jobs": [{"id": "t", "status": "Completed", "created": "2026-11-24T12:00:01Z",'
    ' "usage": {"seconds": 2}, "ended": "2026-11-24T12:00:03Z"}]}'
)


class Told(NamedTuple):
    """What the service says of a session, its tasks and one task's times, and what we read there."""

    session: str
    tasks: str
    metrics: bytes
    locked: float | None
    active: list[float]
    ran: tuple[str | None, float, float | None]


@pytest.mark.parametrize(
    "told",
    [
        Told(
            ALL_OF_A_SESSION,
            ALL_OF_ITS_TASKS,
            answer(b'{"timestamps": {"running": "2026-11-24T12:00:01Z", "finished": null}}'),
            locked=2.5,
            active=[2.5],
            ran=("completed", 2.0, 2.0),
        ),
        Told(
            '{"id": "s", "state": "closed", "elapsed_time": null, "timestamps": null}',
            '{"jobs": [{"id": "t", "status": "Dreaming", "usage": null}]}',
            answer(b'{"errors": [{"code": 1291, "message": "No metrics."}]}', status="404 Not Found"),
            locked=None,
            active=[],
            ran=(None, 0.0, None),
        ),
        Told(
            '{"id": "s", "state": "closed", "elapsed_time": -1, "timestamps": [{"status": "active"}, {}]}',
            '{"jobs": [{"id": "t", "usage": {}}]}',
            answer(b"{}"),
            locked=0.0,
            active=[],
            ran=(None, 0.0, None),
        ),
    ],
    ids=["all that there is", "nothing", "little"],
)
def test_usage_is_what_the_service_says_and_no_more(told: Told) -> None:
    answers = answer(told.session.encode()), answer(told.tasks.encode()), told.metrics
    with Script(answer(TOKEN), *answers) as script:
        usage = service_of(script).usage("s")
    assert usage.locked_seconds == told.locked
    assert [(end - begin).total_seconds() for begin, end in usage.active] == told.active
    [task] = usage.tasks
    took = (task.ended_at - task.started_at).total_seconds() if task.started_at and task.ended_at else None
    assert (task.status, task.seconds, took) == told.ran
