# SPDX-License-Identifier: Apache-2.0
"""The provider of the IBM Quantum Compute Service, as long as nothing goes wrong."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from qpu_slurm.errors import (
    AnswerLostError,
    ConfigError,
    MustWaitError,
    NotFoundError,
    RefusedError,
    ThrottledError,
    UnavailableError,
)
from qpu_slurm.providers import Connections, connect
from qpu_slurm.providers.base import Access, SessionState, Task, TaskStatus
from qpu_slurm.system.deadline import Deadline
from qpu_slurm.system.secret import Secret
from qpu_slurm_devkit.emulator import Account, Drop, Emulator, Fault

if TYPE_CHECKING:
    from collections.abc import Callable

    from qpu_slurm.providers.base import Provider

UNKNOWN = "no-such-thing"


def access_to(emulator: Emulator, account: Account | None = None, **changes: Any) -> Access:  # noqa: ANN401 - of any field
    account = account or emulator.accounts[0]
    fields = {
        "type": "ibm-quantum-compute-service",
        "backend": "ibm_fez",
        "endpoint": f"{emulator.url}/api/v1",
        "iam_endpoint": emulator.url,
        "instance": account.crn,
        "api_key": Secret(account.api_key),
        **changes,
    }
    return Access(**fields)


@pytest.fixture
def provider(emulator: Emulator) -> Provider:
    return connect(access_to(emulator))


def tokens_asked_for(emulator: Emulator) -> int:
    return sum(1 for request in emulator.requests() if request.path == "/identity/token")


def test_a_long_life_has_one_token_an_account(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    connections = Connections()
    for backend in ("ibm_fez", "ibm_torino", "ibm_fez"):
        assert connections.connect(access_to(emulator, backend=backend)).status().online
    assert tokens_asked_for(emulator) == 1

    # A deadline that is over is one's own alone, and another key another account.
    late = connections.connect(access_to(emulator), deadline=Deadline.after(-1))
    with pytest.raises(UnavailableError):
        late.status()
    with pytest.raises(RefusedError):
        connections.connect(access_to(emulator, api_key=Secret("wrong"))).status()
    assert connections.connect(access_to(emulator)).status().online
    asked = tokens_asked_for(emulator)
    assert asked == 2

    # One that nobody has asked for in a while is forgotten.
    now = time.monotonic()
    monkeypatch.setattr("qpu_slurm.providers.time.monotonic", lambda: now + 901)
    connections.connect(access_to(emulator, api_key=Secret("another")))
    assert connections.connect(access_to(emulator)).status().online
    assert tokens_asked_for(emulator) == asked + 1


def parameters(bell: str, shots: int = 16) -> bytes:
    return json.dumps({"pubs": [[bell, None, shots]], "version": 2, "support_qiskit": False}).encode()


def wait(provider: Provider, task_id: str, until: Callable[[Task], bool]) -> Task:
    deadline = time.monotonic() + 60
    while not until(task := provider.task(task_id)):
        assert time.monotonic() < deadline, task
        time.sleep(0.02)
    return task


def test_a_task_from_session_to_result(emulator: Emulator, provider: Provider, bell: str) -> None:
    assert provider.status().online
    session = provider.open_session(600)
    assert session.state is SessionState.OPEN
    assert session.accepting_tasks
    assert session.backend == "ibm_fez"
    tags = ("slurm-job:7", "task:1")
    task_id = provider.submit("sampler", parameters(bell), session_id=session.id, tags=tags, cost=30)
    task = wait(provider, task_id, lambda task: task.status.final)
    assert (task.id, task.status, task.session_id) == (task_id, TaskStatus.COMPLETED, session.id)
    assert set(task.tags) == set(tags)
    assert task.created_at is not None
    result = json.loads(b"".join(provider.result(task_id)))
    assert set(result["results"][0]["data"]["meas"]["samples"]) <= {"0x0", "0x3"}
    times = provider.times(task_id)
    assert None not in {times.queued, times.running, times.quantum}
    assert isinstance(provider.logs(task_id), str)
    provider.close_session(session.id)
    emulator.wait_for(lambda e: e.sessions()[0].state == "closed")
    assert provider.session(session.id).state is SessionState.CLOSED
    assert not provider.session(session.id).accepting_tasks


def test_the_requests_are_those_that_the_work_needs(emulator: Emulator, provider: Provider) -> None:
    provider.status()
    session = provider.open_session(600)
    provider.cancel_session(session.id)
    assert [(request.method, request.path) for request in emulator.requests()] == [
        ("POST", "/identity/token"),
        ("GET", "/backends/ibm_fez/status"),
        ("POST", "/sessions"),
        ("DELETE", f"/sessions/{session.id}/close"),
        ("GET", "/jobs"),  # what still runs in it
    ]


def test_a_session_lives_no_longer_than_asked(emulator: Emulator, provider: Provider) -> None:
    provider.open_session(600)
    assert emulator.sessions()[0].max_ttl == 600


@pytest.mark.parametrize("end", ["close_session", "cancel_session"])
def test_ending_a_session_twice_is_fine(provider: Provider, end: str) -> None:
    session = provider.open_session(600)
    getattr(provider, end)(session.id)
    getattr(provider, end)(session.id)
    assert provider.session(session.id).state is SessionState.CLOSED


@pytest.mark.parametrize(
    "ask",
    [
        lambda provider: provider.session(UNKNOWN),
        lambda provider: provider.cancel_session(UNKNOWN),
        lambda provider: provider.task(UNKNOWN),
        lambda provider: provider.cancel_task(UNKNOWN),
        lambda provider: provider.logs(UNKNOWN),
        lambda provider: list(provider.result(UNKNOWN)),
        lambda provider: provider.session("../backends"),
        lambda provider: provider.session(".."),
        lambda provider: provider.session("a/b?c#d\n"),
    ],
)
def test_what_is_not_there_is_not_found(provider: Provider, ask: Callable[[Provider], object]) -> None:
    with pytest.raises(NotFoundError):
        ask(provider)


def test_cancelling_a_task(emulator: Emulator, provider: Provider, bell: str) -> None:
    session = provider.open_session(600)
    tasks = [
        provider.submit("sampler", parameters(bell), session_id=session.id, tags=(f"task:{number}",))
        for number in range(2)
    ]
    provider.cancel_task(tasks[1])
    assert wait(provider, tasks[1], lambda task: task.status.final).status is TaskStatus.CANCELLED
    provider.cancel_task(tasks[1])
    assert wait(provider, tasks[0], lambda task: task.status.final).status is TaskStatus.COMPLETED
    provider.cancel_task(tasks[0])
    provider.cancel_session(session.id)
    assert len(emulator.tasks()) == len(tasks)


def test_cancelling_a_session_ends_the_task_that_runs(bell: str) -> None:
    with Emulator(task_seconds=60) as emulator:
        provider = connect(access_to(emulator))
        session = provider.open_session(600)
        running, waiting = (
            provider.submit("sampler", parameters(bell), session_id=session.id, tags=(f"task:{number}",))
            for number in range(2)
        )
        wait(provider, running, lambda task: task.status is TaskStatus.RUNNING)
        provider.cancel_session(session.id)
        assert provider.task(running).status is TaskStatus.CANCELLED
        assert provider.task(waiting).status.final
        assert provider.session(session.id).state is SessionState.CLOSED


def test_a_refused_task_tells_why(provider: Provider, bell: str) -> None:
    session = provider.open_session(600)
    provider.cancel_session(session.id)
    with pytest.raises(RefusedError, match="closed") as caught:
        provider.submit("sampler", parameters(bell), session_id=session.id, tags=("task:1",))
    assert (caught.value.status, caught.value.code) == (400, 1217)
    assert caught.value.advice


def test_the_open_plan_opens_no_dedicated_session(emulator: Emulator) -> None:
    with pytest.raises(RefusedError, match="open plan") as caught:
        connect(access_to(emulator, emulator.accounts[1])).open_session(600)
    assert caught.value.code == 1352
    # The mode is the admin's to choose, and nothing that a job can change.
    assert "mode" not in str(caught.value)
    assert "ask the cluster's admin" in str(caught.value)
    assert 'mode = "batch"' in caught.value.admin_advice
    assert emulator.sessions() == []


def test_the_open_plan_opens_a_batch(emulator: Emulator) -> None:
    provider = connect(access_to(emulator, emulator.accounts[1], mode="batch"))
    session = provider.open_session(600)
    assert provider.session(session.id).accepting_tasks
    assert [found.id for found in provider.unclaimed_sessions(datetime.now(UTC) - timedelta(minutes=1))] == [
        session.id
    ]


def test_a_wrong_key_is_refused_without_being_shown(emulator: Emulator) -> None:
    access = access_to(emulator, api_key=Secret("not-the-key-of-anybody"))
    with pytest.raises(RefusedError, match="does not accept the API key") as caught:
        connect(access).status()
    assert "not-the-key" not in str(caught.value)


def test_a_foreign_instance_is_refused(emulator: Emulator) -> None:
    access = access_to(emulator, instance=Account.premium("somebody").crn)
    with pytest.raises(RefusedError) as caught:
        connect(access).open_session(600)
    assert caught.value.status == 403


@pytest.mark.parametrize("state", ["paused", "offline"])
def test_a_qpu_in_maintenance_is_not_online(emulator: Emulator, provider: Provider, state: str) -> None:
    emulator.set_backend("ibm_fez", state, "Back on Monday.")
    status = provider.status()
    assert not status.online
    assert status.reason == "Back on Monday."
    found = provider.statuses()
    assert (found["ibm_fez"].online, found["ibm_fez"].reason) == (False, "Back on Monday.")
    assert {name for name, other in found.items() if other.online} == {"ibm_torino"}


def test_a_qpus_calibration_is_the_services(emulator: Emulator, provider: Provider) -> None:
    snapshot = provider.calibrated_at()
    assert snapshot is not None
    later = snapshot + timedelta(days=1)

    emulator.calibrate("ibm_fez", later)
    assert provider.calibrated_at() == later

    emulator.reset()
    assert provider.calibrated_at() == snapshot


def test_unclaimed_sessions(emulator: Emulator, provider: Provider, bell: str) -> None:
    other = connect(access_to(emulator, backend="ibm_torino"))
    before = datetime.now(UTC)
    known, closed, working, lost = (provider.open_session(600).id for _ in range(4))
    other.open_session(600)
    provider.cancel_session(closed)
    provider.submit("sampler", parameters(bell), session_id=working, tags=("task:1",))
    found = provider.unclaimed_sessions(before, known={known})
    assert [session.id for session in found] == [lost]
    assert found[0].created_at is not None
    assert provider.unclaimed_sessions(datetime.now(UTC) + timedelta(minutes=1)) == []


def test_unclaimed_sessions_are_looked_for_on_every_page(emulator: Emulator, provider: Provider) -> None:
    before = datetime.now(UTC)
    sessions = [provider.open_session(600).id for _ in range(60)]
    assert [session.id for session in provider.unclaimed_sessions(before, known=sessions[1:])] == sessions[:1]
    assert sum(request.path == "/workloads" for request in emulator.requests()) == 2


def test_pending_tasks_are_found_by_a_tag(emulator: Emulator, provider: Provider, bell: str) -> None:
    session_id = provider.open_session(600).id
    emulator.set_backend("ibm_fez", "paused")
    first, _, third = (
        provider.submit("sampler", parameters(bell), session_id=session_id, tags=(tag, own))
        for tag, own in (("a", "1"), ("b", "2"), ("a", "3"))
    )
    assert provider.pending_tasks("a") == [third, first]
    provider.cancel_task(third)
    assert provider.pending_tasks("a") == [first]
    assert provider.pending_tasks("c") == []


def test_sessions_are_found_by_their_tasks(emulator: Emulator, provider: Provider, bell: str) -> None:
    other = connect(access_to(emulator, backend="ibm_torino"))
    before = datetime.now(UTC)
    first, second, third = (provider.open_session(600).id for _ in range(3))
    elsewhere = other.open_session(600).id
    other.submit("sampler", parameters(bell), session_id=elsewhere, tags=("slurm-job:7", "one"))
    emulator.set_backend("ibm_fez", "paused")
    for session_id, tag in ((first, "7"), (second, "7"), (first, "7"), (third, "77"), (second, "7")):
        tags = (f"slurm-job:{tag}", "one")
        provider.submit("sampler", parameters(bell), session_id=session_id, tags=tags)
    assert list(provider.sessions_of_tasks("slurm-job:7")) == [second, first]
    assert list(provider.sessions_of_tasks("slurm-job:7", since=before)) == [second, first]
    assert list(provider.sessions_of_tasks("slurm-job:8")) == []
    # Job numbers come again.
    assert not list(provider.sessions_of_tasks("slurm-job:7", since=before + timedelta(hours=1)))


def test_sessions_are_found_by_their_tasks_on_every_page(provider: Provider) -> None:
    first, second = (provider.open_session(600).id for _ in range(2))
    for session_id in (first, *[second] * 60):
        provider.submit("sampler", b'{"pubs": [["?"]]}', session_id=session_id, tags=("mine",))
    assert list(provider.sessions_of_tasks("mine")) == [second, first]


def test_a_session_tells_when_it_ends(provider: Provider) -> None:
    session = provider.session(provider.open_session(600).id)
    assert session.ends_at is not None
    assert session.created_at is not None
    assert session.ends_at - session.created_at == timedelta(seconds=600)


def test_a_token_that_is_refused_is_renewed(emulator: Emulator, provider: Provider) -> None:
    provider.status()
    emulator.advance(7200)  # its clock only: to us the token is valid, to the service it is not
    provider.status()
    asked = [request.path for request in emulator.requests()]
    assert asked.count("/identity/token") == 2


def test_there_is_no_provider_for_other_resources(emulator: Emulator) -> None:
    with pytest.raises(ConfigError, match="pasqal-cloud"):
        connect(access_to(emulator, type="pasqal-cloud"))


LARGE = 100 << 20

STREAM = """
import resource, sys, time
from qpu_slurm.providers import connect
from qpu_slurm.providers.base import Access
from qpu_slurm.system.secret import Secret
access = Access(type="ibm-quantum-compute-service", backend="ibm_fez", endpoint=sys.argv[1] + "/api/v1",
                iam_endpoint=sys.argv[1], instance=sys.argv[2], api_key=Secret(sys.argv[3]))
