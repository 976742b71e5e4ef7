# SPDX-License-Identifier: Apache-2.0
"""Inputs executed from Python come to what task_runner makes of them."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import subprocess
import sys
import traceback
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING

import pytest
from qiskit import QuantumCircuit, transpile
from qiskit.quantum_info import SparsePauliOp
from qiskit_ibm_runtime import QuantumProgram

from qpu_slurm import (
    Progress,
    Qpu,
    execute,
    read_executor_result,
    read_result,
    submit,
    write_executor_input,
)
from qpu_slurm.errors import (
    NoLeaseError,
    OutputError,
    PayloadError,
    RefusedError,
    RequestError,
    TaskCancelledError,
    TaskFailedError,
    TaskTimeoutError,
)
from qpu_slurm_devkit.emulator import Fault
from tests.integration.steps import sampler_input

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.steps import Step


@pytest.fixture
def in_job(step: Step, monkeypatch: pytest.MonkeyPatch) -> Step:
    """Make this process a step of the job."""
    return _enter(step, monkeypatch)


@pytest.fixture
def in_slow_job(slow_step: Step, monkeypatch: pytest.MonkeyPatch) -> Step:
    """Make this process a step of a job, the tasks of which take long."""
    return _enter(slow_step, monkeypatch)


def _enter(step: Step, monkeypatch: pytest.MonkeyPatch) -> Step:
    for name, value in step.environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(step.directory)
    return step


def statuses(step: Step) -> list[str]:
    return [task.status for task in step.tasks()]


def test_a_file_comes_to_its_result(in_job: Step) -> None:
    result = execute(in_job.input)

    assert result[0].data.c.get_counts() == {"1": 100}
    (task,) = in_job.tasks()
    assert (task.session_id, task.program_id) == (in_job.session_id, "sampler")


def test_what_is_asked_for_is_what_task_runner_would_do(in_job: Step) -> None:
    written = execute("input.json", output="here.json", shots=7, tags=["mine"])
    in_job.run("ibm_fez", "input.json", "there.json", "--shots", "7", "--tag", "mine")

    ours, theirs = in_job.tasks()
    assert str(written) == "here.json"
    assert read_result("here.json")[0].data.c == read_result("there.json")[0].data.c
    assert (ours.tags[0], ours.tags[2]) == (theirs.tags[0], theirs.tags[2]) == ("slurm-job:42", "mine")
    assert ours.tags[1] != theirs.tags[1]


@pytest.mark.usefixtures("in_job")
def test_pubs_are_the_samplers_or_the_estimators() -> None:
    backend = Qpu.of_job().backend()
    circuit = QuantumCircuit(1)
    circuit.x(0)
    plain = transpile(circuit, backend)
    measured = plain.copy()
    measured.measure_active()
    observable = SparsePauliOp("Z").apply_layout(plain.layout)

    sampled = execute([measured, (measured, None, 5)], shots=12)
    estimated = execute([(plain, observable, None, 0.05)], program="estimator")

    assert [pub.data.meas.get_counts() for pub in sampled] == [{"1": 12}, {"1": 12}]
    assert estimated[0].data.evs == pytest.approx(-1, abs=0.3)
    with pytest.raises(PayloadError, match="is for samplers"):
        execute([(plain, observable)], program="estimator", shots=5)


def test_an_executors_result_goes_to_a_file(in_job: Step) -> None:
    circuit = QuantumCircuit(1)
    circuit.measure_all()
    program = QuantumProgram(shots=5)
    program.append_circuit_item(transpile(circuit, Qpu.of_job().backend()))
    write_executor_input("program.json", program)

    written = execute("program.json", output="output.json")

    assert read_executor_result(written)[0]["meas"].shape == (5, 1)
    with pytest.raises(PayloadError, match="Give an output"):
        execute("program.json")
    assert len(in_job.tasks()) == 1


def test_many_at_once_share_a_connection(in_job: Step) -> None:
    async def main() -> list[int]:
        results = await asyncio.gather(*(submit("input.json", shots=shots) for shots in range(1, 7)))
        return [result[0].data.c.num_shots for result in results]

    before = len(in_job.emulator.requests())
    shots = asyncio.run(main())

    assert shots == [1, 2, 3, 4, 5, 6]
    assert [task.session_id for task in in_job.tasks()] == [in_job.session_id] * 6
    paths = [request.path for request in in_job.emulator.requests()[before:]]
    assert paths.count("/identity/token") <= 1


def test_a_task_tells_what_becomes_of_it(in_job: Step) -> None:
    told: list[Progress] = []
    task = submit("input.json", on_progress=told.append)

    result = task.result()

    assert {progress.task_id for progress in told} == {task.job_id()} == {in_job.tasks()[0].id}
    assert [told[0].status, told[-1].status] == ["queued", "completed"]
    assert (task.status(), task.done()) == ("completed", True)
    assert task.result() is result
    task.cancel()
    assert task.result() is result


def test_the_last_task_closes_the_session_while_it_runs(in_slow_job: Step) -> None:
    task = submit("input.json", close_session=True)
    in_slow_job.wait_until_it_runs()
    in_slow_job.emulator.wait_for(lambda emulator: not emulator.sessions()[0].accepting_tasks)
    assert not task.done()

    in_slow_job.emulator.advance(130)

    assert task.result()
    assert in_slow_job.emulator.sessions()[0].state == "closed"
    with pytest.raises(RefusedError, match="Session has been closed"):
        execute("input.json")


def test_a_session_that_cannot_be_closed_is_no_error(in_job: Step, caplog: pytest.LogCaptureFixture) -> None:
    in_job.emulator.inject(Fault(method="PATCH", path="/sessions/*", status=403))

    assert execute("input.json", close_session=True)

    assert "The session stays open until the job ends" in caplog.text


def test_a_task_that_takes_too_long_is_cancelled(in_slow_job: Step) -> None:
    with pytest.raises(TaskTimeoutError, match=r"was not over after 0\.3 s"):
        execute("input.json", timeout=0.3)

    assert statuses(in_slow_job) == ["Cancelled"]


def test_a_task_is_cancelled_by_its_program(in_slow_job: Step) -> None:
    task = submit("input.json")
    in_slow_job.wait_until_it_runs()

    task.cancel()

    assert statuses(in_slow_job) == ["Cancelled"]
    with pytest.raises(CancelledError):
        task.result()


def test_an_await_that_is_cancelled_cancels_its_task_and_no_other(in_slow_job: Step) -> None:
    async def main() -> None:
        other = submit("input.json")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(submit("input.json"), 0.5)
        in_slow_job.emulator.wait_for(lambda _: "Cancelled" in statuses(in_slow_job))
        in_slow_job.emulator.advance(130)
        assert await other

    asyncio.run(main())

    assert statuses(in_slow_job) == ["Completed", "Cancelled"]


def test_a_task_that_fails_says_why(in_job: Step) -> None:
    in_job.write(
        "input.json",
        sampler_input('OPENQASM 3.0; include "stdgates.inc"; bit[1] c; h $0; c[0] = measure $0;'),
    )

    with pytest.raises(TaskFailedError, match=r"^Task \w+ failed\. .*h") as failure:
        execute("input.json")

    assert failure.value.task_id == in_job.tasks()[0].id
    said = "".join(traceback.format_exception_only(failure.value))
    assert said.count("is not supported by the target system") == 1


def test_a_task_that_the_service_cancels(in_slow_job: Step) -> None:
    task = submit("input.json")
    in_slow_job.wait_until_it_runs()
    in_slow_job.provider.cancel_task(task.job_id())

    with pytest.raises(TaskCancelledError, match=r"was cancelled\. Cancelled by the user"):
        task.result()


def test_what_progress_raises_ends_the_task(in_slow_job: Step) -> None:
    def tell(progress: Progress) -> None:
        raise KeyError(progress.status)

    with pytest.raises(KeyError, match="queued"):
        execute("input.json", on_progress=tell)

    assert statuses(in_slow_job) == ["Cancelled"]


def test_mistakes_are_said_before_anything_is_submitted(
    in_job: Step, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    in_job.write("bad.json", json.dumps({"program_id": "sampler", "parameters": {}}))

    with pytest.raises(PayloadError, match=r"^bad\.json: parameters: object missing required field `pubs`"):
        submit("bad.json")
    with pytest.raises(PayloadError, match=r"missing\.json cannot be read"):
        submit("missing.json")
    with pytest.raises(PayloadError, match=r"input\.json holds an input"):
        submit("input.json", output=tmp_path / "input.json")
    with pytest.raises(OutputError, match="No such file or directory"):
        submit("input.json", output=tmp_path / "no" / "output.json")
    with pytest.raises(NoLeaseError, match="This job has no QPU 'ibm_kyiv'"):
        submit("input.json", qpu="ibm_kyiv")
    for tag in ("", "two\nlines", "slurm-job:1"):
        with pytest.raises(RequestError, match="cannot be a task's tag"):
            submit("input.json", tags=[tag])
    for name in set(in_job.environ) - set(in_job.variables()):
        monkeypatch.delenv(name)
    with pytest.raises(NoLeaseError, match="holds no session to execute in"):
        submit("input.json")

    assert in_job.tasks() == []


def test_a_failed_execution_leaves_an_output_as_it_was(in_slow_job: Step) -> None:
    in_slow_job.write("output.json", "before")

    with pytest.raises(TaskTimeoutError):
        execute("input.json", output="output.json", timeout=0.2)

    assert in_slow_job.output.read_text(encoding="utf-8") == "before"
    assert in_slow_job.files() == {"input.json", "output.json"}


def test_an_output_whose_place_is_gone_keeps_nobody_waiting(in_slow_job: Step) -> None:
    place = in_slow_job.directory / "results"
    place.mkdir()
    task = submit("input.json", output="results/output.json", timeout=3)
    in_slow_job.wait_until_it_runs()
    shutil.rmtree(place)
    place.touch()

    with pytest.raises(TaskTimeoutError):
        task.result()
    with pytest.raises(TaskTimeoutError):
        execute("input.json", timeout=0.1)


def test_a_refused_submission_is_the_errors_of_all_who_wait(in_job: Step) -> None:
    in_job.emulator.inject(Fault(method="POST", path="/jobs", status=403))
    task = submit("input.json")

    with pytest.raises(RefusedError):
        task.job_id()
    with pytest.raises(RefusedError):
        task.result()
    assert (task.status(), task.done()) == (None, True)


INTERRUPTED = """
from qpu_slurm import execute
execute("input.json")
"""

LEFT = """
from qpu_slurm import submit
print(submit("input.json").job_id())
"""

AWAITED = """
import asyncio
from qpu_slurm import submit
async def main():
    await asyncio.gather(submit("input.json"), submit("input.json"))
asyncio.run(main())
"""


@pytest.mark.parametrize(("program", "tasks"), [(INTERRUPTED, 1), (AWAITED, 2)])
def test_ctrl_c_cancels_what_is_waited_for(slow_step: Step, program: str, tasks: int) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", program], env=slow_step.environ, cwd=slow_step.directory, stderr=-1, text=True
    )
    with process:
        slow_step.emulator.wait_for(lambda _: len(slow_step.tasks()) == tasks)
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=240)

    assert "KeyboardInterrupt" in error
    assert statuses(slow_step) == ["Cancelled"] * tasks


def test_a_program_that_ends_leaves_no_task_behind(slow_step: Step) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LEFT],
        env=slow_step.environ,
        cwd=slow_step.directory,
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout.strip() == slow_step.tasks()[0].id
    assert statuses(slow_step) == ["Cancelled"]
