# SPDX-License-Identifier: Apache-2.0
"""What can happen to a job whose QPU's service has no sessions, so that its lease holds a gate.

The service keeps a task until it is deleted: none may be left there.
"""

from __future__ import annotations

from typing import NamedTuple

from qpu_slurm_devkit.emulator import Drop, Fault
from tests.cluster.matrix.events import FAULTY, GO, MEND, RUNS, SCANCEL, seconds
from tests.cluster.matrix.jobs import SAY, SAY_AND_TASK, TASK, WAIT, batch, srun
from tests.cluster.matrix.scenario import Event, Kind, Scenario, Submit
from tests.cluster.matrix.storms import GATEWAY_KILLED
from tests.cluster.matrix.ways_to_end import LONG

GATE = "gate-[0-9a-f]{32}"
HOLDS = f"holds {GATE}"
OPENS = f"opened session {GATE}"


class Requests(NamedTuple):
    """The paths of a service's requests.

    Attributes:
        tasks: Where tasks are submitted and listed.
        task: Where one is read and deleted.
        cancel: Where one is cancelled.
        result: Where a result is read.
    """

    tasks: str
    task: str
    cancel: str
    result: str


PREMISES = Requests("/system/v1/jobs", "/system/v1/jobs/*", "/system/v1/jobs/*/cancel", "/s3/*/results_*")


def ways(kind: Kind, name: str, requests: Requests) -> tuple[Scenario, ...]:
    """Return the scenarios of a kind of service, whose ways begin with its name."""

    def one(
        way: str,
        submit: Submit,
        *faults: Fault,
        happens: tuple[Event, ...] = (),
        ends: str = "COMPLETED",
        told: str = HOLDS,
    ) -> Scenario:
        return Scenario(
            way=f"{name}: {way}",
            submit=submit,
            faults=faults,
            happens=happens,
            ends=ends,
            told=told,
            kind=kind,
        )

    task = batch(SAY_AND_TASK)
    return (
        one("normal", task),
        one("srun", srun(f"{SAY}{TASK}")),
        one("--qpu-session=task", batch(f"exec {TASK}", "--qpu-session=task"), told=OPENS),
        one("failing", batch(f"{SAY}{TASK}exit 3\n"), ends="FAILED", told="FAILED NonZeroExitCode"),
        one(
            "scancel while it runs",
            batch(f"{WAIT}exec {TASK}"),
            happens=(Event(RUNS, SCANCEL),),
            ends="CANCELLED",
            told="CANCELLED",
        ),
        one(
            "scancel while a task runs",
            task,
            Fault(method="GET", path=requests.task, delay=LONG),
            happens=(Event(FAULTY, SCANCEL),),
            ends="CANCELLED",
            told="task_runner: stopped by SIGTERM",
        ),
        one("task, its submission: 503", task, Fault(method="POST", path=requests.tasks, status=503)),
        one(
            "task, its submission: lost after it took effect",
            task,
            Fault(method="POST", path=requests.tasks, drop=Drop.AFTER),
        ),
        one("task, its state: 503", task, Fault(method="GET", path=requests.task, status=503)),
        one("task, its result: 503", task, Fault(method="GET", path=requests.result, status=503)),
        one(
            "task, its submission: 403",
            task,
            Fault(method="POST", path=requests.tasks, status=403),
            ends="FAILED",
            told="task_runner: .*Injected fault",
        ),
        one(
            "release: 503 for a while",
            task,
            Fault(method="GET", path=requests.tasks, status=503, times=None),
            happens=(Event(seconds(12), MEND),),
        ),
        one(
            "accounting, a deletion: 503 for a while",
            task,
            Fault(method="DELETE", path=requests.task, status=503, times=None),
            happens=(Event(seconds(12), MEND),),
        ),
        Scenario(
            way=f"{name}: runs, and ends",
            submit=batch(f"{WAIT}exec {TASK}"),
            storm=GATEWAY_KILLED,
            struck=RUNS,
            happens=(Event(seconds(0.3), GO),),
            told=HOLDS,
            kind=kind,
        ),
    )


WAYS_ON_THE_PREMISES = ways("ibm-quantum-system", "on the premises", PREMISES)
