# SPDX-License-Identifier: Apache-2.0
"""The gateway is restarted ten times while jobs start, run steps and submit tasks on a throw-away cluster.

Its port is held as systemd holds it for a socket unit. No job may fail, none may be requeued, and each of
their tasks has to be done once.
"""

from __future__ import annotations

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

_STEPS = 3
_CHECKOUT = Path(__file__).parents[1]
_CPUS = 4
"""What a node of the throw-away cluster claims to have."""

_LONGEST_SECONDS = 1800
_PAUSE = 3.0

_SCRIPT = """\
#!/bin/sh
#SBATCH --qpu={qpu} --array=1-{jobs} --output=%a.out --time=60
set -e
touch "$HOME/started/$SLURM_ARRAY_TASK_ID"
# Until all restarts are over, and then once more.
while :; do
    over=$([ -e "$HOME/over" ] && echo yes || echo no)
    for step in $(seq {steps}); do
        rm -f "$HOME/$SLURM_ARRAY_TASK_ID.json"
        srun --quiet task_runner {qpu} "$HOME/input.json" "$HOME/$SLURM_ARRAY_TASK_ID.json"
        echo done
    done
    [ $over = no ] || exit 0
    sleep 5
done
"""


def measure() -> Iterator[Figure]:
    """Restart the gateway under running jobs, and count those that failed."""
    settings = {"PartitionName": f"DEFAULT OverSubscribe=FORCE:{-(-JOBS // _CPUS)}"}
    with Lab(_CHECKOUT, nodes=(Node("c1", "normal"),), settings=settings, hold_socket=True) as lab:
        home = lab.cluster.home()
        started = home / "started"
        lab.run(["/bin/mkdir", str(started)])
        (home / "input.json").write_text(sampler_input())
        array = lab.submit(_SCRIPT.format(qpu=QPU, jobs=JOBS, steps=_STEPS))
        away = []
        for number in range(RESTARTS):
            # Some restarts meet jobs that start, the others jobs that run.
            _wait(started, (number + 1) * JOBS // RESTARTS)
            away.append(_restart(lab))
            time.sleep(_PAUSE)
        lab.run(["/bin/touch", str(home / "over")])
        lab.wait(array, _LONGEST_SECONDS)
        states = _states(lab, array)
        steps = sum(path.read_text().count("done") for path in home.glob("*.out"))
        failed = [state for state in states if state != "COMPLETED 0"]
        left = [session for session in lab.emulator.sessions() if session.state != "closed"]
        tasks = len(lab.emulator.tasks())
        yield Figure(
            key="restart.failed",
            what=f"{RESTARTS} restarts of the gateway under {JOBS} jobs: what went wrong",
            value=len(failed) + (JOBS - len(states)) + len(left) + abs(tasks - steps),
            at_most=0,
            details={"states": states, "away_seconds": away, "steps": steps, "tasks": tasks},
            note=(
                "Jobs that failed or were requeued, sessions left open, tasks that were lost or done twice. "
                f"The jobs ran {steps} steps, each with one task. A restart took {max(away):.1f} s at most; "
                "connections waited meanwhile."
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


def _states(lab: Lab, array: int) -> list[str]:
    """Read each job's state, and how often it was requeued."""
    listing = lab.cluster.ask(
        "squeue", "--noheader", "--states=all", f"--jobs={array}", "--Format=State,RestartCnt"
    )
    return [" ".join(line.split()) for line in listing.splitlines()]


def _wait(started: Path, jobs: int) -> None:
    """Wait until so many jobs have started."""
    deadline = time.monotonic() + _LONGEST_SECONDS
    while sum(1 for _ in started.iterdir()) < jobs:
        if time.monotonic() > deadline:
            raise RuntimeError("the jobs did not start")
        time.sleep(0.2)
