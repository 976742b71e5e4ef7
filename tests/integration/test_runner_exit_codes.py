# SPDX-License-Identifier: Apache-2.0
"""task_runner's exit codes and signals: every one is a contract (docs/task_runner.md)."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from qpu_slurm.system.secret import Secret
from qpu_slurm_devkit.emulator import Fault
from tests.integration.steps import TASK_RUNNER, Step, sampler_input

if TYPE_CHECKING:
    from pathlib import Path

COMPLETED, FAILED, BAD_INPUT, REFUSED, UNAVAILABLE, OUTPUT, CANCELLED, INTERNAL = (0, 1, 2, 3, 4, 5, 6, 70)


# 0


def test_completed(step: Step) -> None:
    assert step.run("ibm_fez", step.input, step.output).returncode == COMPLETED


# 1


def test_failed_on_the_qpu(step: Step) -> None:
    step.write("input.json", sampler_input('OPENQASM 3.0;\ninclude "stdgates.inc";\nbit[1] c;\nh $0;\n'))
    step.write("output.json", "old")

    done = step.run("ibm_fez", step.input, step.output)

    (task,) = step.tasks()
    assert done.returncode == FAILED
    assert f"task_runner: task {task.id} failed. " in done.stderr
    assert done.stderr.count("The instruction h on qubits (0,) is not supported by the target system") == 1
    assert step.output.read_text(encoding="utf-8") == "old"
    assert step.files() == {"input.json", "output.json"}


# 2


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["ibm_fez"],
        ["ibm_fez", "a", "b", "c"],
        ["--nonsense", "ibm_fez", "a"],
        ["-q", "-v", "ibm_fez", "a"],
    ],
    ids=" ".join,
)
def test_bad_usage(step: Step, arguments: list[str]) -> None:
    done = step.run(*arguments)
    assert (done.returncode, done.stderr[:18]) == (BAD_INPUT, "usage: task_runner")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "The input bad.json cannot be read: No such file or directory"),
        ("", "bad.json: it is empty"),
        ('{"program_id": "sampler"}', "bad.json: object missing required field `parameters`"),
        (sampler_input("H 0"), "bad.json: parameters.pubs[0][0]: the text does not begin with"),
        (sampler_input(version=1), "bad.json: parameters.version: "),
    ],
    ids=["missing", "empty", "half an envelope", "no circuit", "an old version"],
)
def test_a_bad_input_is_not_submitted(step: Step, text: str | None, words: str) -> None:
    if text is not None:
        step.write("bad.json", text)

    done = step.run("ibm_fez", "bad.json", step.output)

    assert done.returncode == BAD_INPUT
    assert done.stderr.startswith(f"task_runner: {words}")
    assert done.stderr.endswith("task_runner: nothing was submitted\n")
    assert step.tasks() == []
    assert step.files() <= {"input.json", "bad.json"}


def test_a_bad_input_from_stdin(step: Step) -> None:
    done = step.run("ibm_fez", "-", step.output, stdin="{")
    assert (done.returncode, "standard input: this is not JSON" in done.stderr) == (BAD_INPUT, True)


# 3


def test_a_job_without_a_qpu_is_refused(step: Step) -> None:
    job = {"SLURM_JOB_ID": "42", "SLURMD_NODENAME": "c1"}
    done = step.run("ibm_fez", step.input, step.output, environ={"PATH": os.environ["PATH"], **job})

    assert done.returncode == REFUSED
    assert "This job has no QPU" in done.stderr


def test_a_job_with_another_qpu_is_refused(step: Step) -> None:
    done = step.run("ibm_torino", step.input, step.output)

    assert done.returncode == REFUSED
    assert "This job has no QPU 'ibm_torino', only ibm_fez." in done.stderr


def test_a_job_that_holds_no_session_is_refused(step: Step) -> None:
    done = step.run("ibm_fez", step.input, step.output, environ=step.variables(session_id=None))

    assert done.returncode == REFUSED
    assert "--gres=qpu:1" in done.stderr


def test_a_wrong_key_is_refused(step: Step) -> None:
    environ = step.variables(session_id=step.session_id, api_key=Secret("made-up-and-wrong"))

    done = step.run("ibm_fez", step.input, step.output, environ=environ)

    assert done.returncode == REFUSED
    assert "made-up-and-wrong" not in done.stderr
    assert done.stderr.endswith("task_runner: nothing was submitted\n")


def test_a_closed_session_is_refused(step: Step) -> None:
    step.emulator.close_session(step.session_id)

    done = step.run("ibm_fez", step.input, step.output)

    assert done.returncode == REFUSED
    assert "session" in done.stderr.lower()
    assert step.files() == {"input.json"}


def test_a_denied_access_is_refused(step: Step) -> None:
    step.emulator.inject(Fault(method="POST", path="/jobs", status=403))
    assert step.run("ibm_fez", step.input, step.output).returncode == REFUSED


# 4


@pytest.mark.parametrize(
    ("path", "status", "fate"),
    [
        ("/identity/token", 503, "nothing was submitted"),
        ("/jobs", 429, "nothing was submitted"),
        ("/jobs/*/results", 503, "its result stays with the service"),
    ],
)
def test_a_service_that_asks_to_come_again_much_later_is_unavailable(
    step: Step, path: str, status: int, fate: str
) -> None:
    step.emulator.inject(Fault(path=path, status=status, retry_after="3600", times=None))

    done = step.run("ibm_fez", step.input, step.output)

    assert done.returncode == UNAVAILABLE
    assert fate in done.stderr.splitlines()[-1]
    assert step.files() == {"input.json"}


# 5


@pytest.mark.parametrize("output", ["missing/output.json", ".", "input.json/output.json"])
def test_an_output_that_cannot_be_written_is_said_before_anything_is_submitted(
    step: Step, output: str
) -> None:
    done = step.run("ibm_fez", step.input, output)

    assert done.returncode == OUTPUT
    assert f"The result cannot be written to {output}: " in done.stderr
    assert done.stderr.endswith("task_runner: nothing was submitted\n")
    assert step.tasks() == []


def test_a_disk_that_is_full_is_said_with_where_the_result_still_is(step: Step) -> None:
    done = step.run("ibm_fez", step.input, "/dev/full")

    (task,) = step.tasks()
    assert done.returncode == OUTPUT
    assert "The result cannot be written to /dev/full: No space left on device." in done.stderr
    assert f"QiskitRuntimeService().job('{task.id}').result()" in done.stderr


def test_a_stdout_that_nobody_reads_is_said_before_anything_is_submitted(step: Step) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    process = step.start("ibm_fez", step.input, stdout=writing)
    os.close(writing)

    _, errors = process.communicate(timeout=240)

    assert process.returncode == OUTPUT
    assert "standard output: nobody reads it." in errors
    assert step.tasks() == []


def test_a_stdout_that_is_closed_is_said_before_anything_is_submitted(step: Step) -> None:
    command = f"exec {TASK_RUNNER} ibm_fez {step.input} >&-"

    done = subprocess.run(
        ["/bin/sh", "-c", command], env=step.environ, stderr=subprocess.PIPE, text=True, check=False
    )

    assert done.returncode == OUTPUT, done.stderr
    assert step.tasks() == []


def test_a_stdout_that_is_closed_later_is_said(slow_step: Step) -> None:
    step = slow_step
    reading, writing = os.pipe()
    process = step.start("ibm_fez", step.input, stdout=writing)
    os.close(writing)
    step.wait_until_it_runs()
    os.close(reading)
    step.emulator.advance(200)

    _, errors = process.communicate(timeout=240)

    assert process.returncode == OUTPUT, errors
    assert "standard output: Broken pipe." in errors
    assert "Traceback" not in errors


# 6


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP"])
def test_a_signal_cancels_the_task_at_once_and_says_so(slow_step: Step, name: str) -> None:
    step = slow_step
    process = step.start("ibm_fez", step.input, step.output)
    step.wait_until_it_runs()
    sent = time.monotonic()
    process.send_signal(signal.Signals[name])

    _, errors = process.communicate(timeout=240)

    (task,) = step.tasks()
    assert process.returncode == CANCELLED
    assert time.monotonic() - sent < 60  # the task itself takes two minutes
    assert task.status.startswith("Cancelled")
    assert errors.endswith(f"task_runner: stopped by {name}\ntask_runner: task {task.id} is cancelled\n")
    assert step.files() == {"input.json"}


def test_a_signal_during_the_submission_leaves_no_task_behind(slow_step: Step) -> None:
    step = slow_step
    before = len(step.emulator.requests())
    step.emulator.inject(Fault(method="POST", path="/jobs", delay=1))
    process = step.start("ibm_fez", step.input, step.output)
    step.emulator.wait_for(lambda emulator: len(emulator.requests()) > before)  # it has its token
    time.sleep(0.3)  # and its submission is on the way
    process.send_signal(signal.SIGTERM)

    process.communicate(timeout=240)

    (task,) = step.tasks()
    assert process.returncode == CANCELLED
    assert task.status.startswith("Cancelled")


def test_a_signal_before_the_submission_submits_nothing(step: Step) -> None:
    process = step.start("ibm_fez", "-", step.output)
    time.sleep(1)  # it waits for its input
    process.send_signal(signal.SIGTERM)

    _, errors = process.communicate(timeout=240)

    assert process.returncode == CANCELLED
    assert errors == "task_runner: stopped by SIGTERM\ntask_runner: nothing was submitted\n"
    assert step.tasks() == []


def test_a_second_signal_ends_at_once(slow_step: Step) -> None:
    step = slow_step
    step.emulator.inject(Fault(method="POST", path="/jobs/*/cancel", delay=60))
    process = step.start("ibm_fez", step.input, step.output)
    step.wait_until_it_runs()
    process.send_signal(signal.SIGTERM)
    time.sleep(1)
    assert process.poll() is None
    sent = time.monotonic()
    process.send_signal(signal.SIGTERM)

    _, errors = process.communicate(timeout=240)

    assert process.returncode == CANCELLED
    assert time.monotonic() - sent < 20  # the service is not waited for
    assert "may still run: it ends with its session" in errors
    assert step.files() == {"input.json"}


def test_a_service_that_does_not_answer_delays_the_end_by_ten_seconds(slow_step: Step) -> None:
    step = slow_step
    step.emulator.inject(Fault(method="POST", path="/jobs/*/cancel", delay=60))
    process = step.start("ibm_fez", step.input, step.output)
    step.wait_until_it_runs()
    process.send_signal(signal.SIGTERM)

    _, errors = process.communicate(timeout=40)

    assert process.returncode == CANCELLED
    assert "may still run: it ends with its session" in errors
    assert step.files() == {"input.json"}


def test_a_task_that_cannot_be_cancelled_is_said(slow_step: Step) -> None:
    step = slow_step
    step.emulator.inject(Fault(method="POST", path="/jobs/*/cancel", status=403, times=None))
    process = step.start("ibm_fez", step.input, step.output)
    step.wait_until_it_runs()
    process.send_signal(signal.SIGTERM)

    _, errors = process.communicate(timeout=240)

    assert process.returncode == CANCELLED
    assert "It could not be cancelled: " in errors


def test_sigcont_means_nothing(slow_step: Step) -> None:
    step = slow_step
    process = step.start("ibm_fez", step.input, step.output)
    step.wait_until_it_runs()
    process.send_signal(signal.SIGCONT)
    time.sleep(0.3)
    assert process.poll() is None
    step.emulator.advance(200)

    process.communicate(timeout=240)

    assert process.returncode == COMPLETED


def test_a_task_that_the_service_cancels(slow_step: Step) -> None:
    step = slow_step
    process = step.start("ibm_fez", step.input, step.output)
    step.wait_until_it_runs()
    step.provider.cancel_task(step.tasks()[0].id)

    _, errors = process.communicate(timeout=240)

    assert process.returncode == CANCELLED, errors
    assert "was cancelled on the service's side." in errors


# 70


def test_an_error_of_its_own_cancels_the_task_and_asks_for_a_report(slow_step: Step, tmp_path: Path) -> None:
    step = slow_step
    library = tmp_path / "library"
    library.mkdir()
    (library / "sitecustomize.py").write_text(
        "import time\n"
        "from qpu_slurm.tasks import execution\n"
        "def broken(*_, **__):\n"
        "    time.sleep(0.2)\n"
        "    return 1 / 0\n"
        "execution.Execution._pause = broken\n",
        encoding="utf-8",
    )

    done = step.run("ibm_fez", step.input, step.output, environ=step.environ | {"PYTHONPATH": str(library)})

    (task,) = step.tasks()
    assert done.returncode == INTERNAL
    assert "an error of task_runner itself: ZeroDivisionError: division by zero" in done.stderr
    assert "please report it, with these lines:\nTraceback" in done.stderr
    assert f"task {task.id} is cancelled" in done.stderr
    assert task.status.startswith("Cancelled")
