# SPDX-License-Identifier: Apache-2.0
"""task_runner in steps of several tasks; tests/cluster has srun start them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.integration.steps import sampler_input

if TYPE_CHECKING:
    from tests.integration.steps import Step

COMPLETED, BAD_INPUT = 0, 2


def of_four(step: Step, number: int = 0) -> dict[str, str]:
    return step.environ | {"SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": str(number)}


@pytest.mark.parametrize(
    "arguments",
    [["input.json", "output.json"], ["input.json"], ["--output-dir", "results", "input.json"]],
    ids=["a file", "standard output", "a directory"],
)
def test_one_output_for_all_is_refused(step: Step, arguments: list[str]) -> None:
    done = step.run("ibm_fez", *arguments, environ=of_four(step))
    assert (done.returncode, done.stdout) == (BAD_INPUT, "")
    assert "this step has 4 tasks" in done.stderr
    assert "srun --ntasks=1 task_runner" in done.stderr
    assert step.tasks() == []
    assert step.files() == {"input.json"}


def test_each_has_an_input_and_an_output_of_its_own(step: Step) -> None:
    for number in (0, 3):
        step.write(f"in-{number}.json", sampler_input())
        done = step.run(
            "ibm_fez", "in-%t.json", "out-%t.json", "--json", "%t.log", environ=of_four(step, number)
        )
        assert done.returncode == COMPLETED, done.stderr
    assert step.files() >= {"out-0.json", "out-3.json", "0.log", "3.log"}
    assert len(step.tasks()) == 2


def test_each_has_a_directory_of_its_own(step: Step) -> None:
    done = step.run("ibm_fez", "--output-dir=results-%t", "input.json", environ=of_four(step, 2))
    assert done.returncode == COMPLETED, done.stderr
    assert (step.directory / "results-2" / "input.json").exists()


def test_who_means_it_says_so(step: Step) -> None:
    done = step.run("ibm_fez", "input.json", "output.json", "--each-task", environ=of_four(step))
    assert done.returncode == COMPLETED, done.stderr
    done = step.run("ibm_fez", "--dry-run", "input.json", environ=of_four(step))
    assert done.returncode == COMPLETED, done.stderr


@pytest.mark.parametrize("tasks", ["1", "0", "", "many", "²"])
def test_elsewhere_nothing_is_asked_for(step: Step, tasks: str) -> None:
    environ = step.environ | {"SLURM_STEP_NUM_TASKS": tasks, "SLURM_NTASKS": "4", "SLURM_PROCID": "0"}
    done = step.run("ibm_fez", "input.json", "output-%t.json", environ=environ)
    assert done.returncode == COMPLETED, done.stderr
    assert (step.directory / "output-0.json").exists()
