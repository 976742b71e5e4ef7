# SPDX-License-Identifier: Apache-2.0
"""Every way an element of a job array can wait for its QPU: alone, while others run or have ended.

Three sessions for three elements: none of them ran twice.
"""

from __future__ import annotations

from typing import NamedTuple

from qpu_slurm_devkit.emulator import Fault
from tests.cluster.matrix.events import (
    AT_ONCE,
    MEND,
    REOPEN,
    RUNS,
    SUBMITTED,
    admin,
    close,
    inject,
    let_go,
    pause,
    ready,
    resume,
    told,
)
from tests.cluster.matrix.jobs import SAY, batch
from tests.cluster.matrix.scenario import Event, Scenario, Submit, What

ELEMENT = f"{SAY}echo ready\nwhile [ ! -e {{qpu}}.go-$SLURM_ARRAY_TASK_ID ]; do sleep 0.3; done\n"
"""Each element waits until it is let go by its own number; a job that is no array, until `let_go("")`."""

BEHIND_ANOTHER = """\
first=$(sbatch --parsable --qpu={qpu} --time=5 {script}) &&
sbatch --qpu={qpu} --time=5 --array=1-3 --dependency=after:$first {script}"""

RELEASE = admin("scontrol", "release", "{job}")


class Cause(NamedTuple):
    """Why a QPU is not to be had for a while, and what the user reads of it."""

    name: str
    begins: What
    ends: What
    told: str
    backend: str = ""


OUTAGE = Cause(
    "outage", inject(Fault(method="POST", path="/sessions", status=503, times=None)), MEND, "Injected fault"
)
DRAIN = Cause("drain", close("New fridge until noon."), REOPEN, "New fridge until noon")


def maintenance(backend: str) -> Cause:
    """Make a cause of a QPU that no other scenario has."""
    return Cause("maintenance", pause(backend, "Back on Monday."), resume(backend), "Back on Monday", backend)


def _waits(cause: Cause, which: str, *happens: Event, options: tuple[str, ...]) -> Scenario:
    return Scenario(
        way=f"job array, {cause.name} as the {which} element starts",
        submit=batch(ELEMENT, *options),
        backend=cause.backend,
        happens=happens,
        told=cause.told,
        sessions=(3,),
    )


def in_the_first(cause: Cause) -> Scenario:
    """One element at a time, and the first one has to wait."""
    return _waits(
        cause,
        "first",
        Event(SUBMITTED, cause.begins),
        Event(AT_ONCE, RELEASE),
        Event(told(cause.told), cause.ends),
        Event(AT_ONCE, let_go("1", "2", "3")),
        options=("--array=1-3%1", "--hold"),
    )


def in_a_middle_one(cause: Cause) -> Scenario:
    """One element at a time, and the second one has to wait: the first is over by then."""
    return _waits(
        cause,
        "middle",
        Event(RUNS, cause.begins),
        Event(AT_ONCE, let_go("1")),
        Event(told(cause.told), cause.ends),
        Event(AT_ONCE, let_go("2", "3")),
        options=("--array=1-3%1",),
    )


def in_the_last(cause: Cause) -> Scenario:
    """Two at a time: the first is over, and the second runs, as the last one has to wait."""
    return _waits(
        cause,
        "last",
        Event(ready(2), cause.begins),
        Event(AT_ONCE, let_go("1")),
        Event(told(cause.told), cause.ends),
        # The second element runs as long as the last one has not started.
        Event(ready(3), let_go("2", "3")),
        options=("--array=1-3%2",),
    )


LIMITED = (
    Scenario(
        way="job array, exclusive QPU that another job has as its elements start",
        submit=Submit(("sh", "-c", BEHIND_ANOTHER), f"#!/bin/sh\n{ELEMENT}"),
        limit=1,
        happens=(Event(told("in use"), let_go("", "1", "2", "3")),),
        told="in use",
        sessions=(4,),
    ),
    Scenario(
        way="job array, exclusive QPU that the first element has as the others start",
        submit=batch(ELEMENT, "--array=1-3"),
        limit=1,
        happens=(Event(told("in use"), let_go("1", "2", "3")),),
        told="in use",
        sessions=(3,),
    ),
    Scenario(
        way="job array, QPU for two jobs that two elements have as the third one starts",
        submit=batch(ELEMENT, "--array=1-3"),
        limit=2,
        # Whichever two were faster: the third starts as one of them ends.
        happens=(Event(told("in use"), let_go("1", "2", "3")),),
        told="in use",
        sessions=(3,),
    ),
)

WAYS_OF_ARRAYS = (
    *(where(cause) for cause in (OUTAGE, DRAIN) for where in (in_the_first, in_a_middle_one, in_the_last)),
    in_the_first(maintenance("ibm_nairobi")),
    in_a_middle_one(maintenance("ibm_oslo")),
    in_the_last(maintenance("ibm_perth")),
    *LIMITED,
)
