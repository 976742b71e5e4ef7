# SPDX-License-Identifier: Apache-2.0
"""The provider of IQM Server: what every provider has to do, and what is its own."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from qpu_slurm.errors import AnswerLostError, NotFoundError, RefusedError, UnavailableError
from qpu_slurm.providers.base import TaskStatus
from qpu_slurm.providers.ibm import Patience
from qpu_slurm.providers.iqm.access import IqmAccess
from qpu_slurm.providers.iqm.ledger import Ledger
from qpu_slurm.providers.iqm.service import IqmServer
from qpu_slurm.system.deadline import NEVER, Deadline
from qpu_slurm.system.secret import Secret
from qpu_slurm_devkit.emulator import Drop, Emulator, Fault
from tests.integration.test_emulator_iqm import IqmApi, batch, bell, cz, measure
from tests.provider_conformance import (
    GateConformance,
    NetworkConformance,
    QpuConformance,
    TaskConformance,
    ended,
)

if TYPE_CHECKING:
    from pathlib import Path

PATIENCE = Patience(call=10, settle=0.2)

SUBMISSION = "/jobs/garnet/circuit"


class Iqm:
    """The emulator's IQM Server, in the hands of its premium account."""

    backend, other = "garnet", "spark"
    program_id = "circuit"
    parameters = json.dumps(bell(shots=16)).encode()
    bad_parameters = json.dumps(batch(cz("QB1", "QB20"), measure("QB1"))).encode()

    def __init__(self, emulator: Emulator, ledger: Path) -> None:
        self.emulator = emulator
        self.ledger = ledger

    def connect(self, backend: str) -> IqmServer:
        return IqmServer(self.access(backend), patience=PATIENCE)

    def reach(self, *, key: str | None = None, deadline: Deadline = NEVER) -> IqmServer:
        return IqmServer(self.access(key=key), patience=PATIENCE, deadline=deadline)

    def access(self, backend: str = backend, key: str | None = None) -> IqmAccess:
        return IqmAccess(
            type="iqm-server",
            backend=backend,
            endpoint=self.emulator.url,
            api_key=Secret(key or self.emulator.accounts[0].api_key),
            ledger=str(self.ledger),
        )

    def pause(self, reason: str) -> None:
        self.emulator.set_backend(self.backend, "paused", reason)

    def lose_answer_to_task(self) -> None:
        self.emulator.inject(Fault(method="POST", path=SUBMISSION, drop=Drop.AFTER))

    def lost(self, gate: str) -> int:
        return Ledger(self.ledger, self.backend).lost(gate)

    def submit(self, provider: IqmServer, gate: str, *tags: str, program: str = "circuit") -> str:
        return provider.submit(program, self.parameters, session_id=gate, tags=tags)


@pytest.fixture
def service(emulator: Emulator, tmp_path: Path) -> Iqm:
    return Iqm(emulator, tmp_path / "ledger")


class TestQpu(QpuConformance):
    paused = "IQM Server says: maintenance."


class TestTasks(TaskConformance):
    pass


class TestGates(GateConformance):
    pass


class TestNetwork(NetworkConformance):
    pass


def test_a_gate_is_the_tag_at_the_server_and_all_tags_are_kept_here(service: Iqm) -> None:
    provider = service.connect("garnet")
    service.pause("They wait.")
    gate = provider.open_session(600).id
    tags = ("slurm-job:lab/7", "a b", "50%*", "\u00e9t\u00e9?", "x" * 200)
    task_id = service.submit(provider, gate, *tags)
    assert IqmApi.of(service.emulator).get(f"/jobs/{task_id}")["tag"] == gate
    for tag in (*tags, gate):
        assert service.connect("garnet").pending_tasks(tag) == [task_id]
    assert provider.task(task_id).tags == tags
    assert service.connect("spark").pending_tasks("a b") == []


def test_a_task_that_is_over_is_not_asked_for_again(service: Iqm) -> None:
    provider = service.connect("garnet")
    gate = provider.open_session(600).id
    task_id = service.submit(provider, gate)
    ended(provider, task_id)
    before = len(service.emulator.requests())
    (usage,) = service.connect("garnet").usage(gate).tasks
    assert len(service.emulator.requests()) == before
    assert (usage.id, usage.status) == (task_id, TaskStatus.COMPLETED)
    assert usage.seconds > 0
    assert usage.created_at is not None
    assert usage.started_at is not None
    assert usage.ended_at is not None
    assert usage.created_at <= usage.started_at <= usage.ended_at


