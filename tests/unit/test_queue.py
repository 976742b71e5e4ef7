# SPDX-License-Identifier: Apache-2.0
"""The engine of task_runner and the Python API: what becomes of items when one of them fails, or all end."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import pytest

from qpu_slurm.errors import PayloadError, UnavailableError
from qpu_slurm.providers.base import Features, Task, TaskStatus
from qpu_slurm.tasks.execution import Execution
from qpu_slurm.tasks.payload import Payload
from qpu_slurm.tasks.queue import Item, TaskQueue
from tests.unit.test_execute import job_qpu

if TYPE_CHECKING:
    from qpu_slurm.providers.base import Provider


class Service:
    """A service with tasks that were submitted before."""

    features = Features(sessions=True, keeps_tasks=False)
    waits = False

    def __init__(self) -> None:
        self.status = dict.fromkeys("abc", TaskStatus.RUNNING)
        self.cancelled: list[str] = []
        self.on_cancel: BaseException | None = None

    def task(self, task_id: str) -> Task:
        return Task(id=task_id, status=self.status[task_id])

    def cancel_task(self, task_id: str) -> None:
        self.cancelled.append(task_id)
        if self.on_cancel is not None:
            raise self.on_cancel


class Known(Item):
    """An item whose task was submitted before."""

    def __init__(self, service: Service, source: str, fault: BaseException | None = None) -> None:
        super().__init__(source)
        self.ended: list[BaseException | None] = []
        self._service = service
        self._fault = fault

    def begin(self, queue: TaskQueue[Known]) -> bool:
        if self._service.status[self.source] is TaskStatus.COMPLETED:
            return False
        self.execution = Execution(cast("Provider", self._service))
        queue.adopt(self, Payload("sampler", b"{}"), self.source)
        if self._fault is not None:
            raise self._fault
        return True

    def accepted(self, session_id: str) -> None:
        raise AssertionError(session_id)

    def take(self, task: Task) -> None:
        if task.status is not TaskStatus.COMPLETED:
            raise PayloadError(task.status)

    def end(self, error: BaseException | None = None) -> None:
        self.ended.append(error)


class Stop(BaseException):
    """What asks the program to end."""


@pytest.fixture
def service() -> Service:
    return Service()


@pytest.fixture
def queue() -> TaskQueue[Known]:
    return TaskQueue(job_qpu(), {})


def test_each_item_ends_once_with_its_own_task(service: Service, queue: TaskQueue[Known]) -> None:
    items = [Known(service, name) for name in "abc"]
    assert all(map(queue.begin, items))
    assert queue.next_due() is items[0]
    assert not queue.poll(items[0])
    assert queue.next_due() is items[1]

    service.status |= {"a": TaskStatus.COMPLETED, "b": TaskStatus.FAILED}

    assert queue.poll(items[0])
    assert queue.poll(items[1])
    assert items[0].ended == [None]
    assert isinstance(items[1].ended[0], PayloadError)
    assert (queue.items, items[2].ended, service.cancelled) == ([items[2]], [], [])


def test_an_item_that_is_done_waits_for_nothing(service: Service, queue: TaskQueue[Known]) -> None:
    service.status["a"] = TaskStatus.COMPLETED
    item = Known(service, "a")

    assert not queue.begin(item)
    assert (item.ended, queue.items, queue.next_due()) == ([None], [], None)


@pytest.mark.parametrize("fault", [PayloadError("no"), KeyError("a mistake")])
def test_what_goes_wrong_with_one_cancels_its_task_alone(
    service: Service, queue: TaskQueue[Known], fault: Exception
) -> None:
    first, second = Known(service, "a"), Known(service, "b", fault)

    assert queue.begin(first)
    assert not queue.begin(second)
    assert (second.ended, service.cancelled, queue.items) == ([fault], ["b"], [first])


def test_a_task_that_cannot_be_cancelled_is_noted_with_the_first_error(
    service: Service, queue: TaskQueue[Known]
) -> None:
    fault = PayloadError("no")
    service.on_cancel = UnavailableError("away")
    item = Known(service, "a", fault)

    queue.begin(item)

    assert item.ended == [fault]
    assert fault.__notes__ == ["It could not be cancelled: away."]


def test_what_ends_the_program_is_no_failure_of_an_item(service: Service, queue: TaskQueue[Known]) -> None:
    stop = Stop()
    item = Known(service, "a", stop)

    with pytest.raises(Stop):
        queue.begin(item)
    assert (item.ended, queue.items) == ([], [item])

    queue.abandon(stop)
    assert (item.ended, queue.items, service.cancelled) == ([stop], [], ["a"])


def test_a_queue_may_take_all_for_failures_of_its_items(service: Service) -> None:
    queue: TaskQueue[Known] = TaskQueue(job_qpu(), {}, failures=BaseException)
    stop = Stop()
    item = Known(service, "a", stop)

    assert not queue.begin(item)
    assert (item.ended, queue.items) == ([stop], [])


def test_who_asks_twice_does_not_wait_for_the_service(service: Service, queue: TaskQueue[Known]) -> None:
    items = [Known(service, name) for name in "abc"]
    for item in items:
        queue.begin(item)
    service.on_cancel = Stop()

    queue.abandon(Stop())

    assert service.cancelled == ["a"]
    assert all(len(item.ended) == 1 for item in items)


def test_cancelling_one_leaves_the_others(service: Service, queue: TaskQueue[Known]) -> None:
    first, second = Known(service, "a"), Known(service, "b")
    queue.begin(first)
    queue.begin(second)

    queue.cancel(first)
    queue.cancel(first)

    assert (first.ended, queue.items, service.cancelled) == ([None], [second], ["a"])
