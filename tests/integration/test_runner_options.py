# SPDX-License-Identifier: Apache-2.0
"""task_runner's options: --shots, --tag, --timeout, --json and --final."""

from __future__ import annotations

import json
import signal
import time
from typing import TYPE_CHECKING, Any

import pytest
from qiskit import QuantumCircuit

from qpu_slurm import read_result, write_sampler_input
from qpu_slurm_devkit.emulator import Drop, EventKind, Fault
from tests.integration.steps import QASM, Step, sampler_input

if TYPE_CHECKING:
    import subprocess

COMPLETED, FAILED, BAD_INPUT, REFUSED, UNAVAILABLE, OUTPUT, CANCELLED, TIMED_OUT = range(8)

ESTIMATOR = {"program_id": "estimator", "parameters": {"pubs": [[QASM, "Z"]], "version": 2}}
EXECUTOR = {"program_id": "executor", "parameters": {"schema_version": "v2.0", "quantum_program": {}}}


def summary_of(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(done.stdout)
    return document


# --shots


@pytest.mark.parametrize(
    "pub",
    [[QASM], [QASM, None], [QASM, []], [QASM, None, None], [QASM, None, 100]],
    ids=["none", "no values", "empty values", "null", "others"],
)
def test_shots_count_before_whatever_the_input_says(step: Step, pub: list[object]) -> None:
    step.write("input.json", sampler_input(pubs=[pub, pub], shots=50, options={"default_shots": 60}))

    done = step.run("--shots", "7", "ibm_fez", step.input, step.output)

    assert done.returncode == COMPLETED, done.stderr
    assert [pub.data.c.get_counts() for pub in read_result(step.output)] == [{"1": 7}, {"1": 7}]


def test_shots_of_circuits_in_qpy(step: Step) -> None:
    circuit = QuantumCircuit(1, 1)
    circuit.x(0)
    circuit.measure(0, 0)
    write_sampler_input(step.input, [circuit], shots=1000)

    done = step.run("ibm_fez", step.input, step.output, "--shots=7")

    assert done.returncode == COMPLETED, done.stderr
    assert read_result(step.output)[0].data.c.get_counts() == {"1": 7}


@pytest.mark.parametrize(
    ("document", "advice"), [(ESTIMATOR, "give the precision"), (EXECUTOR, "quantum program")]
)
def test_shots_are_for_samplers(step: Step, document: dict[str, object], advice: str) -> None:
    step.write("input.json", json.dumps(document))

    done = step.run("--shots", "7", "ibm_fez", step.input, step.output)

    assert done.returncode == BAD_INPUT
    assert "--shots is for samplers" in done.stderr
    assert advice in done.stderr
    assert step.tasks() == []


# --tag


def test_tags_are_put_beside_its_own(step: Step) -> None:
    done = step.run("--tag", "mine", "ibm_fez", step.input, step.output, "--tag", "scan of June")

    (task,) = step.tasks()
    assert done.returncode == COMPLETED, done.stderr
    assert task.tags[0] == "slurm-job:42"
    assert task.tags[2:] == ("mine", "scan of June")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--tag", ""],
        ["--tag", "two\nlines"],
        ["--tag", "slurm-job:1"],
        ["--shots", "0"],
        ["--shots", "many"],
        ["--timeout", "0"],
        ["--timeout", "soon"],
        ["--jobs", "2"],
        ["--dry-run", "--final"],
        ["--json", "-"],
    ],
    ids=" ".join,
)
def test_options_that_make_no_sense_are_bad_usage(step: Step, arguments: list[str]) -> None:
    done = step.run(*arguments, "ibm_fez", step.input)

    assert (done.returncode, done.stderr[:18]) == (BAD_INPUT, "usage: task_runner")
    assert step.tasks() == []


# --timeout


@pytest.mark.parametrize("duration", ["1", "1s"])
def test_a_task_that_takes_too_long_is_cancelled(slow_step: Step, duration: str) -> None:
    step = slow_step
    began = time.monotonic()

    done = step.run("--timeout", duration, "ibm_fez", step.input, step.output)

    (task,) = step.tasks()
    assert done.returncode == TIMED_OUT
    assert 1 <= time.monotonic() - began < 60  # the task itself takes two minutes
    assert task.status.startswith("Cancelled")
    assert done.stderr.endswith(
        f"task_runner: Task {task.id} was not over after 1 s.\ntask_runner: task {task.id} is cancelled\n"
    )
    assert step.files() == {"input.json"}


