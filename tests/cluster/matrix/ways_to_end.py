# SPDX-License-Identifier: Apache-2.0
"""Every way a job can end, as far as it concerns this job alone."""

from __future__ import annotations

import random
import signal

from qpu_slurm_devkit.emulator import Drop, Fault
from tests.cluster.matrix.events import (
    CLOSED,
    FAULTY,
    GO,
    LET_GO,
    MEND,
    RUNS,
    SCANCEL,
    SUBMITTED,
    admin,
    command,
    hook_since,
    kill_hook,
    kill_node,
    kill_slurmd,
    seconds,
    start_slurmd,
    state,
)
from tests.cluster.matrix.jobs import (
    DOWN,
    FRAIL,
    HOLDS,
    SAY,
    SAY_AND_TASK,
    TASK,
    WAIT,
    batch,
    het,
    salloc,
    srun,
)
from tests.cluster.matrix.scenario import TOO_LONG, Event, Keys, Scenario, Submit

CLOSE = "/sessions/*/close"

LONG = 6
"""Seconds that a request waits: until whatever is to happen meanwhile has happened, on a busy machine too."""

BEFORE_OPENING = Fault(method="POST", path="/sessions", delay=LONG, drop=Drop.BEFORE)
OPENING = Fault(method="POST", path="/sessions", delay=LONG)
OPENED = Fault(method="POST", path="/sessions", late=LONG)
CLOSING = Fault(path=CLOSE, delay=LONG)
CLOSED_ALREADY = Fault(path=CLOSE, late=LONG)

FOR_EVER = f"{SAY}echo ready\nwhile sleep 1; do :; done\n"
STUBBORN = f"trap '' TERM\n{FOR_EVER}"

NO_END = (
    Scenario(
        way="time limit (KillWait)",
        submit=batch(STUBBORN, "--time=1"),
        ends="TIMEOUT",
        told="DUE TO TIME LIMIT",
    ),
    Scenario(
        way="node failure (slurmd and slurmstepd)",
        submit=batch(FOR_EVER, "--no-requeue", f"--partition={FRAIL}", "--nodelist=f1"),
        happens=(Event(RUNS, kill_node("f1")), Event(state("NODE_FAIL"), start_slurmd("f1"))),
        ends="NODE_FAIL",
        told="NODE_FAIL",
    ),
    Scenario(
        way="node failure (slurmd and slurmstepd), requeued",
        submit=batch(f"{WAIT}exec {TASK}", "--requeue", f"--partition={FRAIL}", "--nodelist=f2"),
        happens=(
            Event(RUNS, kill_node("f2")),
            Event(state("PENDING"), start_slurmd("f2")),
            Event(seconds(0), GO),
        ),
        sessions=(2,),
        told=HOLDS,
    ),
    Scenario(
        way="slurmd killed and started again",
        submit=batch(f"{WAIT}exec {TASK}", f"--partition={FRAIL}", "--nodelist=f3"),
        happens=(
            Event(RUNS, kill_slurmd("f3")),
            Event(seconds(2), start_slurmd("f3")),
            Event(seconds(2), GO),
        ),
        told=HOLDS,
    ),
)

ORDINARY = (
    Scenario(way="normal", submit=batch(SAY_AND_TASK), told=HOLDS),
    Scenario(way="failing", submit=batch(f"{SAY}exit 3\n"), ends="FAILED", told="FAILED NonZeroExitCode"),
    Scenario(
        way="failing, by a task",
        submit=batch(f"{SAY}echo '{{}}' >{{qpu}}.bad\nexec task_runner {{qpu}} {{qpu}}.bad {{qpu}}.out\n"),
        ends="FAILED",
        told="task_runner: .*program_id",
    ),
    Scenario(
        way="failing, without output",
        submit=batch("exec no-such-program\n"),
        ends="FAILED",
        told="no-such-program: not found",
    ),
    Scenario(way="srun, failing", submit=srun(f"{SAY}exit 3"), ends="FAILED", told="exit code 3"),
    Scenario(way="salloc, failing", submit=salloc(f"{SAY}exit 3"), ends="FAILED", told="exit code 3"),
)


def scancel(
    way: str,
    *faults: Fault,
    when: tuple[Event, ...],
    submit: Submit | None = None,
    ends: str = "CANCELLED",
    told: str = "CANCELLED",
    sessions: tuple[int, ...] = (1,),
) -> Scenario:
    """Make a scenario in which a job is cancelled."""
    return Scenario(
        way=f"scancel {way}",
        submit=submit or batch(f"{WAIT}exec {TASK}"),
        faults=faults,
        happens=when,
        ends=ends,
        told=told,
        sessions=sessions,
    )


