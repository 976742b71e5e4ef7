# SPDX-License-Identifier: Apache-2.0
"""What happens to steps, and to batch scripts, that start while nobody has an answer for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.cluster.matrix.events import (
    CTRL_C,
    HELD,
    RUNS,
    SCANCEL,
    WAITS,
    kill_node,
    kill_slurmd,
    seconds,
    start_slurmd,
    state,
)
from tests.cluster.matrix.jobs import (
    FRAIL,
    HOLDS,
    SAY,
    SAY_AND_TASK,
    STARTS_LATER,
    TASK,
    WAIT,
    batch,
    het,
    salloc,
    srun,
)
from tests.cluster.matrix.play import OVER
from tests.cluster.matrix.scenario import STEP_PATIENCE, Event, Scenario, Storm, When
from tests.cluster.matrix.storms import (
    GATEWAY_AWAY,
    GATEWAY_BACK,
    GATEWAY_GONE,
    SLURMCTLD_AWAY,
    SLURMCTLD_AWAY_TOO,
)

if TYPE_CHECKING:
    from tests.cluster.matrix.play import Play
    from tests.cluster.matrix.scenario import Submit

TOLD = "This step waits for an answer until"
TOLD_AND_HOLDS = rf"(?=[\s\S]*{TOLD})[\s\S]*{HOLDS}"
"""It has waited, and has its session after all."""

OF_FOUR = "-N2", "-n4"


def back(storm: Storm, way: str, submit: Submit, when: When = HELD, sessions: int = 1) -> Scenario:
    """Make a scenario of a step that waits, and goes on; behind a gateway, it need not wait for slurmctld."""
    return Scenario(
        way=way,
        submit=submit,
        storm=storm,
        struck=when,
        told=HOLDS if storm is SLURMCTLD_AWAY else TOLD_AND_HOLDS,
        sessions=(sessions,),
        keys=storm.keys,
    )


STARTS = (
    ("batch script", batch(SAY_AND_TASK, STARTS_LATER)),
    ("srun", srun(SAY_AND_TASK, STARTS_LATER)),
    ("srun, tasks on two nodes", srun(SAY, *OF_FOUR, STARTS_LATER)),
)

COMES_BACK = (
    *(back(GATEWAY_AWAY, way, submit) for way, submit in STARTS),
    back(GATEWAY_AWAY, "salloc", salloc(SAY_AND_TASK, STARTS_LATER)),
    back(GATEWAY_AWAY, "job array", batch(SAY_AND_TASK, "--array=1-2", STARTS_LATER), sessions=2),
    back(GATEWAY_AWAY, "step of a batch job", batch(f"{WAIT}srun {TASK}"), RUNS),
    back(
        GATEWAY_AWAY,
        "step of a het job, in both components",
        het("--qpu={qpu}", "", f"{WAIT}srun --het-group=0,1 sh -c '{SAY.strip()}'\n"),
        RUNS,
    ),
    *(back(SLURMCTLD_AWAY, way, submit) for way, submit in STARTS),
    *(back(SLURMCTLD_AWAY_TOO, way, submit) for way, submit in STARTS),
)


def _all_over(play: Play) -> bool:
    return all(
        OVER.fullmatch(job.state)
        for one, qpu in play.stage.qpus.items()
        if one.storm is play.scenario.storm
        for job in play.view.jobs.get(qpu, ())
    )


AFTERWARDS = Event(When("when it is over", _all_over), GATEWAY_BACK)
"""The others of its storm are over then, too."""


def ends(way: str, submit: Submit, *happens: Event, state: str, told: str = TOLD) -> Scenario:
    """Make a scenario of a step that waits, and is ended."""
    return Scenario(
        way=way,
        submit=submit,
        storm=GATEWAY_GONE,
        struck=HELD,
        happens=(*happens, AFTERWARDS),
        ends=state,
        told=told,
    )


NEVER_STARTS = batch(SAY, STARTS_LATER)

ENDS = (
    ends("batch script", NEVER_STARTS, Event(WAITS, SCANCEL), state="CANCELLED"),
    ends("srun", srun(SAY, STARTS_LATER), Event(WAITS, SCANCEL), state="CANCELLED"),
    ends("srun", srun(SAY, STARTS_LATER), Event(WAITS, CTRL_C), state="CANCELLED"),
    ends(
        "srun, tasks on two nodes", srun(SAY, *OF_FOUR, STARTS_LATER), Event(WAITS, CTRL_C), state="CANCELLED"
    ),
    ends("batch script, time limit", batch(SAY, "--time=1", STARTS_LATER), state="TIMEOUT"),
    ends(
        f"batch script, longer than step_patience ({STEP_PATIENCE} s)",
        NEVER_STARTS,
        state="FAILED",
        told=f"does not answer.*There was no answer for {STEP_PATIENCE} s",
    ),
    ends(
        "batch script, slurmd killed and started again",
        batch(SAY, f"--partition={FRAIL}", "--nodelist=f3", STARTS_LATER),
        Event(WAITS, kill_slurmd("f3")),
        Event(seconds(2), start_slurmd("f3")),
        Event(seconds(5), SCANCEL),
        state="CANCELLED",
    ),
    ends(
        "batch script, node failure",
        batch(SAY, "--no-requeue", f"--partition={FRAIL}", "--nodelist=f1", STARTS_LATER),
        Event(WAITS, kill_node("f1")),
        Event(state("NODE_FAIL"), start_slurmd("f1")),
        state="NODE_FAIL",
    ),
)

WAYS_TO_WAIT = (*COMES_BACK, *ENDS)