def test_a_lost_submission_is_not_sent_again_and_is_counted(
    service: Iqm, caplog: pytest.LogCaptureFixture
) -> None:
    provider = service.connect("garnet")
    service.pause("They wait.")
    gate = provider.open_session(600).id
    service.lose_answer_to_task()
    with pytest.raises(AnswerLostError, match="lists no tasks") as caught:
        service.submit(provider, gate)
    assert gate in caught.value.admin_advice
    assert [task.tags for task in service.emulator.tasks()] == [(gate,)]
    assert service.lost(gate) == 1
    provider.forget_session(gate)
    assert service.lost(gate) == 0
    assert f"1 tasks with the tag {gate} may be left" in caplog.text


def test_a_submission_that_did_not_arrive_is_no_loss(service: Iqm) -> None:
    provider = service.connect("nowhere")
    gate = provider.open_session(600).id
    with pytest.raises(NotFoundError, match="'nowhere' not found"):
        service.submit(provider, gate)
    assert service.lost(gate) == 0
    assert provider.ids(gate) == []


def test_a_line_that_a_crash_has_cut_short_hides_no_other(service: Iqm) -> None:
    provider = service.connect("garnet")
    gate = provider.open_session(600).id
    first = service.submit(provider, gate)
    (file,) = (service.ledger / "garnet").iterdir()
    with file.open("ab") as lines:
        lines.write(b'{"expect":"3f9a","task":"6e3')
    second = service.submit(provider, gate)
    assert provider.ids(gate) == [first, second]
    assert file.stat().st_mode & 0o777 == 0o600


def test_a_ledger_that_cannot_be_written_lets_no_task_through(service: Iqm) -> None:
    service.ledger.write_text("no directory")
    provider = service.connect("garnet")
    with pytest.raises(UnavailableError, match="ledger of the QPU's tasks cannot be used"):
        service.submit(provider, provider.open_session(600).id)
    assert service.emulator.tasks() == []


def test_programs_and_gates_that_there_are_not(service: Iqm) -> None:
    provider = service.connect("garnet")
    gate = provider.open_session(600).id
    with pytest.raises(RefusedError, match="runs no 'sampler', only circuit and circuit:timeslot"):
        service.submit(provider, gate, program="sampler")
    with pytest.raises(RefusedError, match="goes through a gate"):
        provider.submit("circuit", service.parameters, session_id=None, tags=())
    service.submit(provider, gate, program="circuit:timeslot")
    assert [task.program_id for task in service.emulator.tasks()] == ["circuit:timeslot"]


def test_the_result_is_both_artifacts_as_the_server_has_them(service: Iqm) -> None:
    provider = service.connect("garnet")
    task_id = service.submit(provider, provider.open_session(600).id)
    ended(provider, task_id)
    result = json.loads(b"".join(provider.result(task_id)))
    api = IqmApi.of(service.emulator)
    assert result == {
        name: api.get(f"/jobs/{task_id}/artifacts/{name}") for name in ("measurements", "measurement_counts")
    }
    service.emulator.inject(
        Fault(path="/jobs/*/artifacts/measurement_counts", status=404, body='{"message": "no such artifact"}')
    )
    assert json.loads(b"".join(provider.result(task_id)))["measurement_counts"] is None


def test_a_result_is_asked_for_when_there_is_one(service: Iqm) -> None:
    provider = service.connect("garnet")
    service.pause("They wait.")
    task_id = service.submit(provider, provider.open_session(600).id)
    with pytest.raises(UnavailableError, match="has no result: it is queued"):
        provider.result(task_id)
    assert provider.early_result(task_id) is None
    assert provider.times(task_id).position == 1
    provider.cancel_task(task_id)
    with pytest.raises(RefusedError, match="has no result: it is cancelled"):
        provider.result(task_id)


def test_gates_are_named_as_the_server_names_them(service: Iqm) -> None:
    device = service.connect("garnet").device()
    assert (device.qubits, device.max_shots) == (20, 100_000)
    assert device.problem("cz", (1, 0)) is None
    assert device.problem("cz", (0, 19)) == "cz on qubits QB1 and QB20: the QPU has none there"
    assert device.problem("move", (0, 1)) == "move is no operation of the QPU"


def test_an_older_server_tells_its_health_alone(service: Iqm) -> None:
    old = Fault(path="/quantum-computers/garnet", times=None, status=404, body='{"message": "Not Found"}')
    service.emulator.inject(old)
    assert service.connect("garnet").status().online
    service.pause("Not told.")
    assert service.connect("garnet").status().reason == "IQM Server says: not healthy."
