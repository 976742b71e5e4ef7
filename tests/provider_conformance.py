# SPDX-License-Identifier: Apache-2.0
"""What every provider has to do, whatever service it speaks to: the contract of `providers.base.Provider`.

A provider's tests derive from these classes, and give them a fixture `service`; docs/adding-a-provider.md
shows how. Nothing here knows a service's words: inputs come from the fixture, and results are not read.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Protocol

import pytest

from qpu_slurm.errors import AnswerLostError, NotFoundError, RefusedError, UnavailableError
from qpu_slurm.providers.base import Provider, SessionState, TaskStatus
from qpu_slurm.system.deadline import NEVER, Deadline

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from qpu_slurm.providers.base import Task, TaskUsage

UNKNOWN = "no-such-thing"
SECONDS = 60
"""How long a task may take, on a busy machine."""


class Service(Protocol):
    """A service with two QPUs, as new for each test.

    Attributes:
        backend: The QPU that is tested.
        other: Another one of the same account.
        program_id: What `parameters` are for.
        parameters: An input that completes within seconds.
        bad_parameters: An input that the service takes, and that fails.
    """

    backend: str
    other: str
    program_id: str
    parameters: bytes
    bad_parameters: bytes

    def connect(self, backend: str) -> Provider:
        """Return the provider of one of the QPUs."""

    def pause(self, reason: str) -> None:
        """Take the QPU away: tasks are taken, and wait."""


class NetworkService(Service, Protocol):
    """A service that is reached over a network, with a credential."""

    def reach(self, *, key: str | None = None, deadline: Deadline = NEVER) -> Provider:
        """Return the provider of the QPU, with another key or with a deadline."""

    def lose_answer_to_task(self) -> None:
        """Have the answer to the next submission get lost after it took effect."""


class SessionNetworkService(NetworkService, Protocol):
    """A service with sessions that is reached over a network."""

    def lose_answer_to_session(self) -> None:
        """Have the answer to the next creation of a session get lost after it took effect."""


class GateProvider(Provider, Protocol):
    """A provider that derives from `providers.gates.Gates`."""

    def tagged(self, tag: str) -> list[Task]: ...

    def tasks_of(self, tag: str) -> list[TaskUsage]: ...

    def delete_task(self, task_id: str) -> None: ...

    def kept_gates(self) -> set[str]: ...


class GateService(Service, Protocol):
    """A service that has no sessions."""

    def connect(self, backend: str) -> GateProvider:
        """Return the provider of one of the QPUs."""


def submit(
    service: Service, provider: Provider, session_id: str, *tags: str, parameters: bytes | None = None
) -> str:
    return provider.submit(
        service.program_id,
        service.parameters if parameters is None else parameters,
        session_id=session_id,
        tags=tags,
    )


def ended(provider: Provider, task_id: str) -> Task:
    """Wait until a task is over."""
    deadline = time.monotonic() + SECONDS
    while not (task := provider.task(task_id)).status.final:
        assert time.monotonic() < deadline, task
        time.sleep(0.02)
    return task


class QpuConformance:
    """What a provider tells of its QPU.

    Attributes:
        paused: Why the QPU is away after `pause("Back on Monday.")`, for a service that has words of its own.
    """

    paused = "Back on Monday."

    def test_a_qpu_that_works_is_online(self, service: Service) -> None:
        status = service.connect(service.backend).status()

        assert (status.online, status.reason) == (True, "")
        assert status.queue_length >= 0

    def test_a_qpu_that_is_away_says_why(self, service: Service) -> None:
        service.pause("Back on Monday.")
        provider = service.connect(service.backend)

        assert (provider.status().online, provider.status().reason) == (False, self.paused)
        statuses = provider.statuses()
        assert (statuses[service.backend].online, statuses[service.backend].reason) == (False, self.paused)
        assert statuses[service.other].online

    def test_circuits_can_be_compared_with_the_device(self, service: Service) -> None:
        device = service.connect(service.backend).device()

        assert device.qubits > 0
        assert device.max_shots is None or device.max_shots > 0
        assert {*device.places} <= device.operations
        assert "measure" in device.operations
        assert all(0 <= qubit < device.qubits for place in device.coupled for qubit in place)
        assert all(place[::-1] in device.coupled for place in device.coupled)
        for name, places in device.places.items():
            assert all(device.problem(name, place) is None for place in places)
        assert device.problem("no_such_operation", (0,)) is not None
        assert device.problem("measure", (device.qubits,)) is not None
        assert device.lacks(["measure", "no_such_operation"]) == ["no_such_operation"]

    def test_it_takes_some_tasks_at_once(self, service: Service) -> None:
        slots = service.connect(service.backend).slots()

        assert slots is None or slots > 0

    def test_a_calibration_has_a_time_in_utc_or_none(self, service: Service) -> None:
        calibrated_at = service.connect(service.backend).calibrated_at()

        assert calibrated_at is None or calibrated_at.utcoffset() == timedelta(0)


class HoldTests:
    """What a lease holds at a service, a session or a gate: opened, found, ended, accounted for."""

    def test_a_session_takes_tasks(self, service: Service) -> None:
        provider = service.connect(service.backend)
        before = datetime.now(UTC)

        session = provider.open_session(600)

        assert session.id
        assert (session.backend, session.accepting_tasks) == (service.backend, True)
        assert session.state is not SessionState.CLOSED
        read = provider.session(session.id)
        assert (read.id, read.backend, read.accepting_tasks) == (session.id, service.backend, True)
        if read.created_at is not None:
            assert abs(read.created_at - before) < timedelta(seconds=SECONDS)
        if read.created_at is not None and read.ends_at is not None:
            assert read.ends_at - read.created_at <= timedelta(seconds=600)

    @pytest.mark.parametrize("name", ["session", "cancel_session", "close_session"])
    def test_a_session_that_is_not_there_is_not_found(self, service: Service, name: str) -> None:
        with pytest.raises(NotFoundError):
            getattr(service.connect(service.backend), name)(UNKNOWN)

    def test_a_session_is_busy_while_a_task_waits(self, service: Service) -> None:
        provider = service.connect(service.backend)
        session_id = provider.open_session(600).id
        assert not provider.is_busy(session_id)
        service.pause("They wait.")

        task_id = submit(service, provider, session_id, "task:1")

        assert provider.is_busy(session_id)
        provider.cancel_task(task_id)
        ended(provider, task_id)
        assert not provider.is_busy(session_id)

    def test_sessions_are_found_by_their_tasks_tags(self, service: Service) -> None:
        provider, other = service.connect(service.backend), service.connect(service.other)
        before = datetime.now(UTC)
        service.pause("They wait.")
        first, second, third = (provider.open_session(600).id for _ in range(3))
        elsewhere = other.open_session(600).id
        submit(service, other, elsewhere, "slurm-job:7", "task:0")
        jobs = ((first, 7), (second, 7), (first, 7), (third, 77), (second, 7))
        for number, (session_id, job) in enumerate(jobs):
            submit(service, provider, session_id, f"slurm-job:{job}", f"task:{number}")

        assert list(provider.sessions_of_tasks("slurm-job:7")) == [second, first]
        assert list(provider.sessions_of_tasks("slurm-job:7", since=before)) == [second, first]
        assert list(provider.sessions_of_tasks("slurm-job:7", since=before + timedelta(hours=1))) == []
        assert list(provider.sessions_of_tasks("slurm-job:8")) == []

    def test_a_sessions_usage_names_its_tasks(self, service: Service) -> None:
        provider = service.connect(service.backend)
        session_id = provider.open_session(600).id
        tasks = []
        for number in range(2):
            tasks.append(submit(service, provider, session_id, f"task:{number}"))
            ended(provider, tasks[-1])
        provider.cancel_session(session_id)

        usage = provider.usage(session_id)

        assert usage.state is SessionState.CLOSED
        assert usage.locked_seconds is None or usage.locked_seconds >= 0
        assert all(begin < end for begin, end in usage.active)
        assert [task.id for task in usage.tasks] == tasks
        assert {task.status for task in usage.tasks} == {TaskStatus.COMPLETED}
        assert all(task.seconds >= 0 for task in usage.tasks)


class SessionConformance(HoldTests):
    """Sessions, besides: closed and cancelled by the service, and found there without their tasks."""

    def test_a_session_that_is_closed_finishes_its_tasks_and_takes_no_more(self, service: Service) -> None:
        provider = service.connect(service.backend)
        session_id = provider.open_session(600).id
        task_id = submit(service, provider, session_id, "task:1")

        provider.close_session(session_id)
        provider.close_session(session_id)

        assert not provider.session(session_id).accepting_tasks
        with pytest.raises(RefusedError):
            submit(service, provider, session_id, "task:2")
        assert ended(provider, task_id).status is TaskStatus.COMPLETED

    def test_a_session_that_is_cancelled_takes_its_tasks_along(self, service: Service) -> None:
        service.pause("They wait.")
        provider = service.connect(service.backend)
        session_id = provider.open_session(600).id
        task_id = submit(service, provider, session_id, "task:1")

        provider.cancel_session(session_id)
        provider.cancel_session(session_id)

        assert provider.session(session_id).state is SessionState.CLOSED
        assert not provider.session(session_id).accepting_tasks
        assert provider.task(task_id).status in {TaskStatus.CANCELLED, TaskStatus.FAILED}
        with pytest.raises(RefusedError):
            submit(service, provider, session_id, "task:2")

    def test_unclaimed_sessions_are_those_that_nobody_uses(self, service: Service) -> None:
        provider, other = service.connect(service.backend), service.connect(service.other)
        before = datetime.now(UTC)
        known, cancelled, working, lost = (provider.open_session(600).id for _ in range(4))
        other.open_session(600)
        provider.cancel_session(cancelled)
        submit(service, provider, working, "task:1")

        found = provider.unclaimed_sessions(before, known={known})

        assert [session.id for session in found] == [lost]
        assert found[0].created_at is not None
        assert provider.unclaimed_sessions(datetime.now(UTC) + timedelta(minutes=1)) == []

    def test_live_sessions_and_closed_ones(self, service: Service) -> None:
        provider, other = service.connect(service.backend), service.connect(service.other)
        before = datetime.now(UTC)
        idle, closed, working = (provider.open_session(600).id for _ in range(3))
        other.open_session(600)
        other.cancel_session(other.open_session(600).id)
        provider.cancel_session(closed)
        submit(service, provider, working, "slurm-job:7", "task:1")

        live = {session.id: set(session.tags) for session in provider.live_sessions(before)}

        assert live == {idle: set(), working: {"slurm-job:7", "task:1"}}
        assert provider.closed_sessions(before) == {closed}
        later = datetime.now(UTC) + timedelta(minutes=1)
        assert provider.live_sessions(later) == []
        assert provider.closed_sessions(later) == frozenset()


class GateConformance(HoldTests):
    """Gates, besides: the service knows of none, and a job's tasks are all that there is of a job."""

    def test_the_service_has_no_sessions(self, service: GateService) -> None:
        provider = service.connect(service.backend)

        assert not provider.features.sessions
        since = datetime.now(UTC)
        gates = {provider.open_session(600).id for _ in range(2)}
        assert len(gates) == 2
        assert provider.unclaimed_sessions(since) == []
        assert provider.live_sessions(since) == []
        assert provider.closed_sessions(since) == frozenset()

    def test_a_gate_that_ends_takes_its_tasks_along_and_no_others(self, service: GateService) -> None:
        service.pause("They wait.")
        provider = service.connect(service.backend)
        ending, other = (provider.open_session(600).id for _ in range(2))
        tasks = [submit(service, provider, ending, f"task:{number}") for number in range(2)]
        kept = submit(service, provider, other, "task:3")

        provider.cancel_session(ending)
        provider.cancel_session(ending)

        assert {ended(provider, task_id).status for task_id in tasks} == {TaskStatus.CANCELLED}
        assert not provider.is_busy(ending)
        assert not provider.task(kept).status.final
        assert provider.is_busy(other)
        usage = provider.usage(ending)
        assert usage.state is SessionState.CLOSED
        assert [task.id for task in usage.tasks] == tasks
        assert provider.usage(other).state is not SessionState.CLOSED

    def test_a_gate_that_is_closed_finishes_its_tasks(self, service: GateService) -> None:
        provider = service.connect(service.backend)
        gate = provider.open_session(600).id
        task_id = submit(service, provider, gate, "task:1")

        provider.close_session(gate)

        assert ended(provider, task_id).status is TaskStatus.COMPLETED

    def test_what_its_tasks_ran_is_what_it_is_charged(self, service: GateService) -> None:
        provider = service.connect(service.backend)
        gate = provider.open_session(600).id
        assert provider.usage(gate).locked_seconds == 0
        ended(provider, submit(service, provider, gate, "task:1"))

        usage = provider.usage(gate)

        assert usage.locked_seconds == usage.executed_seconds

    def test_a_gate_that_is_forgotten_leaves_nothing_of_its_own(self, service: GateService) -> None:
        provider = service.connect(service.backend)
        gate, other = (provider.open_session(600).id for _ in range(2))
        task_id, kept = (submit(service, provider, it, "slurm-job:7") for it in (gate, other))
        for it in (task_id, kept):
            ended(provider, it)

        assert {gate, other} <= provider.kept_gates()
        provider.forget_session(gate)
        provider.forget_session(gate)
        assert gate not in provider.kept_gates()

        assert [usage.id for usage in provider.tasks_of("slurm-job:7")] == [kept]
        with pytest.raises(NotFoundError):
            provider.task(task_id)
        with pytest.raises(NotFoundError):
            list(provider.result(task_id))
        assert b"".join(provider.result(kept))

    def test_a_jobs_tasks_are_found_by_its_tag(self, service: GateService) -> None:
        provider, other = service.connect(service.backend), service.connect(service.other)
        gate, elsewhere = provider.open_session(600).id, other.open_session(600).id
        submit(service, other, elsewhere, "slurm-job:7", "task:0")
        first, _, third = (
            submit(service, provider, gate, tag, own)
            for tag, own in (("slurm-job:7", "task:1"), ("slurm-job:77", "task:2"), ("slurm-job:7", "task:3"))
        )

        assert [usage.id for usage in provider.tasks_of("slurm-job:7")] == [first, third]
        assert [task.session_id for task in provider.tagged("slurm-job:7")] == [gate, gate]
        assert provider.tasks_of("slurm-job:8") == []

    def test_a_task_that_is_not_over_is_not_deleted(self, service: GateService) -> None:
        service.pause("They wait.")
        provider = service.connect(service.backend)
        task_id = submit(service, provider, provider.open_session(600).id, "slurm-job:7", "task:1")

        with pytest.raises(RefusedError):
            provider.delete_task(task_id)

        assert provider.pending_tasks("slurm-job:7") == [task_id]
        provider.cancel_task(task_id)
        ended(provider, task_id)
        provider.delete_task(task_id)
        provider.delete_task(task_id)
        assert provider.tasks_of("slurm-job:7") == []


