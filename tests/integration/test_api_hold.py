# SPDX-License-Identifier: Apache-2.0
"""Programs of a job that holds a session from its first task on: Python opens it as task_runner does."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from qiskit import QuantumCircuit, transpile

from qpu_slurm import Qpu, SamplerV2, Session, execute, submit

if TYPE_CHECKING:
    from tests.integration.steps import Step

pytestmark = pytest.mark.filterwarnings(r"ignore:The (Sampler|Estimator)V2 class is deprecated")


@pytest.fixture
def later(step: Step, monkeypatch: pytest.MonkeyPatch) -> Step:
    """Make this process a step of a job that has no session yet."""
    step.emulator.reset()
    step.environ = step.variables(session_id=None, hold="task")
    for name, value in step.environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(step.directory)
    return step


def where(step: Step) -> list[str | None]:
    """Name the sessions of the tasks, in their order."""
    return [task.session_id for task in step.tasks()]


def test_looking_at_a_qpu_opens_nothing(later: Step) -> None:
    qpu = Qpu.of_job()

    assert qpu.target.num_qubits == 156
    assert qpu.session_id is None
    assert later.emulator.sessions() == []


def test_the_first_task_opens_the_session_for_all(later: Step) -> None:
    tasks = [submit("input.json") for _ in range(3)]
    assert all(task.result() for task in tasks)
    assert later.run("ibm_fez", "input.json", "output.json").returncode == 0
    circuit = QuantumCircuit(1)
    circuit.measure_all()
    SamplerV2().run([transpile(circuit, Qpu.of_job().backend())], shots=1).result()

    (session,) = later.emulator.sessions()
    assert where(later) == [session.id] * 5


def test_qiskits_session_opens_it_as_well(later: Step) -> None:
    session = Session()

    (opened,) = later.emulator.sessions()
    assert session.session_id == opened.id == Session().session_id
    assert execute("input.json")
    assert where(later) == [opened.id]


def test_a_task_after_the_last_one_opens_another(later: Step) -> None:
    execute("input.json", close_session=True)
    later.emulator.wait_for(lambda emulator: emulator.sessions()[0].state == "closed")

    execute("input.json")

    first, second = later.emulator.sessions()
    assert where(later) == [first.id, second.id]


def test_a_session_that_the_service_closed_is_replaced(later: Step) -> None:
    execute("input.json")
    later.emulator.close_session(later.emulator.sessions()[0].id)

    result = execute("input.json")

    assert result[0].data.c.get_counts() == {"1": 100}
    assert len(set(where(later))) == 2