provider = connect(access)
session = provider.open_session(600)
task = provider.submit("sampler", b'{"pubs": []}', session_id=session.id, tags=("task:1",))
while not provider.task(task).status.final:
    time.sleep(0.02)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
size = sum(map(len, provider.result(task)))
print(size, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10)
"""


def test_a_large_result_costs_no_memory() -> None:
    with Emulator(result_bytes=LARGE) as emulator:
        account = emulator.accounts[0]
        ran = subprocess.run(
            [sys.executable, "-c", STREAM, emulator.url, account.crn, account.api_key],
            capture_output=True,
            text=True,
            check=True,
            timeout=240,
        )
    size, memory = map(int, ran.stdout.split())
    assert size > 0.99 * LARGE
    assert memory < 8 << 20


# For callers who open several sessions at once.


def test_a_service_that_is_asked_too_much_says_for_how_long(emulator: Emulator, provider: Provider) -> None:
    emulator.inject(Fault(method="POST", path="/sessions", status=429, retry_after="7"))
    with pytest.raises(ThrottledError) as caught:
        provider.open_session(600, look_up=False)
    assert (caught.value.status, caught.value.retry_after) == (429, 7)
    assert emulator.sessions() == []


def test_a_lost_answer_is_left_to_the_caller(emulator: Emulator, provider: Provider) -> None:
    emulator.inject(Fault(method="POST", path="/sessions", drop=Drop.AFTER))
    before = datetime.now(UTC)
    with pytest.raises(AnswerLostError):
        provider.open_session(600, look_up=False)
    [lost] = provider.unclaimed_sessions(before)
    assert (lost.id, lost.max_ttl) == (emulator.sessions()[0].id, 600)
    assert lost.created_at is not None
    assert abs((lost.created_at - before).total_seconds()) < 60


def test_a_qpu_that_the_service_calls_not_available_is_waited_for(
    emulator: Emulator, provider: Provider
) -> None:
    body = '{"errors": [{"code": 1004, "message": "The Backend is not available."}]}'
    emulator.inject(Fault(method="POST", path="/sessions", status=400, body=body))
    with pytest.raises(MustWaitError, match=r"is not available now: The Backend is not available\."):
        provider.open_session(600)
