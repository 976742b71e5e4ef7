# SPDX-License-Identifier: Apache-2.0
"""Messages are sentences, whatever the words are that they quote."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qpu_slurm.errors import (
    ConfigError,
    JournalError,
    MustWaitError,
    QpuSlurmError,
    RefusedError,
    RequestError,
    SlurmAwayError,
    SlurmError,
    UnavailableError,
    sentences,
)
from qpu_slurm.hooks.step import NO_ANSWER_YET, Printed
from qpu_slurm.providers.base import Features, Task, TaskStatus
from qpu_slurm.tasks.execution import Execution

if TYPE_CHECKING:
    from qpu_slurm.providers.base import Provider

REASON = "The instruction h on qubits (0,) is not supported."


@pytest.mark.parametrize(
    ("message", "advice", "sentence"),
    [
        ("Session is closed", "Open another", "Session is closed. Open another."),
        ("Session is closed.", "Open another..", "Session is closed. Open another."),
        ("Is it up?", "", "Is it up?"),
        ("No.", "No.", "No."),
        ("", "Wait", "Wait."),
    ],
)
def test_what_the_service_says_has_one_full_stop(message: str, advice: str, sentence: str) -> None:
    assert str(RefusedError(message, advice=advice)) == sentence


@given(st.lists(st.text()))
def test_sentences_end_once(texts: list[str]) -> None:
    joined = sentences(*texts)

    assert not joined.endswith(("..", " ."))
    assert sentences(joined) == joined


def test_a_reason_that_is_a_sentence_stays_one() -> None:
    assert str(MustWaitError("ibm_fez is not available now: back at noon.")).endswith("noon.")


@pytest.mark.parametrize(
    ("log", "left"),
    [
        (f"{REASON}\n", []),
        ("The instruction h on qubits\n(0,) is not supported\n", []),
        (f"2 qubits in use\n{REASON}\n\n", ["2 qubits in use"]),
        (f"Traceback:\n  line 1\nInvalidInput: {REASON}\n", ["Traceback:", "  line 1"]),
        ("2 qubits in use\n", ["2 qubits in use"]),
        ("", []),
    ],
    ids=["nothing else", "over two lines", "at the end", "a traceback", "not in it", "no log"],
)
def test_a_log_does_not_repeat_the_reason(log: str, left: list[str]) -> None:
    class Service:
        features = Features(sessions=True, keeps_tasks=False)
        waits = False

        def task(self, task_id: str) -> Task:
            return Task(id=task_id, status=TaskStatus.FAILED, reason=REASON)

        def logs(self, task_id: str) -> str:
            assert task_id == "task"
            return log

    execution = Execution(cast("Provider", Service()))
    execution.adopt("task")
    execution.poll()

    assert execution.log_tail() == left


@pytest.mark.parametrize("error", [ConfigError("config.toml: no."), SlurmError("squeue: no such file.")])
def test_what_lies_with_the_node_names_it(error: QpuSlurmError) -> None:
    assert Printed.of(error) == (f"error: {os.uname().nodename}: {error}\n", 0)


def test_what_lies_with_the_job_names_no_node() -> None:
    assert Printed.of(RequestError("There is no QPU.")) == ("error: There is no QPU.\n", 0)


@pytest.mark.parametrize("error", [UnavailableError("The gateway is away."), SlurmAwayError("No answer.")])
def test_a_step_waits_for_who_may_come_back(error: QpuSlurmError) -> None:
    assert Printed.of(error) == (f"wait: {os.uname().nodename}: {error}\n", NO_ANSWER_YET)


def test_a_step_waits_for_the_journal() -> None:
    assert Printed.of(JournalError("The journal is locked.")) == (
        "wait: The journal is locked.\n",
        NO_ANSWER_YET,
    )
