# SPDX-License-Identifier: Apache-2.0
"""Every way a job can live."""

from __future__ import annotations

from tests.cluster.matrix.events import GO, LET_GO, RUNS, SUBMITTED, admin, command, seconds
from tests.cluster.matrix.jobs import (
    FINAL,
    HOLDS,
    OPENS,
    SAY,
    SAY_AND_TASK,
    TASK,
    TWICE,
    UUID,
    WAIT,
    batch,
    het,
    salloc,
    srun,
)
from tests.cluster.matrix.scenario import Event, Scenario, Submit

OPTION = "--qpu={qpu}"
FROM_THE_FIRST_TASK = "--qpu-session=task"
IN_BOTH = f"{SAY}srun --het-group=0 sh -c '{SAY.strip()}'\nsrun --het-group=1 {TASK}"
HELD_TWICE = rf"holds ({UUID})\s+holds \1\b"

NESTED = f"""\
{SAY}\
if [ -z "$OUTER" ]; then
    OUTER=yes sbatch --qpu={{qpu}} --time=5 {{qpu}}.sh
fi
exec {TASK}"""

CHAIN = """\
first=$(sbatch --parsable --qpu={qpu} --time=5 {script}) &&
second=$(sbatch --parsable --qpu={qpu} --time=5 --dependency=afterok:$first {script}) &&
sbatch --qpu={qpu} --time=5 --dependency=afterok:$second {script}"""

ALSO = "echo also ${qpu}b_QRMI_JOB_ACQUISITION_TOKEN\n"
ON_BOTH = TASK.replace("task_runner {qpu}", "task_runner {qpu}b")

