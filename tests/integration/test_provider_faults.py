# SPDX-License-Identifier: Apache-2.0
"""The provider, when something goes wrong: every fault, at every request."""

from __future__ import annotations

import json
import logging
import socket
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import pytest

from qpu_slurm.errors import AnswerLostError, NotFoundError, RefusedError, ServiceError, UnavailableError
from qpu_slurm.providers.base import Access
from qpu_slurm.providers.ibm import Patience, QuantumComputeService
from qpu_slurm.system.deadline import NEVER, Deadline
from qpu_slurm.system.secret import Secret
from qpu_slurm_devkit.emulator import Drop, Emulator, Fault

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PATIENCE = Patience(connect=0.5, read=0.2, call=4.0, submit=0.2, settle=0.4)
IMPATIENCE = msgspec.structs.replace(PATIENCE, call=1.5)
FOREVER = None

PARAMETERS = b'{"pubs": [], "version": 2}'
TAGS = ("slurm-job:7", "task:1")


class Things(NamedTuple):
    """What requests are about: a session with a task that is over, and when all of that began."""

    provider: QuantumComputeService
    began: datetime
    session: str
    task: str


class Request(NamedTuple):
    """A request of the provider, and what it is done by."""

    method: str
    path: str
    send: Callable[[Things], Any]

    def fault(self, **fields: Any) -> Fault:  # noqa: ANN401 - of any field
        return Fault(method=self.method, path=self.path, **fields)


REQUESTS = {
    "token": Request("POST", "/identity/token", lambda it: it.provider.status()),
    "status": Request("GET", "/backends/ibm_fez/status", lambda it: it.provider.status()),
    "open": Request("POST", "/sessions", lambda it: it.provider.open_session(600, known={it.session})),
    "session": Request("GET", "/sessions/*", lambda it: it.provider.session(it.session)),
    "close": Request("PATCH", "/sessions/*", lambda it: it.provider.close_session(it.session)),
    "cancel": Request("DELETE", "/sessions/*/close", lambda it: it.provider.cancel_session(it.session)),
    "unclaimed": Request("GET", "/workloads", lambda it: it.provider.unclaimed_sessions(it.began)),
    "submit": Request(
        "POST",
        "/jobs",
        lambda it: it.provider.submit("sampler", PARAMETERS, session_id=it.session, tags=TAGS),
    ),
    "task": Request("GET", "/jobs/*", lambda it: it.provider.task(it.task)),
    "result": Request("GET", "/jobs/*/results", lambda it: b"".join(it.provider.result(it.task))),
    "logs": Request("GET", "/jobs/*/logs", lambda it: it.provider.logs(it.task)),
    "metrics": Request("GET", "/jobs/*/metrics", lambda it: it.provider.times(it.task)),
    "stop": Request("POST", "/jobs/*/cancel", lambda it: it.provider.cancel_task(it.task)),
}
ONCE = {"open": REQUESTS["open"], "submit": REQUESTS["submit"]}
AUTHORIZED = {name: request for name, request in REQUESTS.items() if name != "token"}

PASSING: dict[str, dict[str, Any]] = {
    "429": {"status": 429},
    "429 with Retry-After": {"status": 429, "retry_after": "0"},
    "500": {"status": 500},
    "502 without JSON": {"status": 502, "body": "<html>Bad gateway</html>"},
    "503 with Retry-After": {"status": 503, "retry_after": "Thu, 01 Jan 1970 00:00:00 GMT"},
    "slow": {"delay": 0.3},
    "dropped before": {"drop": Drop.BEFORE},
    "dropped after": {"drop": Drop.AFTER},
}

REFUSALS: dict[str, tuple[dict[str, Any], type[ServiceError]]] = {
    "401": ({"status": 401}, RefusedError),
    "403": ({"status": 403}, RefusedError),
    "404": ({"status": 404}, NotFoundError),
    "409": ({"status": 409}, RefusedError),
    "redirected": ({"status": 302}, RefusedError),
    "503 for an hour": ({"status": 503, "retry_after": "3600"}, UnavailableError),
}

