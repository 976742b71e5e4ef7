# SPDX-License-Identifier: Apache-2.0
"""Every way the service can fail, at each request of acquire, task and release."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from qpu_slurm_devkit.emulator import Drop, Fault
from tests.cluster.matrix.events import (
    AT_ONCE,
    CANCEL_TASK,
    CLOSED,
    FAULTY,
    GO,
    LET_GO,
    MEND,
    RUNS,
    SERVICE_CLOSES,
    pause,
    restarted,
    resume,
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
    WAIT,
    batch,
    het,
    salloc,
    srun,
)
from tests.cluster.matrix.scenario import BEFORE, Event, Scenario, When

NOT_AVAILABLE = '{"errors": [{"code": 1004, "message": "Being calibrated."}]}'
"""What the service answers for a QPU that takes nothing now."""


class Request(NamedTuple):
    """A request that is part of acquire, of a task, or of release."""

    part: str
    what: str
    method: str
    path: str


class Trouble(NamedTuple):
    """How a request may fail, once."""

    what: str
    fault: Fault


REQUESTS = (
    Request("acquire", "the token", "POST", "/identity/token"),
    Request("acquire", "the session's opening", "POST", "/sessions"),
    Request("task", "its submission", "POST", "/jobs"),
    Request("task", "its state", "GET", "/jobs/*"),
    Request("task", "its result", "GET", "/jobs/*/results"),
    Request("release", "the session's end", "DELETE", "/sessions/*/close"),
    Request("release", "what is left in it", "GET", "/jobs"),
)

TROUBLES = (
    Trouble("401", Fault(status=401)),
    Trouble("403", Fault(status=403)),
    Trouble("404", Fault(status=404)),
    Trouble("429", Fault(status=429)),
    Trouble("429 with Retry-After", Fault(status=429, retry_after="1")),
    Trouble("500", Fault(status=500)),
    Trouble("502, a proxy's page", Fault(status=502, body="<html><h1>Bad Gateway</h1></html>")),
    Trouble("503", Fault(status=503)),
    Trouble("504, empty", Fault(status=504, body="")),
    Trouble("slow", Fault(delay=3)),
    Trouble("lost before it took effect", Fault(drop=Drop.BEFORE)),
    Trouble("lost after it took effect", Fault(drop=Drop.AFTER)),
)

FINAL = ("401", "403", "404")
"""Answers that say that asking again is of no use."""

REFUSED = {
    **{("the token", trouble): ("FAILED", "qpu_slurm: .*Injected fault", 0) for trouble in FINAL},
    **{
        ("the session's opening", trouble): ("FAILED", "qpu_slurm: .*Injected fault", 0)
        for trouble in FINAL[1:]
    },
    **{("its submission", trouble): ("FAILED", "task_runner: .*Injected fault", 1) for trouble in FINAL[1:]},
    **{("its state", trouble): ("FAILED", "task_runner: .*Injected fault", 1) for trouble in FINAL[1:]},
    **{("its result", trouble): ("FAILED", "task_runner: .*Injected fault", 1) for trouble in FINAL[1:]},
}
"""The cells that do not end well: the state, what the user is told, how many sessions there were."""


def _cell(request: Request, trouble: Trouble) -> Scenario:
    ends, told, sessions = REFUSED.get((request.what, trouble.what), ("COMPLETED", HOLDS, 1))
    fault = msgspec.structs.replace(trouble.fault, method=request.method, path=request.path)
    return Scenario(
        way=f"{request.part}, {request.what}: {trouble.what}",
        submit=batch(SAY_AND_TASK),
        faults=(fault,),
        ends=ends,
        told=told,
        sessions=(sessions,),
        # The gateway has its tokens from before.
        keys="user" if request.path == "/identity/token" else "gateway",
    )


ONCE = tuple(_cell(request, trouble) for request in REQUESTS for trouble in TROUBLES)

FOR_A_TASK = tuple(
    Scenario(
        way=f"--qpu-session=task, the session's opening for the first task: {trouble.what}",
        submit=batch(f"exec {TASK}", "--qpu-session=task"),
        faults=(msgspec.structs.replace(trouble.fault, method="POST", path="/sessions"),),
        told=OPENS,
    )
    for trouble in TROUBLES
    if trouble.what not in FINAL
)

GIVEN_UP = "given up after 2 new starts"

LASTING = (
    Scenario(
        way="acquire: 503 for ever",
        submit=batch(SAY_AND_TASK),
        faults=(Fault(method="POST", path="/sessions", status=503, times=None),),
        ends="FAILED",
        told=GIVEN_UP,
        sessions=(0,),
    ),
    Scenario(
        way="acquire: 503 until the job was requeued",
        submit=batch(SAY_AND_TASK),
        faults=(Fault(method="POST", path="/sessions", status=503, times=None),),
        happens=(Event(restarted(1), MEND),),
        told=HOLDS,
    ),
    Scenario(
        way="acquire of a het job: 503 until it was requeued",
        submit=het("--qpu={qpu}", "", SAY),
        faults=(Fault(method="POST", path="/sessions", status=503, times=None),),
        happens=(Event(restarted(1), MEND),),
        told=HOLDS,
    ),
    Scenario(
        way="acquire, --no-requeue: 503 for ever",
        submit=batch(SAY_AND_TASK, "--no-requeue"),
        faults=(Fault(method="POST", path="/sessions", status=503, times=None),),
        ends="FAILED",
        told="could not be requeued",
        sessions=(0,),
    ),
    Scenario(
        way="acquire, every answer lost after it took effect",
        submit=batch(SAY_AND_TASK),
        faults=(Fault(method="POST", path="/sessions", drop=Drop.AFTER, times=3),),
        told=HOLDS,
    ),
    Scenario(
        way="acquire, srun: 503 for ever",
        submit=srun(SAY),
        faults=(Fault(method="POST", path="/sessions", status=503, times=None),),
        ends="CANCELLED",
        told="qpu_slurm: .*Injected fault",
        sessions=(0,),
    ),
    Scenario(
        way="acquire, salloc: 403",
        submit=salloc(SAY),
        faults=(Fault(method="POST", path="/sessions", status=403),),
        ends="CANCELLED",
        told="qpu_slurm: .*Injected fault",
        sessions=(0,),
    ),
    Scenario(
        way="acquire of the second of two QPUs: 403",
        submit=batch(SAY_AND_TASK, "--qpu={qpu},{qpu}b"),
        second="ibm_torino",
        faults=(Fault(method="POST", path="/sessions", skip=1, status=403, times=None),),
        ends="FAILED",
        told="qpu_slurm: .*Injected fault",
    ),
    Scenario(
        way="acquire of the QPU that was chosen: not available",
        submit=batch(
            f"{SAY}exec task_runner any input.json {{qpu}}.json\n", "--qpu={qpu}|{qpu}b:qubits>=100"
        ),
        # Of equal waits, the smaller error is chosen first.
        backend="ibm_fez",
        second="ibm_torino",
        faults=(Fault(method="POST", path="/sessions", status=400, body=NOT_AVAILABLE),),
        told=HOLDS,
    ),
    Scenario(
        way="acquire of the QPU that was chosen, srun: 503 for ever, as of the other one",
        submit=srun(SAY, "--qpu={qpu}|{qpu}b"),
        second="ibm_torino",
        faults=(Fault(method="POST", path="/sessions", status=503, times=None),),
        ends="CANCELLED",
        told="qpu_slurm: .*No QPU is available now for",
        sessions=(0,),
    ),
    Scenario(
        way="task: 503 for 10 requests",
        submit=batch(SAY_AND_TASK),
        faults=(Fault(method="GET", path="/jobs/*", status=503, times=10),),
        told=HOLDS,
    ),
    Scenario(
        way="release: 503 for a while",
        submit=batch(SAY_AND_TASK),
        faults=(Fault(method="DELETE", status=503, times=30),),
        happens=(Event(seconds(8), MEND),),
        told=HOLDS,
    ),
    Scenario(
        way="release: 401, then the key is right again",
        submit=batch(SAY_AND_TASK),
        faults=(Fault(method="DELETE", status=401, times=4),),
        told=HOLDS,
    ),
)


def maintenance(
    part: str,
    backend: str,
    script: str,
    *faults: Fault,
    since: When,
    then: tuple[Event, ...],
) -> Scenario:
    """Make a scenario of a job whose QPU, which no other has, goes into maintenance in its life."""
    return Scenario(
        way=f"QPU in maintenance as {part}",
        submit=batch(script),
        faults=faults,
        backend=backend,
        happens=(Event(since, pause(backend, "Back on Monday.")), *then),
        told=HOLDS,
    )


OF_ITS_OWN_ACCORD = (
    Scenario(
        way="the service closes the session of a job that runs",
        submit=batch(f"{WAIT}exec {TASK}"),
        happens=(Event(RUNS, SERVICE_CLOSES), Event(seconds(0.5), GO)),
        told=OPENS,
        sessions=(2,),
    ),
    Scenario(
        way="the service closes the session of a job that waits for its end",
        submit=batch(WAIT),
        happens=(Event(RUNS, SERVICE_CLOSES), Event(seconds(0.5), GO)),
        told=HOLDS,
    ),
    Scenario(
        way="QPU in maintenance, for a while",
        submit=batch(SAY_AND_TASK),
        backend="ibm_lima",
        happens=(
            Event(BEFORE, pause("ibm_lima", "Back on Monday.")),
            Event(told("Back on Monday."), resume("ibm_lima")),
        ),
        told="Back on Monday",
    ),
    Scenario(
        way="QPU in maintenance, srun",
        submit=srun(SAY, "--begin=now+1"),
        backend="ibm_quito",
        happens=(Event(BEFORE, pause("ibm_quito", "Back on Monday.")),),
        ends="CANCELLED",
        told="Back on Monday",
        sessions=(0,),
    ),
    maintenance(
        "the session is opened",
        "ibm_belem",
        f"{WAIT}exec {TASK}",
        Fault(method="POST", path="/sessions", delay=2),
        since=FAULTY,
        then=(LET_GO, Event(seconds(3), resume("ibm_belem"))),
    ),
    maintenance(
        "the task is submitted",
        "ibm_bogota",
        f"{WAIT}exec {TASK}",
        since=RUNS,
        then=(Event(AT_ONCE, GO), Event(seconds(3), resume("ibm_bogota"))),
    ),
    maintenance(
        "the job ends",
        "ibm_manila",
        WAIT,
        since=RUNS,
        then=(Event(AT_ONCE, GO), Event(CLOSED, resume("ibm_manila"))),
    ),
    Scenario(
        way="Open plan, which has no dedicated sessions",
        submit=batch(SAY_AND_TASK),
        plan="open",
        ends="FAILED",
        told="qpu_slurm: .*(?i:open plan|dedicated)",
        sessions=(0,),
    ),
    Scenario(
        way="Open plan, srun",
        submit=srun(SAY),
        plan="open",
        ends="CANCELLED",
        told="qpu_slurm: .*(?i:open plan|dedicated)",
        sessions=(0,),
    ),
)

IN_A_LOOP = (
    *(
        Scenario(
            way=f"a loop of tasks, a result: {trouble.what}",
            submit=batch(LOOP),
            faults=(
                msgspec.structs.replace(trouble.fault, method="GET", path="/jobs/*/results", skip=2, times=2),
            ),
            happens=(LET_GO,),
            told=LOOPED,
        )
        for trouble in TROUBLES
        if trouble.what in {"429 with Retry-After", "500", "slow", "lost after it took effect"}
    ),
    Scenario(
        way="a loop of tasks",
        submit=batch(LOOP),
        happens=(Event(RUNS, SERVICE_CLOSES), Event(seconds(1), GO)),
        told=LOOPED,
        sessions=(2,),
    ),
    Scenario(
        way="a loop of tasks",
        submit=batch(LOOP),
        happens=(Event(RUNS, CANCEL_TASK),),
        ends="FAILED",
        told="Task .* was cancelled. Cancelled by the service",
    ),
)

WAYS_THE_SERVICE_FAILS = (*LASTING, *IN_A_LOOP, *OF_ITS_OWN_ACCORD, *ONCE, *FOR_A_TASK)
