# SPDX-License-Identifier: Apache-2.0
"""Two controllers: whichever is active runs the hooks, and a takeover at any moment loses no session.

At a takeover Slurm kills the hooks that run, without a signal that they could catch, and the new controller
runs them again from the start. What a controller that was killed had not saved yet is lost, which no
software beside Slurm can change (docs/slurm-notes.md).
"""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING

import pytest

from qpu_slurm_devkit.cluster import Node
from qpu_slurm_devkit.emulator import Fault
from qpu_slurm_devkit.lab import Lab
from tests.cluster.conftest import CHECKOUT, OUTAGE, check_nothing_left
from tests.cluster.test_two_clusters import BELL

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="Two controllers take two host names, and so root.")

TASK = "task_runner ibm_fez input.json output.json\n"
HEAD = "#!/bin/sh\n#SBATCH --qpu=ibm_fez --time=5\nset -e\n"


@pytest.fixture(scope="module")
def shared() -> Iterator[Lab]:
    tables = OUTAGE.replace("acquire_timeout = 5", "acquire_timeout = 30")
    nodes = [Node(f"c{number}", "normal") for number in range(1, 5)]
    with Lab(CHECKOUT, tables=tables, nodes=nodes, second_controller=True) as lab:
        (lab.cluster.home() / "input.json").write_text(json.dumps(BELL))
        (lab.cluster.home() / "input.json").chmod(0o644)
        yield lab


@pytest.fixture
def lab(shared: Lab) -> Iterator[Lab]:
    """Return the lab; its first controller is active again afterwards, and nothing is left."""
    shared.emulator.reset()
    yield shared
    shared.cluster.start_what_is_down()
    # The second time that one process takes over, it kills each hook as it starts (docs/slurm-notes.md).
    shared.cluster.restart("slurmctld2")
    check_nothing_left(shared)


def in_order(lab: Lab) -> None:
    lab.cluster.take_over()


def killed(lab: Lab) -> None:
    """The second one notices after SlurmctldTimeout; what the first one did last, it had not saved yet."""
    time.sleep(_SAVED)
    lab.cluster.kill("slurmctld")


_SAVED = 8
"""Seconds after which slurmctld has surely written a change of a job into its state (within 5)."""

TAKEOVERS = pytest.mark.parametrize("take_over", [in_order, killed])


@TAKEOVERS
def test_a_job_that_starts_at_a_takeover_has_one_session(lab: Lab, take_over: Callable[[Lab], None]) -> None:
    lab.emulator.inject(
        Fault(method="POST", path="/sessions", late=4 if take_over is in_order else _SAVED + 4)
    )
    job = lab.submit(f"{HEAD}{TASK}")
    lab.emulator.wait_for(lambda emulator: not emulator.faults(), seconds=60)
    take_over(lab)
    assert lab.wait(job) == "COMPLETED", lab.cluster.output(job)
    # What the prolog that was killed had asked for may be given back before the next one asks.
    *given_back, used = lab.emulator.sessions()
    assert len(given_back) <= 1
    assert all(session.state == "closed" for session in given_back)
    assert [task.session_id for task in lab.emulator.tasks()] == [used.id]


@TAKEOVERS
def test_a_takeover_while_a_job_runs_is_not_noticed(lab: Lab, take_over: Callable[[Lab], None]) -> None:
    go = lab.cluster.home() / f"go-{take_over.__name__}"
    job = lab.submit(f"{HEAD}{TASK}echo ready\nwhile [ ! -e {go} ]; do sleep 0.1; done\nsrun {TASK}")
    lab.emulator.wait_for(lambda _: "ready" in lab.cluster.output(job), seconds=60)
    take_over(lab)
    go.touch()
    assert lab.wait(job) == "COMPLETED", lab.cluster.output(job)
    assert len(lab.emulator.sessions()) == 1


def test_a_takeover_while_a_job_ends_closes_its_session(lab: Lab) -> None:
    lab.emulator.inject(Fault(method="DELETE", path="/sessions/*/close", late=3))
    job = lab.submit(f"{HEAD}true\n")
    lab.emulator.wait_for(lambda emulator: not emulator.faults(), seconds=60)
    in_order(lab)
    assert lab.wait(job) == "COMPLETED", lab.cluster.output(job)


def test_the_first_controller_takes_its_place_again(lab: Lab) -> None:
    lab.cluster.take_over()
    first = lab.submit(f"{HEAD}{TASK}")
    assert lab.wait(first) == "COMPLETED", lab.cluster.output(first)
    lab.cluster.restart("slurmctld")
    second = lab.submit(f"{HEAD}{TASK}")
    assert lab.wait(second) == "COMPLETED", lab.cluster.output(second)
    assert len(lab.emulator.sessions()) == 2