SCANCEL_WHEN_FAULTY = (Event(FAULTY, SCANCEL),)

CANCELLED = (
    scancel(
        "before the prolog", when=(Event(SUBMITTED, SCANCEL),), submit=batch(SAY, "--hold"), sessions=(0,)
    ),
    scancel(
        "in the prolog, before the session is opened",
        BEFORE_OPENING,
        when=SCANCEL_WHEN_FAULTY,
        sessions=(0, 1),
    ),
    scancel("in the prolog, while the session is opened", OPENING, when=SCANCEL_WHEN_FAULTY),
    scancel("in the prolog, after the session was opened", OPENED, when=SCANCEL_WHEN_FAULTY),
    scancel(
        "of an srun in its prolog",
        OPENED,
        when=SCANCEL_WHEN_FAULTY,
        submit=srun(SAY),
        told="(?i)cancelled|revoked",
    ),
    scancel(
        "of a salloc in its prolog",
        OPENED,
        when=SCANCEL_WHEN_FAULTY,
        submit=salloc(SAY),
        told="(?i)cancelled|revoked",
    ),
    scancel(
        "of a het job in its prolog",
        OPENED,
        when=SCANCEL_WHEN_FAULTY,
        submit=het("--qpu={qpu}", "--qpu={qpu}", SAY),
        sessions=(1, 2),
    ),
    scancel("while it runs", when=(Event(RUNS, SCANCEL),)),
    scancel(
        "while a task runs",
        Fault(method="GET", path="/jobs/*", delay=LONG),
        when=(Event(FAULTY, SCANCEL),),
        submit=batch(SAY_AND_TASK),
        told="task_runner: stopped by SIGTERM",
    ),
    scancel(
        "of its steps alone",
        when=(Event(RUNS, command("scancel", "--signal=TERM", "--full", "{job}")),),
        submit=batch(f"trap : TERM\nsrun sh -c 'echo ready; sleep 300'\n{SAY_AND_TASK}"),
        ends="COMPLETED",
        told=HOLDS,
    ),
    scancel(
        "of a het job while it runs", when=(Event(RUNS, SCANCEL),), submit=het("", "--qpu={qpu}", FOR_EVER)
    ),
    scancel(
        "of a job array while it runs",
        when=(Event(RUNS, SCANCEL),),
        submit=batch(FOR_EVER, "--array=1-2"),
        sessions=(2,),
    ),
    scancel(
        "in the epilog",
        CLOSING,
        when=(LET_GO, Event(FAULTY, SCANCEL)),
        ends="COMPLETED",
        told=HOLDS,
    ),
    scancel("after the epilog", when=(LET_GO, Event(CLOSED, SCANCEL)), ends="COMPLETED", told=HOLDS),
)


def prolog_killed(way: str, *faults: Fault, keys: Keys = "gateway", sessions: tuple[int, ...]) -> Scenario:
    """Make a scenario in which the prolog is killed while a request waits; Slurm starts the job again."""
    return Scenario(
        way=f"prolog killed {way}",
        submit=batch(SAY_AND_TASK),
        faults=faults,
        happens=(Event(FAULTY, kill_hook("prolog")),),
        sessions=sessions,
        told=HOLDS,
        keys=keys,
    )


def epilog_killed(way: str, *faults: Fault, keys: Keys = "gateway") -> Scenario:
    """Make a scenario in which the epilog is killed while a request waits; a reaper comes after it."""
    return Scenario(
        way=f"epilog killed {way}",
        submit=batch(SAY_AND_TASK),
        faults=faults,
        happens=(Event(FAULTY, kill_hook("epilog")),),
        told=HOLDS,
        keys=keys,
    )


def _at_random(keys: Keys, number: int) -> tuple[Scenario, ...]:
    """Make scenarios in which hooks are killed at points that nobody chose, always the same ones."""
    chance = random.Random(f"{keys} hooks")  # noqa: S311 - nothing secret
    where = "" if keys == "gateway" else " (without a gateway)"
    return tuple(
        Scenario(
            way=f"{kind} killed after {milliseconds} ms{where}",
            submit=batch(SAY_AND_TASK),
            happens=(Event(hook_since(kind, milliseconds / 1000), kill_hook(kind, may_be_gone=True)),),
            sessions=(1, 2),
            told=HOLDS,
            keys=keys,
        )
        for kind in ("prolog", "epilog")
        for milliseconds in sorted(chance.sample(range(20, 500), number))
    )