OUTAGES: dict[str, dict[str, Any]] = {
    "429": {"status": 429},
    "500": {"status": 500},
    "dropped": {"drop": Drop.BEFORE},
}


def service_of(
    emulator: Emulator,
    patience: Patience = PATIENCE,
    *,
    deadline: Deadline = NEVER,
    endpoint: str = "",
    iam_endpoint: str = "",
) -> QuantumComputeService:
    account = emulator.accounts[0]
    access = Access(
        type="ibm-quantum-compute-service",
        backend="ibm_fez",
        endpoint=endpoint or f"{emulator.url}/api/v1",
        iam_endpoint=iam_endpoint or emulator.url,
        instance=account.crn,
        api_key=Secret(account.api_key),
    )
    return QuantumComputeService(access, patience=patience, deadline=deadline)


@pytest.fixture(scope="module")
def quick_emulator() -> Iterator[Emulator]:
    with Emulator(result_bytes=1000) as emulator:
        yield emulator


@pytest.fixture
def emulator(quick_emulator: Emulator) -> Emulator:
    """Return an emulator that simulates nothing."""
    quick_emulator.reset()
    return quick_emulator


@pytest.fixture
def things(emulator: Emulator, request: pytest.FixtureRequest) -> Things:
    began = datetime.now(UTC)
    provider = service_of(emulator)
    session = provider.open_session(600).id
    task = provider.submit("sampler", PARAMETERS, session_id=session, tags=("task:0",))
    emulator.wait_for(lambda e: e.tasks()[0].status == "Completed")
    if "name" in request.fixturenames and request.getfixturevalue("name") == "token":
        provider = service_of(emulator)  # which has to ask for one
    return Things(provider, began, session, task)


def asked(emulator: Emulator, request: Request) -> int:
    return sum(
        Fault(method=request.method, path=request.path).fits(made.method, made.path)
        for made in emulator.requests()
    )


@pytest.mark.parametrize("name", REQUESTS)
@pytest.mark.parametrize("fault", PASSING)
def test_what_passes_is_not_noticed(emulator: Emulator, things: Things, fault: str, name: str) -> None:
    sessions, tasks = len(emulator.sessions()), len(emulator.tasks())
    emulator.inject(REQUESTS[name].fault(**PASSING[fault]))
    REQUESTS[name].send(things)
    # Exactly one, wherever the answer got lost.
    assert len(emulator.sessions()) == sessions + (name == "open")
    assert len(emulator.tasks()) == tasks + (name == "submit")


@pytest.mark.parametrize(("status", "name"), [(429, "open"), (503, "open"), (503, "status")])
def test_the_service_says_when(emulator: Emulator, things: Things, status: int, name: str) -> None:
    emulator.inject(REQUESTS[name].fault(status=status, retry_after="1"))
    begin = time.monotonic()
    REQUESTS[name].send(things)
    assert time.monotonic() - begin >= 1


@pytest.mark.parametrize("name", AUTHORIZED)
def test_a_401_is_answered_with_a_new_token(emulator: Emulator, things: Things, name: str) -> None:
    emulator.inject(REQUESTS[name].fault(status=401))
    before = asked(emulator, REQUESTS["token"])
    REQUESTS[name].send(things)
    assert asked(emulator, REQUESTS["token"]) == before + 1


