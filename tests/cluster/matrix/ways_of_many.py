# SPDX-License-Identifier: Apache-2.0
"""Many jobs that start at once: their sessions are opened side by side, whatever goes wrong meanwhile.

There are as many sessions as jobs: none was opened in vain. If a process is killed, there may be one more for
each job: the session that was being opened for it, or one whose answer was too late on a busy machine.
"""

from __future__ import annotations

import msgspec

from qpu_slurm_devkit.emulator import Drop, Fault
from tests.cluster.matrix.events import FAULTY, kill_hook
from tests.cluster.matrix.jobs import HOLDS, SAY, batch
from tests.cluster.matrix.scenario import Event, Scenario
from tests.cluster.matrix.storms import GATEWAY_KILLED
from tests.cluster.matrix.ways_to_end import BEFORE_OPENING, CLOSING, OPENED, OPENING

JOBS = 6

AT_MOST = tuple(range(JOBS, 2 * JOBS + 1))

MANY = batch(f"{SAY}sleep 1\n", f"--array=1-{JOBS}")

TROUBLES = {
    "a service that is asked too much": Fault(
        method="POST", path="/sessions", status=429, retry_after="1", times=4
    ),
    "a slow service": Fault(method="POST", path="/sessions", delay=2, times=None),
    "answers lost after they took effect": Fault(method="POST", path="/sessions", drop=Drop.AFTER, times=4),
    "answers lost before they took effect": Fault(method="POST", path="/sessions", drop=Drop.BEFORE, times=4),
}

STEPS = {
    "before the sessions are opened": BEFORE_OPENING,
    "while the sessions are opened": OPENING,
    "after the sessions were opened": OPENED,
}

WAYS_OF_MANY = (
    *(
        Scenario(
            way=f"{JOBS} jobs at once, {what}",
            submit=MANY,
            faults=(fault,),
            sessions=(JOBS,),
            told=HOLDS,
        )
        for what, fault in TROUBLES.items()
    ),
    *(
        Scenario(
            way=f"{JOBS} jobs at once, a prolog killed {step}",
            submit=MANY,
            faults=(msgspec.structs.replace(fault, times=JOBS),),
            happens=(Event(FAULTY, kill_hook("prolog")),),
            sessions=AT_MOST,
            told=HOLDS,
        )
        for step, fault in STEPS.items()
    ),
    *(
        Scenario(
            way=f"{JOBS} jobs at once, {step}",
            submit=MANY,
            faults=(msgspec.structs.replace(fault, times=JOBS),),
            storm=GATEWAY_KILLED,
            struck=FAULTY,
            sessions=AT_MOST,
            told=HOLDS,
        )
        for step, fault in (STEPS | {"as they end": CLOSING}).items()
    ),
)
