# SPDX-License-Identifier: Apache-2.0
"""task_runner with several inputs: in one session, in order, and never twice what is done."""

from __future__ import annotations

import json
import signal
import time
from typing import TYPE_CHECKING, Any

import pytest

from qpu_slurm import read_result
from qpu_slurm_devkit.emulator import Drop, Emulator, Fault
from tests.integration.steps import Step, sampler_input

if TYPE_CHECKING:
    from pathlib import Path

COMPLETED, FAILED, BAD_INPUT, REFUSED, UNAVAILABLE, OUTPUT, CANCELLED, TIMED_OUT = range(8)

NAMES = ("a.json", "b.json", "c.json")


@pytest.fixture
def many(step: Step) -> Step:
    return prepared(step)


@pytest.fixture
def slow_many(slow_step: Step) -> Step:
    return prepared(slow_step)


def prepared(step: Step) -> Step:
    """Write three inputs, each of which takes as many shots as its place says."""
    step.input.unlink()
    for shots, name in enumerate(NAMES, 1):
        step.write(
            name, sampler_input(pubs=[[json.loads(sampler_input())["parameters"]["pubs"][0][0], None, shots]])
        )
    return step


def results(step: Step) -> dict[str, int]:
    """Say how many shots each result has."""
    return {
        path.name: read_result(path)[0].data.c.num_shots
        for path in sorted((step.directory / "out").glob("*.json"))
    }


def reasons(text: str) -> list[str]:
    return [task["exit_reason"] for task in json.loads(text)["tasks"]]


