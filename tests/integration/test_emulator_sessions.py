# SPDX-License-Identifier: Apache-2.0
"""A session's life in the emulator: when it locks the QPU, when it frees it, what ends it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from qpu_slurm_devkit.emulator import Emulator, EventKind
from tests.integration.conftest import api_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.conftest import Api


@pytest.fixture(scope="module")
def slow_emulator() -> Iterator[Emulator]:
    """Start an emulator whose tasks run until its clock is advanced."""
    with Emulator(task_seconds=100, result_bytes=100, token_ttl=1_000_000) as emulator:
        yield emulator


@pytest.fixture
def slow(slow_emulator: Emulator) -> Emulator:
    slow_emulator.reset()
    return slow_emulator


@pytest.fixture
def qpu(slow: Emulator) -> Iterator[Api]:
    api = api_of(slow)
    with api.http:
        yield api


def kinds(emulator: Emulator, session: str) -> list[str]:
    return [event.kind for event in emulator.events() if event.session_id == session]


def run_to_end(emulator: Emulator, task: str) -> None:
    """Let the running task end; what follows is done by the time this returns."""
    emulator.advance(100)
    emulator.wait_for(lambda e: any(t.id == task and t.done_at for t in e.tasks()))


def test_a_session_locks_nothing_before_its_first_task_and_waits_for_a_next(slow: Emulator, qpu: Api) -> None:
    session = qpu.open(max_ttl=3000)
    document = qpu.get(f"/sessions/{session}")
    assert (document["state"], document["mode"], document["max_ttl"]) == ("open", "dedicated", 3000)
    assert document["activated_at"] is None
    first = qpu.submit([], session)
    assert qpu.state(session) == "active"
    run_to_end(slow, first)
    slow.advance(59)
    assert qpu.state(session) == "active"
    slow.advance(1)
    assert qpu.state(session) == "inactive"
    second = qpu.submit([], session)
    assert qpu.state(session) == "active"
    run_to_end(slow, second)
    assert qpu.send("PATCH", f"/sessions/{session}", json={"accepting_jobs": False}).status_code == 204
    document = qpu.get(f"/sessions/{session}")
    assert document["state"] == "closed"
    # Twice a task, and once the wait: that is what is charged for.
    assert document["elapsed_time"] == pytest.approx(260, abs=2)
    assert kinds(slow, session) == [
        EventKind.SESSION_OPENED,
        EventKind.TASK_QUEUED,
        EventKind.SESSION_ACTIVE,
        EventKind.TASK_RUNNING,
        EventKind.TASK_DONE,
        EventKind.SESSION_INACTIVE,
        EventKind.TASK_QUEUED,
        EventKind.SESSION_ACTIVE,
        EventKind.TASK_RUNNING,
        EventKind.TASK_DONE,
        EventKind.SESSION_CLOSED,
    ]


def test_a_task_of_fixed_time_runs_that_long(slow: Emulator, qpu: Api) -> None:
    task = qpu.submit([])
    slow.advance(99)
    assert qpu.status(task) == "Running"
    run_to_end(slow, task)
    (record,) = slow.tasks()
    assert record.done_at is not None
    assert record.running_at is not None
    assert record.done_at - record.running_at == pytest.approx(100, abs=1)


def test_while_a_session_is_active_all_others_wait(slow: Emulator, qpu: Api) -> None:
    holder, other = qpu.open(), qpu.open()
    first = qpu.submit([], holder)
    waiting = qpu.submit([], other)
    alone = qpu.submit([])
    elsewhere = qpu.submit([], backend="ibm_torino")
    next_of_holder = qpu.submit([], holder)
    assert [qpu.status(task) for task in (waiting, alone, elsewhere)] == ["Queued", "Queued", "Running"]
    assert qpu.get(f"/jobs/{waiting}/metrics")["position_in_queue"] == 1
    assert qpu.get("/backends/ibm_fez/status")["length_queue"] == 4
    run_to_end(slow, first)
    # The holder's task came last, and runs next.
    assert [qpu.status(task) for task in (waiting, alone, next_of_holder)] == ["Queued", "Queued", "Running"]
    run_to_end(slow, next_of_holder)
    assert qpu.status(waiting) == "Queued"
    slow.advance(60)
    assert qpu.state(holder) == "inactive"
    assert (qpu.status(waiting), qpu.state(other)) == ("Running", "active")


def test_a_session_closed_while_its_last_task_runs_frees_the_qpu_when_that_ends(
    slow: Emulator, qpu: Api
) -> None:
    session = qpu.open()
    last = qpu.submit([], session)
    waiting = qpu.submit([])
    qpu.send("PATCH", f"/sessions/{session}", json={"accepting_jobs": False})
    document = qpu.get(f"/sessions/{session}")
    assert (document["state"], document["accepting_jobs"]) == ("active", False)
    run_to_end(slow, last)
    assert qpu.state(session) == "closed"
    assert qpu.status(waiting) == "Running"
    closed, done = (
        next(event.time for event in slow.events() if event.kind is kind)
        for kind in (EventKind.SESSION_CLOSED, EventKind.TASK_DONE)
    )
    assert closed == pytest.approx(done, abs=0.01)


def test_a_cancelled_session_fails_what_waits_and_lets_run_what_runs(slow: Emulator, qpu: Api) -> None:
    session = qpu.open()
    running, waiting = qpu.submit([], session), qpu.submit([], session)
    outside = qpu.submit([])
    assert qpu.send("DELETE", f"/sessions/{session}/close").status_code == 204
    assert qpu.state(session) == "closed"
    assert [qpu.status(task) for task in (running, waiting, outside)] == ["Running", "Failed", "Queued"]
    state = qpu.get(f"/jobs/{waiting}")["state"]
    assert state == {"status": "Failed", "reason": "Session has been closed.", "reason_code": 1217}
    run_to_end(slow, running)
    assert [qpu.status(task) for task in (running, outside)] == ["Completed", "Running"]


@pytest.mark.parametrize("how", ["PATCH", "DELETE"])
def test_a_closed_session_takes_no_tasks(qpu: Api, how: str) -> None:
    session = qpu.open()
    path = f"/sessions/{session}" + ("/close" if how == "DELETE" else "")
    for _ in range(2):  # closed already is fine
        assert qpu.send(how, path, json={"accepting_jobs": False}).status_code == 204
    response = qpu.try_to_submit({}, session)
    assert response.status_code == 400
    assert response.json()["errors"][0]["code"] == 1217


def test_a_session_without_tasks_is_closed_by_the_service(slow: Emulator, qpu: Api) -> None:
    session = qpu.open()
    slow.advance(1799)
    assert qpu.state(session) == "open"
    slow.advance(1)
    assert qpu.state(session) == "closed"
    assert "no jobs" in qpu.get(f"/sessions/{session}")["state_reason"]


def test_the_idle_time_begins_anew_with_every_task(slow: Emulator, qpu: Api) -> None:
    session = qpu.open()
    slow.advance(1700)
    run_to_end(slow, qpu.submit([], session))
    slow.advance(1700)
    assert qpu.state(session) == "inactive"
    slow.advance(100)
    assert qpu.state(session) == "closed"


def test_a_session_ends_at_its_maximum_time_and_its_running_task_does_not(slow: Emulator, qpu: Api) -> None:
    session = qpu.open(max_ttl=50)
    running, waiting = qpu.submit([], session), qpu.submit([], session)
    slow.advance(51)
    assert qpu.state(session) == "closed"
    assert [qpu.status(task) for task in (running, waiting)] == ["Running", "Failed"]


def test_the_service_may_close_a_session_of_its_own_accord(slow: Emulator, qpu: Api) -> None:
    session = qpu.open()
    slow.close_session(session, "Emergency.")
    assert qpu.get(f"/sessions/{session}")["state_reason"] == "Emergency."
    assert slow.sessions()[0].reason == "Emergency."


def test_a_batch_locks_out_nobody(slow: Emulator, qpu: Api) -> None:
    batch = qpu.open(mode="batch")
    first = qpu.submit([], batch)
    outside = qpu.submit([])
    qpu.submit([], batch)
    assert qpu.state(batch) == "active"
    run_to_end(slow, first)
    assert qpu.status(outside) == "Running"


def test_a_qpu_in_maintenance_keeps_tasks_waiting(slow: Emulator, qpu: Api) -> None:
    slow.set_backend("ibm_fez", "paused", "Calibrating.")
    task = qpu.submit([])
    status = qpu.get("/backends/ibm_fez/status")
    assert (status["status"], status["message"], status["length_queue"]) == ("paused", "Calibrating.", 1)
    device = next(d for d in qpu.get("/backends")["devices"] if d["name"] == "ibm_fez")
    assert device["status"] == {"name": "paused", "reason": "Calibrating."}
    assert qpu.status(task) == "Queued"
    slow.set_backend("ibm_fez")
    assert qpu.status(task) == "Running"


def test_a_task_may_be_cancelled_waiting_and_running(slow: Emulator, qpu: Api) -> None:
    session = qpu.open()
    running, waiting = qpu.submit([], session), qpu.submit([], session)
    for task in (waiting, running):
        assert qpu.send("DELETE", f"/jobs/{task}").status_code == 400
        assert qpu.send("POST", f"/jobs/{task}/cancel").status_code == 204
        assert qpu.status(task) == "Cancelled"
        assert qpu.send("POST", f"/jobs/{task}/cancel").status_code == 409
        assert qpu.send("GET", f"/jobs/{task}/results").status_code == 204
    slow.advance(60)
    assert qpu.state(session) == "inactive"
    assert qpu.send("DELETE", f"/jobs/{running}").status_code == 204
    assert qpu.send("GET", f"/jobs/{running}").status_code == 404


def test_a_task_that_takes_longer_than_its_cost_is_cancelled(slow: Emulator, qpu: Api) -> None:
    task = qpu.submit([], cost=30)
    slow.advance(31)
    document = qpu.get(f"/jobs/{task}")
    assert document["status"] == "Cancelled - Ran too long"
    assert (document["state"]["status"], document["state"]["reason_code"]) == ("Cancelled", 1305)


def test_workloads_list_sessions_and_tasks_outside_of_them(slow: Emulator, qpu: Api) -> None:
    early = qpu.open()
    slow.advance(10)
    late = qpu.open(backend="ibm_torino")
    batch = qpu.open(mode="batch")
    task = qpu.submit([], tags=["slurm-7"])
    qpu.submit([], batch)
    created = qpu.get(f"/sessions/{late}")["started_at"]

    def listed(**query: str) -> list[str]:
        return [workload["id"] for workload in qpu.get("/workloads", **query)["workloads"]]

    assert listed() == [early, late, batch, task]
    assert listed(sort="-createdAt")[0] == task
    assert listed(mode="session") == [early, late]
    assert listed(mode="session", backend="ibm_torino") == [late]
    assert listed(mode="session", created_after=created) == [late]
    assert listed(mode="session", created_before=created) == [early, late]
    assert listed(status="in_progress") == [task]
    assert listed(tags="slurm-7") == [task]
    page = qpu.get("/workloads", limit="3")
    assert (page["total_count"], len(page["workloads"])) == (4, 3)
    assert listed(limit="3", next=page["next"]["cursor"]) == [task]
    qpu.send("DELETE", f"/sessions/{early}/close")
    workload = qpu.get("/workloads", search=early)["workloads"][0]
    assert (workload["status"], workload["accepting_jobs"], workload["mode"]) == (
        "completed",
        False,
        "session",
    )
    assert workload["instance"] == qpu.account.crn


def test_tasks_are_listed_by_session_tags_state_and_time(slow: Emulator, qpu: Api) -> None:
    session = qpu.open()
    first = qpu.submit([], session, tags=["slurm-7", "one"])
    second = qpu.submit([], session, tags=["slurm-7"])
    elsewhere = qpu.submit([], backend="ibm_torino", tags=["one"])
    run_to_end(slow, first)

    def listed(query: str = "") -> list[str]:
        return [task["id"] for task in qpu.get(f"/jobs?{query}")["jobs"]]

    assert listed("sort=ASC") == [first, second, elsewhere]
    assert listed(f"session_id={session}") == [second, first]
    assert listed("tags=slurm-7&tags=one") == [first]
    assert listed("tags=slurm-7&pending=true") == [second]
    assert listed("pending=false&backend=ibm_fez") == [first]
    assert listed("limit=1&offset=1") == [second]
    assert "params" not in qpu.get("/jobs")["jobs"][0]
    assert qpu.get(f"/jobs/{first}")["params"] == {"pubs": [], "version": 2}
    assert qpu.send("PUT", f"/jobs/{first}/tags", json={"tags": ["new"]}).status_code == 204
    assert listed("tags=new") == [first]


def test_usage_counts_active_sessions_and_tasks_outside_of_them(slow: Emulator, qpu: Api) -> None:
    session = qpu.open()
    run_to_end(slow, qpu.submit([], session))
    qpu.send("DELETE", f"/sessions/{session}/close")
    run_to_end(slow, qpu.submit([]))
    assert qpu.get("/instances/usage")["usage_consumed_seconds"] == pytest.approx(200, abs=2)
