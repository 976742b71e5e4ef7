# SPDX-License-Identifier: Apache-2.0
"""What a task's way to its result asks of the service: its state, its result, and when."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import pytest

from qpu_slurm.errors import RefusedError, UnavailableError
from qpu_slurm.providers.base import Features, Task, TaskStatus
from qpu_slurm.tasks.execution import STATE_EVERY, Execution, Observer, Pace

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qpu_slurm.providers.base import Provider


class Service:
    """A service that has one task, and notes what it is asked."""

    def __init__(self, *, early_results: bool = True, waits: bool = False) -> None:
        self.features = Features(sessions=True, keeps_tasks=False, early_results=early_results)
        self.waits = waits
        self.status = TaskStatus.RUNNING
        self.asked: list[str] = []
        self.refuses = False

    def task(self, task_id: str) -> Task:
        self.asked.append("state")
        return Task(id=task_id, status=self.status)

    def early_result(self, _: str, *, wait: int = 0) -> Iterator[bytes] | None:
        self.asked.append(f"result, wait={wait}" if wait else "result")
        if self.refuses:
            raise RefusedError("There is no such result.", status=404)
        return iter([b"the ", b"result"]) if self.status is TaskStatus.COMPLETED else None

    def result(self, _: str) -> Iterator[bytes]:
        self.asked.append("result at last")
        return iter([b"the result"])


class Quiet(Observer):
    wants_states = False


def known(seconds: float = 1000.0) -> Pace:
    """Tell that tasks take some time."""
    pace = Pace()
    pace.expectation.learn(0.99 * seconds, seconds)
    return pace


def execution(service: Service, pace: Pace | None = None, observer: Observer | None = None) -> Execution:
    made = Execution(cast("Provider", service), observer or Quiet(), pace=pace)
    made.adopt("task")
    return made


def test_a_first_task_is_asked_for_its_state() -> None:
    service = Service()
    task = execution(service)
    assert task.poll() is None
    service.status = TaskStatus.COMPLETED
    found = task.poll()
    assert found is not None
    assert found.status is TaskStatus.COMPLETED
    assert b"".join(task.result()) == b"the result"
    assert service.asked == ["state", "state", "result at last"]


def test_a_task_whose_end_is_likely_is_asked_for_its_result(monkeypatch: pytest.MonkeyPatch) -> None:
    service = Service()
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    task = execution(service, known(10.0))
    assert task.due.left == pytest.approx(1.0)  # seldom
    for seconds in (101.0, 109.0):
        now[0] = seconds
        assert task.poll() is None
    now[0] = 110.0
    service.status = TaskStatus.COMPLETED
    found = task.poll()
    assert found is not None
    assert found.status is TaskStatus.COMPLETED
    assert b"".join(task.result()) == b"the result"
    assert service.asked == ["state", "result", "result"]


def test_a_service_that_waits_is_asked_at_once_and_again_at_once() -> None:
    service = Service(waits=True)
    task = execution(service)
    assert task.due.left == 0
    assert task.poll() is None
    assert task.due.left == 0
    service.status = TaskStatus.COMPLETED
    assert task.poll() is not None
    assert service.asked == ["result, wait=1", "result, wait=1"]


def test_that_a_task_runs_is_asked_for_where_somebody_wants_to_know() -> None:
    service = Service(waits=True)
    task = execution(service, observer=Observer())
    task.poll()
    task.poll()
    assert service.asked == ["state", "result, wait=1"]


@pytest.mark.parametrize("status", [TaskStatus.FAILED, TaskStatus.CANCELLED])
@pytest.mark.parametrize("waits", [True, False])
def test_a_task_that_never_has_a_result_is_found(status: TaskStatus, waits: bool) -> None:  # noqa: FBT001 - a parameter
    service = Service(waits=waits)
    service.status = status
    task = execution(service, known(0.001))
    found = [task.poll() for _ in range(STATE_EVERY + 1)]
    assert found[-1] is not None
    assert found[-1].status is status


@pytest.mark.parametrize("case", [{"early_results": False}, {}])
def test_a_service_that_knows_no_results_that_are_not_there(case: dict[str, Any]) -> None:
    service = Service(**case)
    service.refuses = True
    task = execution(service, known(0.001))
    task.poll()
    service.status = TaskStatus.COMPLETED
    assert task.poll() is not None
    assert service.asked[-1] == "state"
    assert b"".join(task.result()) == b"the result"


def test_a_service_that_is_away_is_asked_again() -> None:
    service = Service(waits=True)

    def away(*_: object, **__: object) -> None:
        raise UnavailableError("It is away.")

    task = execution(service)
    answering = service.early_result
    service.early_result = away  # type: ignore[method-assign]
    assert task.poll() is None
    service.early_result = answering  # type: ignore[method-assign]
    service.status = TaskStatus.COMPLETED
    assert task.poll() is not None


def test_a_task_behind_another_one_is_asked_for_its_state() -> None:
    service = Service(waits=True)
    task = execution(service, known(0.001))
    assert task.poll(is_next=False) is None
    assert task.due.left > 0
    task.starts()
    task.poll()
    assert service.asked == ["state", "result, wait=1"]
