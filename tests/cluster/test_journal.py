# SPDX-License-Identifier: Apache-2.0
"""A journal that is lost on a real cluster: jobs that run go on, and what they held ends with them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.cluster.test_two_clusters import BELL, until

if TYPE_CHECKING:
    from qpu_slurm_devkit.lab import Lab

TASK = "task_runner ibm_fez input.json output.json\n"


@pytest.mark.parametrize("hold", ["job", "task"])
def test_a_job_goes_on_when_the_journal_is_deleted(lab: Lab, hold: str) -> None:
    """The gateway is down meanwhile, so that nobody has the file open."""
    assert lab.gateway is not None
    home = lab.cluster.home()
    (home / "input.json").write_text(json.dumps(BELL))
    go, runs = home / f"{hold}.go", home / f"{hold}.runs"
    job = lab.submit(
        f"#!/bin/sh\n#SBATCH --qpu=ibm_fez --qpu-session={hold} --time=5\nset -e\n"
        f"{TASK}touch {runs}\n{until(go)}{TASK}srun {TASK}"
    )
    lab.emulator.wait_for(lambda _: runs.exists(), seconds=120)
    (before,) = json.loads(lab.command("leases", "--json").stdout)

    lab.gateway.stop()
    for path in lab.journal.parent.glob(f"{lab.journal.name}*"):
        if path.suffix != ".secret":
            path.unlink()
    lab.gateway.start()
    lab.emulator.wait_for(lambda _: json.loads(lab.command("leases", "--json").stdout), seconds=120)
    (after,) = json.loads(lab.command("leases", "--json").stdout)
    go.touch()

    assert lab.wait(job) == "COMPLETED", lab.cluster.output(job)
    same = ("id", "job_id", "user_id", "qpu", "state", "hold", "run", "tag", "session_id", "created_at")
    assert {name: after[name] for name in same} == {name: before[name] for name in same}
    (session,) = lab.emulator.sessions()
    assert {task.session_id for task in lab.emulator.tasks()} == {session.id}
    assert len(lab.emulator.tasks()) == 3
    lab.emulator.wait_for(lambda emulator: all(one.state == "closed" for one in emulator.sessions()))
