# SPDX-License-Identifier: Apache-2.0
"""The jobs that scenarios submit."""

from __future__ import annotations

from tests.cluster.matrix.scenario import Submit

FRAIL = "frail"
"""The partition of the nodes that die."""

DOWN = "down"
"""The partition of the node that the admin sets DOWN."""

SESSION = "${qpu}_QRMI_JOB_ACQUISITION_TOKEN"
UUID = r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
HOLDS = f"holds {UUID}"
"""What a job says that has its session."""

SAY = f'echo "holds {SESSION}"\n'
WAIT = f"{SAY}echo ready\nwhile [ ! -e {{qpu}}.go ]; do sleep 0.3; done\n"
"""It waits until it is let go (`events.GO`)."""

STARTS_LATER = "--comment=held:{qpu}.start"
"""It has its session, and waits until it is let go (`events.HELD`)."""

TASK = "task_runner {qpu} input.json {qpu}.json\n"
FINAL = TASK.replace("task_runner", "task_runner --final")
SAY_AND_TASK = f"{SAY}exec {TASK}"
"""The exit code is task_runner's."""

LOOP = f"{SAY}exec python loop.py {{qpu}}\n"
"""A program that submits one task after the other, until it is let go (`events.GO`)."""

LOOPED = "every result is there"
"""What it says at its end."""

LOOP_PROGRAM = """\
import json, pathlib, sys, time
import qpu_slurm
from qpu_slurm.errors import TaskCancelledError
qpu, number = sys.argv[1], 0
go, output = pathlib.Path(f"{qpu}.go"), pathlib.Path(f"{qpu}.json")
while number < 6 or not go.exists():
    try:
        qpu_slurm.execute("input.json", output=output)
    except TaskCancelledError as error:
        sys.exit(str(error))
    json.loads(output.read_text())["results"]
    output.unlink()
    number += 1
    if number == 3:
        print("ready", flush=True)
    time.sleep(0.2)
print("every result is there", flush=True)
"""

OPENS = f"opened session {UUID}"
"""What task_runner says that has opened its job's session."""

TWICE = '[ -n "$SLURM_RESTART_COUNT" ] || { echo ready; sleep 60; }\n'
"""The first run waits to be ended."""


def batch(script: str, *options: str) -> Submit:
    """Submit a script with `--qpu`."""
    return Submit(("sbatch", "--qpu={qpu}", "--time=5", *options, "{script}"), f"#!/bin/sh\n{script}")


def srun(script: str, *options: str) -> Submit:
    """Run a step in an allocation of its own."""
    return Submit(("srun", "--qpu={qpu}", "--time=5", *options, "sh", "-c", script))


def salloc(script: str, *options: str) -> Submit:
    """Run a step in an allocation; salloc takes the job's name from no variable."""
    return Submit(
        ("salloc", "--qpu={qpu}", "--job-name={qpu}", "--time=5", *options, "srun", "sh", "-c", script)
    )


def het(first: str, second: str, script: str) -> Submit:
    """Submit a heterogeneous job, with further directives of its components."""
    head = (
        f"#SBATCH --time=5 {first}\n#SBATCH hetjob\n"
        f"#SBATCH --time=5 --partition=quantum --gres=qpu:1 {second}\n"
    )
    return Submit(("sbatch", "{script}"), f"#!/bin/sh\n{head}{script}")