class TaskConformance:
    """Tasks: submitted, followed, read, cancelled, found."""

    def test_a_task_from_its_submission_to_its_result(self, service: Service) -> None:
        provider = service.connect(service.backend)
        session_id = provider.open_session(600).id

        task_id = submit(service, provider, session_id, "slurm-job:7", "task:1")

        task = ended(provider, task_id)
        assert (task.id, task.status, task.session_id) == (task_id, TaskStatus.COMPLETED, session_id)
        assert set(task.tags) == {"slurm-job:7", "task:1"}
        assert b"".join(provider.result(task_id))
        assert isinstance(provider.logs(task_id), str)
        times = provider.times(task_id)
        assert all(it is None or it >= 0 for it in (times.queued, times.running, times.quantum))

    def test_an_input_in_pieces_is_sent_like_one_in_memory(self, service: Service) -> None:
        provider = service.connect(service.backend)
        session_id = provider.open_session(600).id

        task_id = provider.submit(
            service.program_id,
            _Pieces([service.parameters[:7], service.parameters[7:]]),
            session_id=session_id,
            tags=("task:1",),
        )

        assert ended(provider, task_id).status is TaskStatus.COMPLETED

    def test_a_task_that_fails_says_why(self, service: Service) -> None:
        provider = service.connect(service.backend)
        session_id = provider.open_session(600).id

        task_id = submit(service, provider, session_id, "task:1", parameters=service.bad_parameters)

        task = ended(provider, task_id)
        assert task.status is TaskStatus.FAILED
        assert task.reason
        assert task.reason.isprintable()

    def test_a_task_can_be_cancelled_at_any_time(self, service: Service) -> None:
        provider = service.connect(service.backend)
        session_id = provider.open_session(600).id
        done = submit(service, provider, session_id, "task:1")
        ended(provider, done)
        service.pause("They wait.")
        waiting = submit(service, provider, session_id, "task:2")

        for task_id in (done, waiting, waiting):
            provider.cancel_task(task_id)

        assert provider.task(done).status is TaskStatus.COMPLETED
        assert ended(provider, waiting).status is TaskStatus.CANCELLED

    def test_tasks_that_are_not_over_are_found_by_a_tag(self, service: Service) -> None:
        service.pause("They wait.")
        provider, other = service.connect(service.backend), service.connect(service.other)
        session_id, elsewhere = provider.open_session(600).id, other.open_session(600).id
        submit(service, other, elsewhere, "a", "task:0")
        first, _, third = (
            submit(service, provider, session_id, tag, own)
            for tag, own in (("a", "task:1"), ("b", "task:2"), ("a", "task:3"))
        )

        assert provider.pending_tasks("a") == [third, first]
        provider.cancel_task(third)
        ended(provider, third)
        assert provider.pending_tasks("a") == [first]
        assert provider.pending_tasks("c") == []

    @pytest.mark.parametrize(
        "ask",
        [
            lambda provider: provider.task(UNKNOWN),
            lambda provider: provider.cancel_task(UNKNOWN),
            lambda provider: provider.logs(UNKNOWN),
            lambda provider: provider.times(UNKNOWN),
            lambda provider: list(provider.result(UNKNOWN)),
        ],
        ids=["task", "cancel_task", "logs", "times", "result"],
    )
    def test_a_task_that_is_not_there_is_not_found(
        self, service: Service, ask: Callable[[Provider], object]
    ) -> None:
        with pytest.raises(NotFoundError):
            ask(service.connect(service.backend))


