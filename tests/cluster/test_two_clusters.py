# SPDX-License-Identifier: Apache-2.0
"""Two clusters that use one account: what happens on the one is nothing to the other.

Both have the same name, and count their jobs from 1, so that all that a job is called by is alike.
"""

from __future__ import annotations

import json
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from qpu_slurm_devkit.cluster import Node
from qpu_slurm_devkit.emulator import Account, Emulator
from qpu_slurm_devkit.lab import Lab
from tests.cluster.conftest import CHECKOUT, check_nothing_left

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BATCH = "#!/bin/sh\n#SBATCH --qpu=ibm_fez --qpu-session=task --time=5\nset -e\n"
TASK = "task_runner ibm_fez input.json output.json\n"
BELL = {
    "program_id": "sampler",
    "parameters": {
        "pubs": [
            ['OPENQASM 3.0; include "stdgates.inc"; bit[1] meas; x $0; meas[0] = measure $0;', None, 100]
        ],
        "version": 2,
        "support_qiskit": False,
        "options": {},
    },
}
NODE = Node("c1", "normal")


@pytest.fixture
def labs() -> Iterator[tuple[Lab, Lab]]:
    """Start two clusters, without a gateway, on one account of one service."""
    with (
        Emulator(accounts=(Account.premium("shared"),), backends=("ibm_fez",)) as emulator,
        ExitStack() as stack,
    ):
        one, other = (
            stack.enter_context(
                Lab(CHECKOUT, credentials="user", emulator=emulator, qpus=("ibm_fez",), nodes=(NODE,))
            )
            for _ in range(2)
        )
        yield one, other
        for lab in (one, other):
            check_nothing_left(lab)


def submit(lab: Lab, script: str) -> int:
    """Submit a job; what its steps leave on a node is left in the user's home: there are other nodes here."""
    return lab.submit(BATCH + script, env={"TMPDIR": str(lab.cluster.home())})


def until(path: Path) -> str:
    return f"while [ ! -e {path} ]; do sleep 0.1; done\n"


def test_the_end_of_job_1_leaves_job_1_of_the_other_cluster_its_session(labs: tuple[Lab, Lab]) -> None:
    one, other = labs
    emulator = one.emulator
    home, elsewhere = (lab.cluster.home() for lab in labs)
    (elsewhere / "input.json").write_text(json.dumps(BELL))

    ends = submit(one, f"touch runs\n{until(home / 'end')}")
    emulator.wait_for(lambda _: (home / "runs").exists(), seconds=120)
    goes_on = submit(other, f"{TASK}touch runs\n{until(elsewhere / 'again')}{TASK}")
    assert ends == goes_on == 1
    emulator.wait_for(lambda _: (elsewhere / "runs").exists(), seconds=120)
    (home / "end").touch()
    assert one.wait(ends) == "COMPLETED", one.cluster.output(ends)
    emulator.wait_for(lambda _: json.loads(one.command("leases", "--json").stdout) == [])
    (session,) = emulator.sessions()
    assert session.accepting_tasks
    (elsewhere / "again").touch()

    assert other.wait(goes_on) == "COMPLETED", other.cluster.output(goes_on)
    first, second = emulator.tasks()
    assert first.session_id == second.session_id == session.id
    assert first.tags[0] == second.tags[0]
    (lease,) = json.loads(one.command("leases", "1", "--all", "--json").stdout)
    assert lease["sessions"] == []
    (lease,) = json.loads(other.command("leases", "1", "--all", "--json").stdout)
    assert lease["sessions"] == [session.id]
    assert lease["tag"] == first.tags[0]
    assert lease["tag"].startswith("slurm-job:lab:1:")