HOOKS_KILLED = (
    prolog_killed("before the session is opened", BEFORE_OPENING, sessions=(1, 2)),
    prolog_killed("while the session is opened", OPENING, sessions=(1, 2)),
    prolog_killed("after the session was opened", OPENED, sessions=(1, 2)),
    epilog_killed("before the session is closed", CLOSING),
    epilog_killed("after the session was closed", CLOSED_ALREADY),
    Scenario(
        way="prolog of an srun killed",
        submit=srun(SAY),
        faults=(OPENED,),
        happens=(Event(FAULTY, kill_hook("prolog")),),
        ends="CANCELLED",
        told="PrologSlurmctld failed",
    ),
    *_at_random("gateway", 3),
)

HOOKS_HANG = (
    Scenario(
        way="prolog hangs (PrologEpilogTimeout)",
        submit=batch(SAY_AND_TASK),
        faults=(BEFORE_OPENING,),
        happens=(Event(FAULTY, kill_hook("prolog", signal.SIGSTOP)),),
        sessions=(1, 2),
        told=HOLDS,
    ),
    Scenario(
        way="prolog of a salloc hangs (PrologEpilogTimeout)",
        submit=salloc(SAY),
        faults=(BEFORE_OPENING,),
        happens=(Event(FAULTY, kill_hook("prolog", signal.SIGSTOP)),),
        ends="CANCELLED",
        told="PrologSlurmctld failed",
        sessions=(0, 1),
    ),
    Scenario(
        way="epilog hangs (PrologEpilogTimeout)",
        submit=batch(SAY_AND_TASK),
        faults=(CLOSING,),
        happens=(Event(FAULTY, kill_hook("epilog", signal.SIGSTOP)),),
        told=HOLDS,
    ),
    Scenario(
        way="acquire takes too long (acquire_timeout)",
        submit=batch(SAY_AND_TASK),
        faults=(Fault(method="POST", path="/sessions", delay=TOO_LONG),),
        sessions=(1, 2),
        told=HOLDS,
    ),
    Scenario(
        way="release takes too long (release_timeout)",
        submit=batch(SAY_AND_TASK),
        faults=(Fault(path=CLOSE, delay=25),),
        happens=(Event(FAULTY, MEND),),
        told=HOLDS,
    ),
)


def node_down(
    way: str, node: str, fault: Fault, submit: Submit, *, ends: str = "COMPLETED", told: str = HOLDS
) -> Scenario:
    """Make a scenario in which a node is set DOWN while the prolog of a job on it is at work.

    Slurm runs the epilog at once, beside the prolog, which it neither ends nor waits for.
    """
    down = admin("scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=test")
    return Scenario(
        way=f"node set DOWN in the prolog, {way}",
        submit=submit,
        faults=(fault,),
        happens=(
            Event(FAULTY, down),
            Event(seconds(LONG + 3), admin("scontrol", "update", f"NodeName={node}", "State=RESUME")),
        ),
        ends=ends,
        told=told,
        never='"error":|"level":"error"',
        sessions=(0, 1, 2),
    )


def _on(node: str, *options: str) -> tuple[str, ...]:
    return (f"--partition={DOWN}", f"--nodelist={node}", *options)


NODE_DOWN = (
    node_down(
        "before the session is opened", "d1", BEFORE_OPENING, batch(SAY_AND_TASK, *_on("d1", "--requeue"))
    ),
    node_down("while the session is opened", "d2", OPENING, batch(SAY_AND_TASK, *_on("d2", "--requeue"))),
    node_down("after the session was opened", "d3", OPENED, batch(SAY_AND_TASK, *_on("d3", "--requeue"))),
    node_down(
        "of a job that is not requeued",
        "d4",
        OPENED,
        batch(SAY_AND_TASK, *_on("d4", "--no-requeue")),
        ends="NODE_FAIL",
        told="NODE_FAIL",
    ),
)

IN_THE_HOOKS = (
    prolog_killed(
        "between the intent and the request (without a gateway)", BEFORE_OPENING, keys="user", sessions=(1, 2)
    ),
    prolog_killed(
        "between the request and its effect (without a gateway)", OPENING, keys="user", sessions=(1, 2)
    ),
    prolog_killed(
        "between the effect and the record (without a gateway)", OPENED, keys="user", sessions=(1, 2)
    ),
    epilog_killed("between the intent and the request (without a gateway)", CLOSING, keys="user"),
    epilog_killed("between the effect and the record (without a gateway)", CLOSED_ALREADY, keys="user"),
    *_at_random("user", 4),
)

WAYS_TO_END = (*NO_END, *NODE_DOWN, *HOOKS_HANG, *HOOKS_KILLED, *ORDINARY, *CANCELLED, *IN_THE_HOOKS)