def record(step: Step, name: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(
        (step.directory / "out" / f"{name}.task").read_text(encoding="utf-8")
    )
    return document


@pytest.mark.parametrize("jobs", [[], ["--jobs", "1"], ["--jobs", "3"]], ids=["as it is", "1", "3"])
def test_each_result_gets_its_inputs_name(many: Step, jobs: list[str]) -> None:
    done = many.run("ibm_fez", *jobs, "--output-dir", "out", *NAMES)

    tasks = many.tasks()
    assert done.returncode == COMPLETED, done.stderr
    assert results(many) == {"a.json": 1, "b.json": 2, "c.json": 3}
    assert {task.session_id for task in tasks} == {many.session_id}
    assert [task.id for task in tasks] == [record(many, name)["task_id"] for name in NAMES]  # in order
    assert done.stdout == ""
    assert done.stderr.endswith("task_runner: 3 of 3 completed\n")
    assert f"task_runner: b.json: submitted task {tasks[1].id}\n" in done.stderr


@pytest.mark.parametrize("jobs", [1, 2, 3])
def test_so_many_tasks_are_with_the_service_at_once(slow_many: Step, jobs: int) -> None:
    step = slow_many
    process = step.start("--jobs", jobs, "--output-dir", "out", "ibm_fez", *NAMES)
    step.emulator.wait_for(lambda emulator: len(emulator.tasks()) >= jobs)
    time.sleep(0.3)
    assert len(step.tasks()) == jobs
    for _ in NAMES:
        step.wait_until_it_runs()
        step.emulator.advance(121)
        time.sleep(0.2)

    _, errors = process.communicate(timeout=240)
    assert process.returncode == COMPLETED, errors


def test_what_is_done_is_not_done_again(many: Step) -> None:
    assert many.run("ibm_fez", "--output-dir", "out", "a.json", "b.json").returncode == COMPLETED

    done = many.run("ibm_fez", "--output-dir", "out", "--json", "-", *NAMES)

    assert done.returncode == COMPLETED, done.stderr
    assert reasons(done.stdout) == ["already_done", "already_done", "completed"]
    assert len(many.tasks()) == 3
    assert f"a.json: done before, by task {many.tasks()[0].id}" in done.stderr
    assert done.stderr.endswith("task_runner: 3 of 3 completed (2 of them before)\n")


@pytest.mark.parametrize("change", ["input", "shots", "record", "damaged record"])
def test_what_is_not_the_same_is_done_again(many: Step, change: str) -> None:
    assert many.run("ibm_fez", "--output-dir", "out", "a.json").returncode == COMPLETED
    beside = many.directory / "out" / "a.json.task"
    if change == "input":
        many.write("a.json", (many.directory / "b.json").read_text(encoding="utf-8"))
    elif change == "record":
        beside.unlink()
    elif change == "damaged record":
        beside.write_text('{"input_sha256": ', encoding="utf-8")

    options = ["--shots", "9"] if change == "shots" else []
    done = many.run("ibm_fez", *options, "--output-dir", "out", "a.json")

    assert done.returncode == COMPLETED, done.stderr
    assert len(many.tasks()) == 2
    assert results(many) == {"a.json": {"input": 2, "shots": 9}.get(change, 1)}


@pytest.mark.parametrize("damage", ["gone", "cut"])
def test_a_result_that_is_lost_is_fetched_again_and_costs_no_task(many: Step, damage: str) -> None:
    assert many.run("ibm_fez", "--output-dir", "out", "a.json").returncode == COMPLETED
    result = many.directory / "out" / "a.json"
    if damage == "gone":
        result.unlink()
    else:
        result.write_bytes(result.read_bytes()[:20])

    done = many.run("ibm_fez", "--output-dir", "out", "a.json")

    assert done.returncode == COMPLETED, done.stderr
    assert "was submitted before: no other is" in done.stderr
    assert results(many) == {"a.json": 1}
    assert len(many.tasks()) == 1


def test_a_task_that_was_left_behind_is_found_again(slow_many: Step) -> None:
    step = slow_many
    killed = step.start("ibm_fez", "--jobs", "1", "--output-dir", "out", "a.json")
    step.wait_until_it_runs()
    record = step.directory / "out" / "a.json.task"
    step.emulator.wait_for(lambda _: record.exists() and record.stat().st_size)
    killed.kill()
    killed.communicate(timeout=240)
    process = step.start("ibm_fez", "--output-dir", "out", "a.json")
    time.sleep(1)
    step.emulator.advance(200)

    _, errors = process.communicate(timeout=240)

    (task,) = step.tasks()
    assert process.returncode == COMPLETED, errors
    assert f"a.json: task {task.id} was submitted before: no other is" in errors
    assert (step.directory / "out" / "a.json").exists()


def test_a_task_that_was_cancelled_is_executed_anew(slow_many: Step) -> None:
    step = slow_many
    assert step.run("--timeout", "1", "ibm_fez", "--output-dir", "out", "a.json").returncode == TIMED_OUT
    process = step.start("ibm_fez", "--output-dir", "out", "a.json")
    step.wait_until_it_runs()
    step.emulator.advance(200)

    _, errors = process.communicate(timeout=240)

    assert process.returncode == COMPLETED, errors
    assert len(step.tasks()) == 2


def test_one_that_fails_keeps_the_others_from_nothing(many: Step) -> None:
    many.write("b.json", "{")
    many.write("wrong.json", sampler_input('OPENQASM 3.0;\ninclude "stdgates.inc";\nbit[1] c;\nh $0;\n'))

    done = many.run("ibm_fez", "--output-dir", "out", "--json", "-", "wrong.json", *NAMES)

    assert done.returncode == BAD_INPUT  # the highest of 1, 0, 2, 0
    assert reasons(done.stdout) == ["failed", "completed", "bad_input", "completed"]
    assert results(many) == {"a.json": 1, "c.json": 3}
    assert "task_runner: b.json: this is not JSON" in done.stderr
    assert done.stderr.endswith("task_runner: 2 of 4 completed\n")


def test_a_session_that_is_closed_keeps_the_others_from_being_tried(many: Step) -> None:
    many.emulator.close_session(many.session_id)

    done = many.run("ibm_fez", "--output-dir", "out", "--json", "-", *NAMES)

    assert done.returncode == REFUSED
    assert reasons(done.stdout) == ["refused", "not_executed", "not_executed"]
    assert done.stderr.endswith("task_runner: 0 of 3 completed, 2 not executed\n")
    assert many.tasks() == []


def test_a_refusal_of_one_input_is_that_inputs_alone(many: Step) -> None:
    many.emulator.inject(Fault(method="POST", path="/jobs", status=400))

    done = many.run("ibm_fez", "--output-dir", "out", "--json", "-", *NAMES)

    assert done.returncode == REFUSED
    assert reasons(done.stdout) == ["refused", "completed", "completed"]


def test_a_place_that_cannot_be_written_is_that_inputs_alone(many: Step) -> None:
    (many.directory / "out" / "b.json").mkdir(parents=True)

    done = many.run("ibm_fez", "--output-dir", "out", "--json", "-", *NAMES)

    assert done.returncode == OUTPUT
    assert reasons(done.stdout) == ["completed", "output", "completed"]


def test_a_directory_that_cannot_be_made_is_said_before_anything_is_submitted(many: Step) -> None:
    done = many.run("ibm_fez", "--output-dir", "a.json/out", *NAMES)

    assert done.returncode == OUTPUT
    assert "The directory a.json/out cannot be made" in done.stderr
    assert many.tasks() == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["a.json", "b.json", "c.json"], "--output-dir DIR INPUT..."),
        (["--output-dir", "out", "-"], "'-' is not a file"),
        (["--output-dir", "out", "a.json", "other/a.json"], "have the same name"),
        (["--output-dir", ".", "a.json"], "the result of a.json would replace it"),
        (["--output-dir", "out", "--jobs", "0", "a.json"], "is not a positive number"),
        (["--output-dir", "out"], "required"),
    ],
)
def test_bad_usage(many: Step, arguments: list[str], words: str) -> None:
    done = many.run("ibm_fez", *arguments)

    assert done.returncode == BAD_INPUT
    assert words in done.stderr
    assert many.tasks() == []


