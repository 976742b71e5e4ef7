# SPDX-License-Identifier: Apache-2.0
"""What happens to jobs when something happens to the whole cluster, in every moment of their lives."""

from __future__ import annotations

import msgspec

from qpu_slurm_devkit.emulator import Fault
from tests.cluster.matrix.events import (
    AT_ONCE,
    FAULTY,
    GO,
    OVER,
    RUNS,
    RUNS_AGAIN,
    SCANCEL,
    SUBMITTED,
    admin,
    command,
    seconds,
    told,
)
from tests.cluster.matrix.jobs import (
    HOLDS,
    LOOP,
    LOOPED,
    OPENS,
    SAY,
    SAY_AND_TASK,
    TASK,
    UUID,
    WAIT,
    batch,
    het,
    srun,
)
from tests.cluster.matrix.scenario import TOO_LONG, Event, Scenario, Storm, Submit, When
from tests.cluster.matrix.storms import (
    BRING_BACK,
    DAMAGED,
    DAMAGED_TOO,
    DELETED,
    GATEWAY_KILLED,
    LOST,
    MAKE_ROOM,
    MOVE_AWAY,
    SERVICE_REFUSES,
    SERVICES_CLOCK,
    SLURMCTLD_FORGETS,
    SLURMCTLD_SAVED,
    full,
    gateways_clock,
    locked,
)
from tests.cluster.matrix.ways_to_end import BEFORE_OPENING, CLOSED_ALREADY, CLOSING, OPENED, OPENING

WAIT_AND_TASK = batch(f"{WAIT}exec {TASK}")
SUBMITTED_HELD = batch(SAY_AND_TASK, "--hold")
RELEASE = admin("scontrol", "release", "{job}")
OTHER_SESSION = rf"job (\d+)\s+holds ({UUID})[\s\S]*job \1\s+holds (?!\2)"
"""What two jobs say that had one number, one after the other, and a session each."""


AGAIN = command(
    "sbatch", "--qpu={qpu}", "--time=5", "--nodelist=n2", "{qpu}.sh", text="its user submits it again"
)


def struck(
    storm: Storm,
    when: When,
    *happens: Event,
    way: str,
    submit: Submit = WAIT_AND_TASK,
    faults: tuple[Fault, ...] = (),
    ends: str = "COMPLETED",
    told: str = HOLDS,
    sessions: tuple[int, ...] = (1,),
) -> Scenario:
    """Make a scenario of a job that a storm finds in some moment."""
    return Scenario(
        way=way,
        submit=submit,
        faults=faults,
        storm=storm,
        struck=when,
        happens=happens,
        ends=ends,
        told=told,
        sessions=sessions,
        keys=storm.keys,
    )


UNTIL_SAVED = 13
"""Seconds that a request waits: slurmctld saves its state meanwhile, and is killed before the answer."""


def in_every_part(storm: Storm, *, sessions: tuple[int, ...], wait: float = 0) -> tuple[Scenario, ...]:
    """Make scenarios of jobs that it finds in acquire, while they run, while a task runs, and in release.

    Args:
        storm: What finds them.
        sessions: How many sessions each may have.
        wait: Seconds that the requests of an acquire wait at least.
    """
    acquire = {
        "prolog, before the session is opened": BEFORE_OPENING,
        "prolog, while the session is opened": OPENING,
        "prolog, after the session was opened": OPENED,
    }
    later = {
        "a task runs": Fault(method="GET", path="/jobs/*", delay=8),
        "epilog, before the session is closed": CLOSING,
        "epilog, after the session was closed": CLOSED_ALREADY,
    }
    return (
        *(
            # It waits, so that it has not ended already when the others have come to their moments.
            struck(
                storm,
                FAULTY,
                Event(AT_ONCE, GO),
                way=part,
                faults=(_at_least(fault, wait),),
                sessions=sessions,
            )
            for part, fault in acquire.items()
        ),
        *(
            struck(storm, FAULTY, way=part, submit=batch(SAY_AND_TASK), faults=(fault,), sessions=sessions)
            for part, fault in later.items()
        ),
        struck(storm, RUNS, Event(seconds(0.3), GO), way="runs, and ends"),
        struck(
            storm, SUBMITTED, Event(seconds(0.3), RELEASE), way="waits, and starts", submit=SUBMITTED_HELD
        ),
    )


def _at_least(fault: Fault, wait: float) -> Fault:
    """Let a request wait for so long, on the side of its effect on which it waits."""
    delay, late = (max(own, wait) if own else 0 for own in (fault.delay, fault.late))
    return msgspec.structs.replace(fault, delay=delay, late=late)


REFUSED = (
    *in_every_part(SERVICE_REFUSES, sessions=(1, 2)),
    struck(
        SERVICE_REFUSES,
        SUBMITTED,
        Event(AT_ONCE, RELEASE),
        way="srun",
        submit=srun(SAY, "--hold"),
        ends="CANCELLED",
        told="qpu_slurm: .*cannot be reached",
        sessions=(0,),
    ),
)