@pytest.mark.parametrize("name", REQUESTS)
@pytest.mark.parametrize("fault", REFUSALS)
def test_a_refusal_is_told_at_once(emulator: Emulator, things: Things, fault: str, name: str) -> None:
    fields, kind = REFUSALS[fault]
    if name == "token" and kind is NotFoundError:
        kind = RefusedError  # a thing of ours that is gone is one matter, an IAM that is elsewhere another
    if name in {"close", "cancel"} and kind is NotFoundError:
        kind = UnavailableError  # the session is there, as was looked up: it has to be ended yet
    emulator.inject(REQUESTS[name].fault(times=FOREVER, **fields))
    sessions, tasks, before = len(emulator.sessions()), len(emulator.tasks()), asked(emulator, REQUESTS[name])
    if name == "stop" and fault in {"409", "redirected"}:
        REQUESTS[name].send(things)  # the task is over already, which is fine
    else:
        with pytest.raises(kind) as caught:
            REQUESTS[name].send(things)
        assert type(caught.value) is kind
        assert caught.value.status == fields["status"]
    assert asked(emulator, REQUESTS[name]) - before == (2 if fault == "401" and name != "token" else 1)
    assert (len(emulator.sessions()), len(emulator.tasks())) == (sessions, tasks)


@pytest.mark.parametrize("name", ["token", "status", "open", "submit", "result", "cancel"])
@pytest.mark.parametrize("fault", OUTAGES)
def test_an_outage_is_told_in_time(emulator: Emulator, things: Things, fault: str, name: str) -> None:
    provider = service_of(emulator, IMPATIENCE)
    emulator.inject(REQUESTS[name].fault(times=FOREVER, **OUTAGES[fault]))
    sessions, tasks, before = len(emulator.sessions()), len(emulator.tasks()), asked(emulator, REQUESTS[name])
    begin = time.monotonic()
    with pytest.raises(UnavailableError) as caught:
        REQUESTS[name].send(things._replace(provider=provider))
    assert time.monotonic() - begin < IMPATIENCE.call + 20
    assert type(caught.value) is UnavailableError
    assert caught.value.status == OUTAGES[fault].get("status")
    assert asked(emulator, REQUESTS[name]) - before > (0 if name in ONCE else 1)
    assert (len(emulator.sessions()), len(emulator.tasks())) == (sessions, tasks)


NONSENSE = {
    "empty": "",
    "cut": '{"id": "abc',
    "list": "[]",
    "html": "<html>",
    "bad id": '{"id": "a b"}',
    "no id": '{"id": 7}',
    "bad item": '{"workloads": [7]}',
    "deep": "[" * 9000,
    "huge": "x" * (17 << 20),
}


@pytest.mark.parametrize("name", ["open", "submit", "session", "task", "token"])
@pytest.mark.parametrize("answer", NONSENSE)
def test_an_answer_without_sense_is_asked_for_again(
    emulator: Emulator, things: Things, answer: str, name: str
) -> None:
    sessions, tasks = len(emulator.sessions()), len(emulator.tasks())
    emulator.inject(REQUESTS[name].fault(status=200, body=NONSENSE[answer]))
    REQUESTS[name].send(things)
    assert len(emulator.sessions()) == sessions + (name == "open")
    assert len(emulator.tasks()) == tasks + (name == "submit")


@pytest.mark.parametrize("name", ["status", "unclaimed", "metrics"])
def test_an_answer_without_sense_that_lasts_is_told(emulator: Emulator, things: Things, name: str) -> None:
    emulator.inject(REQUESTS[name].fault(times=FOREVER, status=200, body="<html>"))
    with pytest.raises(UnavailableError, match="makes no sense"):
        REQUESTS[name].send(things._replace(provider=service_of(emulator, IMPATIENCE)))


@pytest.mark.parametrize("name", ONCE)
def test_an_answer_that_is_always_lost_makes_one(emulator: Emulator, things: Things, name: str) -> None:
    sessions, tasks = len(emulator.sessions()), len(emulator.tasks())
    emulator.inject(ONCE[name].fault(times=FOREVER, drop=Drop.AFTER))
    made = ONCE[name].send(things)
    assert len(emulator.sessions()) + len(emulator.tasks()) == sessions + tasks + 1
    newest = emulator.tasks()[-1].id if name == "submit" else emulator.sessions()[-1].id
    assert (made if isinstance(made, str) else made.id) == newest