def test_a_signal_cancels_what_was_submitted_and_says_what_was_not(slow_many: Step) -> None:
    step = slow_many
    process = step.start("--json", "-", "ibm_fez", "--jobs", "2", "--output-dir", "out", *NAMES)
    step.emulator.wait_for(lambda emulator: len(emulator.tasks()) == 2)
    step.wait_until_it_runs()
    process.send_signal(signal.SIGTERM)

    output, errors = process.communicate(timeout=240)

    first, second = step.tasks()
    assert process.returncode == CANCELLED
    assert (first.status[:9], second.status[:9]) == ("Cancelled", "Cancelled")
    assert errors.endswith(
        "task_runner: stopped by SIGTERM\n"
        f"task_runner: a.json: task {first.id} is cancelled\n"
        f"task_runner: b.json: task {second.id} is cancelled\n"
    )
    assert reasons(output) == ["cancelled", "cancelled", "not_executed"]
    assert {path.name for path in (step.directory / "out").iterdir()} == {"a.json.task", "b.json.task"}


def test_a_second_signal_ends_at_once_and_leaves_no_draft(slow_many: Step) -> None:
    step = slow_many
    step.emulator.inject(Fault(method="POST", path="/jobs/*/cancel", delay=60, times=None))
    process = step.start("ibm_fez", "--output-dir", "out", *NAMES)
    step.emulator.wait_for(lambda emulator: len(emulator.tasks()) == 2)
    step.wait_until_it_runs()
    time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    time.sleep(1)
    sent = time.monotonic()
    process.send_signal(signal.SIGTERM)

    _, errors = process.communicate(timeout=240)

    assert process.returncode == CANCELLED
    assert time.monotonic() - sent < 20  # nobody waits for the service
    assert errors.count("may still run: it ends with its session") == 2
    assert {path.name for path in (step.directory / "out").iterdir()} == {"a.json.task", "b.json.task"}


def test_a_timeout_does_not_count_the_wait_behind_ones_own_tasks(tmp_path: Path) -> None:
    with Emulator(result_bytes=200, task_seconds=2) as emulator, Step(emulator, tmp_path) as step:
        done = prepared(step).run("--timeout", "5", "ibm_fez", "--jobs", "3", "--output-dir", "out", *NAMES)

    assert done.returncode == COMPLETED, done.stderr


LOST = {
    "submission, after it took effect": Fault(method="POST", path="/jobs", drop=Drop.AFTER, skip=1),
    "submission, before it took effect": Fault(method="POST", path="/jobs", drop=Drop.BEFORE, skip=1),
    "state": Fault(method="GET", path="/jobs/*", drop=Drop.BEFORE, times=3),
    "result": Fault(method="GET", path="/jobs/*/results", drop=Drop.BEFORE, skip=1),
}


@pytest.mark.parametrize("fault", LOST.values(), ids=LOST.keys())
def test_a_fault_that_passes_costs_neither_a_task_nor_a_second_one(many: Step, fault: Fault) -> None:
    many.emulator.inject(fault)

    done = many.run("ibm_fez", "--output-dir", "out", *NAMES)

    assert done.returncode == COMPLETED, done.stderr
    assert results(many) == {"a.json": 1, "b.json": 2, "c.json": 3}
    assert len(many.tasks()) == 3


def test_the_session_closes_behind_the_last_of_them(slow_many: Step) -> None:
    step = slow_many
    process = step.start("--final", "ibm_fez", "--jobs", "1", "--output-dir", "out", *NAMES)
    for done in range(len(NAMES)):
        while len(step.tasks()) == done:
            time.sleep(0.02)
        step.wait_until_it_runs()
        if done == len(NAMES) - 1:
            step.emulator.wait_for(lambda emulator: not emulator.sessions()[0].accepting_tasks)
        assert step.emulator.sessions()[0].accepting_tasks is (done < len(NAMES) - 1)
        step.emulator.advance(121)

    _, errors = process.communicate(timeout=240)

    assert process.returncode == COMPLETED, errors
    assert step.emulator.sessions()[0].state == "closed"
    assert errors.count("takes no more tasks") == 1


def test_the_session_closes_if_all_was_done_before(many: Step) -> None:
    assert many.run("ibm_fez", "--output-dir", "out", *NAMES).returncode == COMPLETED
    assert many.emulator.sessions()[0].state == "active"

    assert many.run("--final", "ibm_fez", "--output-dir", "out", *NAMES).returncode == COMPLETED

    assert many.emulator.sessions()[0].state == "closed"