def test_a_task_that_is_fast_enough_is_not(step: Step) -> None:
    assert step.run("--timeout", "1m", "ibm_fez", step.input, step.output).returncode == COMPLETED


# --json


def test_a_summary_says_what_became_of_the_task(step: Step) -> None:
    done = step.run("-q", "--json", "-", "ibm_fez", "input.json", "output.json")

    (task,) = step.tasks()
    summary = summary_of(done)
    (of_task,) = summary.pop("tasks")
    assert summary == {
        "version": 1,
        "qpu": "ibm_fez",
        "backend": "ibm_fez",
        "session_id": step.session_id,
        "slurm_job_id": "42",
        "exit_code": 0,
        "exit_reason": "completed",
        "message": "",
        "session_closing": None,
        "dry_run": None,
    }
    assert of_task["input"] == "input.json"
    assert of_task["output"] == "output.json"
    assert (of_task["task_id"], of_task["tags"]) == (task.id, list(task.tags))
    assert (of_task["exit_code"], of_task["exit_reason"], of_task["program_id"]) == (
        0,
        "completed",
        "sampler",
    )
    assert task.running_at is not None
    assert task.done_at is not None
    assert of_task["queue_seconds"] == pytest.approx(task.running_at - task.queued_at, abs=0.01)
    assert of_task["execution_seconds"] == pytest.approx(task.done_at - task.running_at, abs=0.01)
    assert of_task["quantum_seconds"] == pytest.approx(task.done_at - task.running_at, abs=0.01)
    assert of_task["total_seconds"] >= of_task["execution_seconds"]
    assert of_task["submitted_at"].endswith("Z")


def test_a_summary_may_be_a_file_and_is_there_when_the_task_fails(step: Step) -> None:
    step.write("input.json", sampler_input('OPENQASM 3.0;\ninclude "stdgates.inc";\nbit[1] c;\nh $0;\n'))

    done = step.run("--json", "summary.json", "ibm_fez", "input.json")

    summary = json.loads((step.directory / "summary.json").read_text(encoding="utf-8"))
    assert done.returncode == FAILED
    assert (done.stdout, summary["exit_code"], summary["exit_reason"]) == ("", 1, "failed")
    assert "h on qubits (0,)" in summary["tasks"][0]["message"]
    assert summary["tasks"][0]["execution_seconds"] is not None
    assert summary["tasks"][0]["output"] is None


ENDS: dict[str, tuple[list[str], Fault | None, int, str]] = {
    "bad input": (["--shots", "7", "ibm_fez", "estimator.json", "output.json"], None, BAD_INPUT, "bad_input"),
    "another QPU": (["ibm_torino", "input.json", "output.json"], None, REFUSED, "refused"),
    "denied": (
        ["ibm_fez", "input.json", "output.json"],
        Fault(method="POST", path="/jobs", status=403),
        REFUSED,
        "refused",
    ),
    "away": (
        ["ibm_fez", "input.json", "output.json"],
        Fault(method="POST", path="/jobs", status=429, retry_after="3600"),
        UNAVAILABLE,
        "unavailable",
    ),
    "no place": (["ibm_fez", "input.json", "missing/output.json"], None, OUTPUT, "output"),
}


@pytest.mark.parametrize(("arguments", "fault", "code", "reason"), ENDS.values(), ids=ENDS.keys())
def test_a_summary_gives_the_reason_of_every_exit_code(
    step: Step, arguments: list[str], fault: Fault | None, code: int, reason: str
) -> None:
    step.write("estimator.json", json.dumps(ESTIMATOR))
    if fault is not None:
        step.emulator.inject(fault)

    done = step.run("--json", "-", *arguments)

    summary = summary_of(done)
    assert (done.returncode, summary["exit_code"], summary["exit_reason"]) == (code, code, reason)
    messages = [summary["message"], *(task["message"] for task in summary["tasks"])]
    assert any(message and message in done.stderr for message in messages)
    assert step.qpu.api_key.reveal() not in done.stdout