SLURMCTLD = (
    *in_every_part(SLURMCTLD_SAVED, sessions=(1, 2), wait=UNTIL_SAVED),
    struck(
        SLURMCTLD_SAVED,
        RUNS,
        Event(seconds(1), GO),
        way="srun runs",
        submit=srun(f"{WAIT}exec {TASK}", "--output={qpu}-%j.out"),
    ),
    struck(
        SLURMCTLD_SAVED,
        RUNS,
        Event(seconds(1), GO),
        way="het job runs",
        submit=het("--qpu={qpu}", "", f"{WAIT}{TASK}"),
    ),
    struck(SLURMCTLD_SAVED, RUNS, Event(seconds(1), SCANCEL), way="runs, and is cancelled", ends="CANCELLED"),
    struck(
        SLURMCTLD_FORGETS,
        RUNS,
        # Elsewhere: Slurm itself drains a node on which it finds two jobs of one number.
        Event(seconds(1), AGAIN),
        Event(RUNS_AGAIN, GO),
        way="runs; its number is used again",
        submit=batch(f"echo job $SLURM_JOB_ID\n{WAIT}", "--nodelist=n1"),
        told=OTHER_SESSION,
        sessions=(2,),
    ),
    struck(
        SLURMCTLD_FORGETS,
        FAULTY,
        way="prolog; Slurm has forgotten the job",
        submit=batch(SAY_AND_TASK),
        faults=(OPENING,),
        ends="",
        told="Submitted batch job",
    ),
)

GATEWAY = (
    *in_every_part(GATEWAY_KILLED, sessions=(1, 2)),
    struck(
        GATEWAY_KILLED,
        RUNS,
        Event(seconds(2), GO),
        way="runs a loop of tasks",
        submit=batch(LOOP),
        told=LOOPED,
    ),
    struck(
        GATEWAY_KILLED,
        RUNS,
        Event(AT_ONCE, SCANCEL),
        way="runs, and is cancelled",
        ends="CANCELLED",
        told="CANCELLED",
    ),
)


def journal_locked(storm: Storm, told: str) -> tuple[Scenario, ...]:
    """Make scenarios of a journal that cannot be written for a while."""
    return (
        struck(storm, RUNS, Event(AT_ONCE, GO), way="runs, and ends"),
        struck(
            storm,
            SUBMITTED,
            Event(AT_ONCE, RELEASE),
            way="waits, and starts",
            submit=SUBMITTED_HELD,
            told=told,
        ),
    )


def disk_full(storm: Storm) -> tuple[Scenario, ...]:
    """Make scenarios of a journal that has no room."""
    return (
        struck(storm, RUNS, Event(AT_ONCE, GO), way="runs, and ends"),
        struck(
            storm,
            SUBMITTED,
            Event(seconds(2), RELEASE),
            Event(told("The disk of the journal"), MAKE_ROOM),
            way="waits, and starts",
            submit=SUBMITTED_HELD,
            told="The disk of the journal .* full",
        ),
    )


LOCKED = "locked by another process|no time left"

LOCKED_SECONDS = TOO_LONG + 10
"""Longer than an acquire waits, also for a hook that a busy machine starts late; a second try outlives it."""

JOURNAL = (
    *journal_locked(locked(4, "gateway"), HOLDS),
    *journal_locked(locked(LOCKED_SECONDS, "gateway"), LOCKED),
    *disk_full(full("gateway")),
    *journal_locked(DELETED, HOLDS),
    *journal_locked(LOST, HOLDS),
)

JOURNAL_OF_THE_HOOKS = (
    *journal_locked(locked(4, "user"), HOLDS),
    *journal_locked(locked(LOCKED_SECONDS, "user"), LOCKED),
    *disk_full(full("user")),
    struck(
        DAMAGED,
        RUNS,
        Event(AT_ONCE, GO),
        Event(OVER, BRING_BACK),
        way="runs, and ends",
    ),
    struck(
        DAMAGED_TOO,
        SUBMITTED,
        Event(AT_ONCE, RELEASE),
        Event(told("is damaged"), MOVE_AWAY),
        way="waits, and starts",
        submit=SUBMITTED_HELD,
        told="journal.* is damaged",
    ),
)

EXPIRED = (
    struck(
        SERVICES_CLOCK,
        RUNS,
        Event(AT_ONCE, GO),
        way="runs, and has a task",
        told=OPENS,
        sessions=(2,),
    ),
    struck(SERVICES_CLOCK, RUNS, Event(AT_ONCE, GO), way="runs, and ends", submit=batch(WAIT)),
    struck(
        SERVICES_CLOCK, SUBMITTED, Event(AT_ONCE, RELEASE), way="waits, and starts", submit=SUBMITTED_HELD
    ),
)

CLOCKS = (
    *(
        scenario
        for hours in (1, -1)
        for storm in (gateways_clock(hours),)
        for scenario in (
            struck(storm, RUNS, Event(AT_ONCE, GO), way="runs, has a task, and ends"),
            struck(storm, SUBMITTED, Event(AT_ONCE, RELEASE), way="waits, and starts", submit=SUBMITTED_HELD),
            struck(
                storm,
                FAULTY,
                way="prolog, after the session was opened",
                submit=batch(SAY_AND_TASK),
                faults=(OPENED,),
                sessions=(1, 2),
            ),
        )
    ),
)