@pytest.mark.parametrize(("name", "listing"), [("open", "/workloads"), ("submit", "/jobs")])
@pytest.mark.parametrize("drop", Drop)
def test_an_answer_that_cannot_be_looked_up_is_lost(
    emulator: Emulator, things: Things, drop: Drop, name: str, listing: str
) -> None:
    emulator.inject(ONCE[name].fault(times=FOREVER, drop=drop))
    emulator.inject(Fault(method="GET", path=listing, times=FOREVER, status=500))
    before = asked(emulator, ONCE[name])
    with pytest.raises(AnswerLostError):
        ONCE[name].send(things._replace(provider=service_of(emulator, IMPATIENCE)))
    assert asked(emulator, ONCE[name]) == before + 1


def test_a_session_of_somebody_else_is_not_taken_for_the_lost_one(emulator: Emulator, things: Things) -> None:
    provider = service_of(emulator)
    known = provider.open_session(600).id
    emulator.inject(REQUESTS["open"].fault(drop=Drop.BEFORE))
    session = provider.open_session(600, known={known, things.session})
    assert session.id not in {known, things.session}
    assert len(emulator.sessions()) == 3


def test_the_deadline_holds(emulator: Emulator) -> None:
    begin = time.monotonic()
    provider = service_of(emulator, Patience(), deadline=Deadline.after(0.5, since=begin))
    emulator.inject(Fault(path="/backends/*", times=FOREVER, delay=60))
    with pytest.raises(UnavailableError):
        provider.status()
    with pytest.raises(UnavailableError, match="no time left"):
        provider.status()
    assert time.monotonic() - begin < 20


@pytest.mark.parametrize("iam", [False, True])
def test_nobody_listens(emulator: Emulator, *, iam: bool) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # not listening
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/api/v1"
        provider = service_of(
            emulator, IMPATIENCE, endpoint="" if iam else url, iam_endpoint=url if iam else ""
        )
        begin = time.monotonic()
        with pytest.raises(UnavailableError, match="Connection refused"):
            provider.open_session(600)
    assert time.monotonic() - begin > IMPATIENCE.call / 3


@pytest.mark.parametrize(
    "endpoint", ["http://[::1/api/v1", "http://.../", "nothing://x/", "http://*\u2603 /"]
)
def test_an_endpoint_that_cannot_be(emulator: Emulator, endpoint: str) -> None:
    with pytest.raises(RefusedError, match="cannot be sent"):
        service_of(emulator, endpoint=endpoint).status()


def test_words_of_the_service_are_made_harmless(emulator: Emulator, things: Things) -> None:
    words = {"errors": [{"code": "1352", "message": "no\n\x1b[2J\u202eway " * 9999, "solution": "a\tb\x00c"}]}
    emulator.inject(REQUESTS["task"].fault(status=400, body=json.dumps(words)))
    with pytest.raises(RefusedError) as caught:
        REQUESTS["task"].send(things)
    assert caught.value.code == 1352
    assert caught.value.advice == "a b c"
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    "page", ["<html>", "{}", '{"errors": []}', '{"errors": [{}]}', '{"errors": "x"}', ""]
)
def test_a_404_that_is_not_the_services_is_no_answer_to_what_was_asked(
    emulator: Emulator, things: Things, page: str
) -> None:
    emulator.inject(REQUESTS["cancel"].fault(status=404, body=page))
    with pytest.raises(RefusedError, match="answered with 404") as caught:
        REQUESTS["cancel"].send(things)
    assert not isinstance(caught.value, NotFoundError)


def test_no_credential_shows(emulator: Emulator, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    emulator.inject(REQUESTS["status"].fault(status=500))
    emulator.inject(REQUESTS["token"].fault(status=500))
    provider = service_of(emulator)
    provider.status()
    key = emulator.accounts[0].api_key
    assert caplog.records
    assert key not in caplog.text
    assert "eyJ" not in caplog.text
    assert key not in repr(vars(provider))