WAYS_TO_LIVE = (
    Scenario(
        way="time limit extended",
        submit=batch(f"{SAY}echo ready\nsleep 66\nexec {TASK}", "--time=1"),
        happens=(Event(RUNS, admin("scontrol", "update", "JobId={job}", "TimeLimit=3")),),
        told=HOLDS,
    ),
    Scenario(way="batch", submit=batch(SAY_AND_TASK), told=HOLDS),
    Scenario(way="srun", submit=srun(SAY_AND_TASK), told=HOLDS),
    Scenario(way="salloc", submit=salloc(SAY_AND_TASK), told=HOLDS),
    Scenario(way="job array", submit=batch(SAY_AND_TASK, "--array=1-3"), told=HOLDS, sessions=(3,)),
    Scenario(way="het job, option on the first component", submit=het(OPTION, "", IN_BOTH), told=HELD_TWICE),
    Scenario(way="het job, option on the second component", submit=het("", OPTION, IN_BOTH), told=HELD_TWICE),
    Scenario(way="het job, option on both components", submit=het(OPTION, OPTION, IN_BOTH), told=HELD_TWICE),
    Scenario(
        way="het job on the command line, with `:`",
        submit=Submit(
            ("sbatch", OPTION, ":", "--partition=quantum", "--gres=qpu:1", "{script}"),
            f"#!/bin/sh\n{IN_BOTH}",
        ),
        told=HELD_TWICE,
    ),
    Scenario(
        way="het job by srun, with `:`",
        submit=Submit(
            ("srun", OPTION, "sh", "-c", SAY, ":", "--partition=quantum", "--gres=qpu:1", "sh", "-c", SAY)
        ),
        told=HELD_TWICE,
    ),
    Scenario(
        way="a gres alone",
        submit=Submit(
            ("sbatch", "--partition=quantum", "--gres=qpu:{qpu}:1", "{script}"), f"#!/bin/sh\n{SAY_AND_TASK}"
        ),
        told=HOLDS,
    ),
    Scenario(
        way="several nodes",
        submit=batch(f"srun sh -c '{SAY.strip()}'\nexec {TASK}", "--nodes=3"),
        told=HELD_TWICE,
    ),
    Scenario(
        way="several steps at once",
        submit=batch(
            f"for step in 1 2 3; do srun --exact --ntasks=1 sh -c '{SAY.strip()}' & done; wait\n",
            "--ntasks=3",
        ),
        told=HELD_TWICE,
    ),
    Scenario(
        way="several QPUs",
        submit=Submit(
            ("sbatch", "--qpu={qpu},{qpu}b", "{script}"),
            f"#!/bin/sh\n{SAY}{ALSO}{TASK}exec {ON_BOTH}",
        ),
        second="ibm_torino",
        sessions=(2,),
        told=f"also {UUID}",
    ),
    Scenario(way="nested sbatch", submit=batch(NESTED), sessions=(2,), told=HOLDS),
    Scenario(
        way="--requeue, and requeued",
        submit=batch(f"{TWICE}{SAY_AND_TASK}", "--requeue"),
        happens=(Event(RUNS, command("scontrol", "requeue", "{job}")),),
        told=HOLDS,
        sessions=(2,),
    ),
    Scenario(
        way="--no-requeue",
        submit=batch(SAY_AND_TASK, "--no-requeue"),
        told=HOLDS,
    ),
    Scenario(
        way="requeued and held, then released",
        submit=batch(f"{TWICE}{SAY_AND_TASK}", "--requeue"),
        happens=(
            Event(RUNS, admin("scontrol", "requeuehold", "{job}")),
            Event(seconds(3), admin("scontrol", "release", "{job}")),
        ),
        told=HOLDS,
        sessions=(2,),
    ),
    Scenario(
        way="het job, requeued",
        submit=het(OPTION, "--requeue", f"{TWICE}{IN_BOTH}"),
        happens=(Event(RUNS, command("scontrol", "requeue", "{job}")),),
        told=HELD_TWICE,
        sessions=(2,),
    ),
    Scenario(
        way="suspended and resumed",
        submit=batch(f"{WAIT}exec {TASK}"),
        happens=(
            Event(RUNS, admin("scontrol", "suspend", "{job}")),
            Event(seconds(3), admin("scontrol", "resume", "{job}")),
            Event(seconds(1), GO),
        ),
        told=HOLDS,
    ),
    Scenario(
        way="held and released",
        submit=batch(SAY_AND_TASK, "--hold"),
        happens=(Event(SUBMITTED, command("scontrol", "release", "{job}")),),
        told=HOLDS,
    ),
    Scenario(way="--export=NONE", submit=batch(f"PATH=$PATH:/usr/bin\n{SAY}", "--export=NONE"), told=HOLDS),
    Scenario(
        way="--dependency chain",
        submit=Submit(("sh", "-c", CHAIN), f"#!/bin/sh\n{SAY_AND_TASK}"),
        told=HOLDS,
        sessions=(3,),
    ),
    Scenario(
        way="many tasks in one job",
        submit=batch(f"{SAY}for task in 1 2 3; do {TASK.strip()} || exit; done\nexec srun {TASK}"),
        told=HOLDS,
    ),
    Scenario(way="--qpu-session=task", submit=batch(f"{TASK}exec {TASK}", FROM_THE_FIRST_TASK), told=OPENS),
    Scenario(
        way="--qpu-session=task, het job",
        submit=het(f"{OPTION} {FROM_THE_FIRST_TASK}", "", f"exec srun --het-group=1 {TASK}"),
        told=OPENS,
    ),
    Scenario(
        way="--qpu-session=task, and no task",
        submit=batch("echo holds nothing\n", FROM_THE_FIRST_TASK),
        told="holds nothing",
        sessions=(0,),
    ),
    Scenario(
        way="--qpu-session=task, requeued between two tasks",
        submit=batch(f"{TASK}{TWICE}exec {TASK}", "--requeue", FROM_THE_FIRST_TASK),
        happens=(Event(RUNS, command("scontrol", "requeue", "{job}")),),
        told=OPENS,
        sessions=(2,),
    ),
    Scenario(
        way="--final, and then another task",
        submit=batch(f"{SAY}{FINAL}exec {TASK}"),
        told=OPENS,
        sessions=(2,),
    ),
    Scenario(
        way="as long as its user wants", submit=batch(f"{WAIT}exec {TASK}"), happens=(LET_GO,), told=HOLDS
    ),
)
