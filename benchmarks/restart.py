# SPDX-License-Identifier: Apache-2.0
"""The gateway is restarted ten times while jobs start, run steps and submit tasks on a throw-away cluster.

Its port is held as systemd holds it for a socket unit. No job may fail. RESTART_JOBS names another number of
jobs than 100.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.figures import Figure
from benchmarks.step import QPU, sampler_input
from qpu_slurm_devkit.cluster import Node
from qpu_slurm_devkit.lab import Lab

if TYPE_CHECKING:
    from collections.abc import Iterator

JOBS = 100
RESTARTS = 10

_CHECKOUT = Path(__file__).parents[1]
_CPUS = 4
"""What a node of the throw-away cluster claims to have."""

_LONGEST_SECONDS = 1800
_PAUSE = 3.0

_SCRIPT = """\
#!/bin/sh
#SBATCH --qpu={qpu} --array=1-{jobs} --output=/dev/null --time=60
set -e
touch "$HOME/started/$SLURM_ARRAY_TASK_ID"
# Until all restarts are over, and then once more.
while :; do
    over=$([ -e "$HOME/over" ] && echo yes || echo no)
    rm -f "$HOME/$SLURM_ARRAY_TASK_ID.json"
    echo began >>"$HOME/log/$SLURM_ARRAY_TASK_ID"
    srun --quiet task_runner {qpu} "$HOME/input.json" "$HOME/$SLURM_ARRAY_TASK_ID.json"
    echo done >>"$HOME/log/$SLURM_ARRAY_TASK_ID"
    [ $over = no ] || break
    sleep 5
done
echo over >>"$HOME/log/$SLURM_ARRAY_TASK_ID"
"""
"""What a job did is in a file of its own: Slurm forgets jobs that are over while others run."""


def measure() -> Iterator[Figure]:
    """Restart the gateway under running jobs, and count those that failed."""
    jobs = int(os.environ.get("RESTART_JOBS", JOBS))
    settings = {"PartitionName": f"DEFAULT OverSubscribe=FORCE:{-(-jobs // _CPUS)}"}
    with Lab(_CHECKOUT, nodes=(Node("c1", "normal"),), settings=settings, hold_socket=True) as lab:
        home = lab.cluster.home()
        started = home / "started"
        lab.run(["/bin/mkdir", str(started), str(home / "log")])
        (home / "input.json").write_text(sampler_input())
        array = lab.submit(_SCRIPT.format(qpu=QPU, jobs=jobs))
        away = []
        for number in range(RESTARTS):
            # Some restarts meet jobs that start, the others jobs that run.
            _wait(started, (number + 1) * jobs // RESTARTS)
            away.append(_restart(lab))
            time.sleep(_PAUSE)
        lab.run(["/bin/touch", str(home / "over")])
        lab.wait(array, _LONGEST_SECONDS)
        logs = [path.read_text().split() for path in (home / "log").iterdir()]
        began, done = (sum(log.count(word) for log in logs) for word in ("began", "done"))
        ended = sum("over" in log for log in logs)
        left = [session.id for session in lab.emulator.sessions() if session.state != "closed"]
        sessions, tasks = len(lab.emulator.sessions()), len(lab.emulator.tasks())
    yield Figure(
        key="restart.failed",
        what=f"jobs that failed, of {jobs} under {RESTARTS} restarts of the gateway",
        value=jobs - ended,
        at_most=0,
        details={"away_seconds": away, "began": began, "done": done, "tasks": tasks, "sessions": sessions},
        note=(
            f"{done} of {began} steps ended well, and the service got {tasks} tasks, one for each step, in "
            f"{sessions} sessions, of which {len(left)} were left open. A restart took {max(away):.1f} s at "
            "most; connections waited meanwhile."
        ),
    )


def _restart(lab: Lab) -> float:
    """Restart the gateway; return how long it took."""
    if lab.gateway is None:
        raise AssertionError("a lab has a gateway")
    begin = time.monotonic()
    lab.gateway.stop()
    lab.gateway.start()
    return time.monotonic() - begin


def _wait(started: Path, jobs: int) -> None:
    """Wait until so many jobs have started."""
    deadline = time.monotonic() + _LONGEST_SECONDS
    while sum(1 for _ in started.iterdir()) < jobs:
        if time.monotonic() > deadline:
            raise RuntimeError("the jobs did not start")
        time.sleep(0.2)