class NetworkConformance:
    """What a provider does about a network: nothing is left behind, made twice, or waited for without end."""

    def test_a_task_whose_answer_was_lost_is_submitted_once(self, service: NetworkService) -> None:
        provider = service.connect(service.backend)
        session_id = provider.open_session(600).id
        service.pause("They wait.")
        service.lose_answer_to_task()

        if not provider.features.lists_tasks:
            with pytest.raises(AnswerLostError, match="The task may run"):
                submit(service, provider, session_id, "slurm-job:7", "task:1")
            assert provider.status().queue_length == 1
            return
        task_id = submit(service, provider, session_id, "slurm-job:7", "task:1")

        assert provider.pending_tasks("slurm-job:7") == [task_id]

    def test_nothing_is_asked_after_the_deadline(self, service: NetworkService) -> None:
        provider = service.reach(deadline=Deadline.after(-1))

        with pytest.raises(UnavailableError):
            provider.status()

    def test_a_wrong_key_is_refused_and_not_shown(self, service: NetworkService) -> None:
        key = "not-the-key-of-anything"
        with pytest.raises(RefusedError) as caught:
            service.reach(key=key).status()

        assert key not in str(caught.value)


class SessionNetworkConformance:
    """What a provider of a service with sessions does about a network, besides."""

    def test_a_session_whose_answer_was_lost_is_opened_once(self, service: SessionNetworkService) -> None:
        provider = service.connect(service.backend)
        before = datetime.now(UTC)
        known = provider.open_session(600).id
        service.lose_answer_to_session()

        session = provider.open_session(600, known={known})

        assert {live.id for live in provider.live_sessions(before)} == {known, session.id}


class _Pieces:
    """An input that is not in memory as a whole."""

    def __init__(self, pieces: list[bytes]) -> None:
        self._pieces = pieces

    def __len__(self) -> int:
        return sum(map(len, self._pieces))

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._pieces)