@pytest.mark.parametrize(("how", "code", "reason"), [("signal", 6, "cancelled"), ("timeout", 7, "timed_out")])
def test_a_summary_of_a_task_that_was_cancelled(slow_step: Step, how: str, code: int, reason: str) -> None:
    step = slow_step
    options = ["--timeout", "1"] if how == "timeout" else []
    process = step.start("--json", "-", *options, "ibm_fez", step.input, step.output)
    step.wait_until_it_runs()
    if how == "signal":
        process.send_signal(signal.SIGINT)

    output, _ = process.communicate(timeout=240)

    summary = json.loads(output)
    (task,) = step.tasks()
    assert (process.returncode, summary["exit_code"], summary["exit_reason"]) == (code, code, reason)
    assert (summary["tasks"][0]["task_id"], summary["tasks"][0]["exit_reason"]) == (task.id, reason)


def test_a_summary_that_cannot_be_written_is_said_before_anything_is_submitted(step: Step) -> None:
    done = step.run("--json", "missing/summary.json", "ibm_fez", step.input, step.output)

    assert done.returncode == OUTPUT
    assert "missing/summary.json" in done.stderr
    assert step.tasks() == []


# --final


def test_the_session_of_the_last_task_closes_the_moment_it_ends(slow_step: Step) -> None:
    step = slow_step
    process = step.start("--final", "--json", "-", "ibm_fez", step.input, step.output)
    step.wait_until_it_runs()
    step.emulator.wait_for(lambda emulator: not emulator.sessions()[0].accepting_tasks)
    assert process.poll() is None
    assert step.emulator.sessions()[0].state == "active"
    step.emulator.advance(200)

    output, errors = process.communicate(timeout=240)

    events = {event.kind: event.time for event in step.emulator.events()}
    assert process.returncode == COMPLETED, errors
    assert f"session {step.session_id} takes no more tasks" in errors
    assert json.loads(output)["session_closing"] is True
    assert events[EventKind.SESSION_CLOSED] - events[EventKind.TASK_DONE] < 0.1
    assert step.run("ibm_fez", step.input, step.output).returncode == REFUSED


def test_a_session_that_cannot_be_closed_is_said_and_costs_nothing_else(step: Step) -> None:
    step.emulator.inject(Fault(method="PATCH", path="/sessions/*", status=403, times=None))

    done = step.run("-q", "--final", "--json", "-", "ibm_fez", step.input, step.output)

    assert done.returncode == COMPLETED
    assert done.stderr.startswith("task_runner: warning: the session stays open until the job ends: ")
    assert summary_of(done)["session_closing"] is False
    assert read_result(step.output)[0].data.c.num_shots == 100


def test_a_closing_whose_answer_is_lost_is_sent_again(step: Step) -> None:
    step.emulator.inject(Fault(method="PATCH", path="/sessions/*", drop=Drop.AFTER))

    done = step.run("-q", "--final", "ibm_fez", step.input, step.output)

    assert (done.returncode, done.stderr) == (COMPLETED, "")
    assert step.emulator.sessions()[0].state == "closed"


def test_a_last_task_that_was_not_submitted_leaves_the_session_open(step: Step) -> None:
    step.write("input.json", "{")

    done = step.run("--final", "--json", "-", "ibm_fez", step.input, step.output)

    assert done.returncode == BAD_INPUT
    assert summary_of(done)["session_closing"] is False
    assert step.emulator.sessions()[0].accepting_tasks


def test_a_last_task_may_be_cancelled(slow_step: Step) -> None:
    step = slow_step
    process = step.start("--final", "ibm_fez", step.input, step.output)
    step.wait_until_it_runs()
    step.emulator.wait_for(lambda emulator: not emulator.sessions()[0].accepting_tasks)
    process.send_signal(signal.SIGINT)

    _, errors = process.communicate(timeout=240)

    assert process.returncode == CANCELLED
    assert errors.splitlines()[-2] == "task_runner: stopped by SIGINT"
    assert step.emulator.sessions()[0].state == "closed"
