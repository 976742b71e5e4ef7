# SPDX-License-Identifier: Apache-2.0
"""Jobs that the rules of a centre refuse, or let through: docs/rules.md."""

from __future__ import annotations

from tests.cluster.matrix.jobs import HOLDS, SAY, SAY_AND_TASK, batch, het, srun
from tests.cluster.matrix.scenario import Scenario

NOT_FOR_NOBODY = '{ deny = [{ users = ["nobody"] }], contact = "quantum@centre.example" }'
DENIED = "but not for user nobody. Ask quantum@centre.example"

WAYS_BY_RULES = (
    Scenario(
        way="the user may not use the QPU",
        submit=batch(SAY_AND_TASK),
        access=NOT_FOR_NOBODY,
        ends="FAILED",
        told=DENIED,
        sessions=(0,),
    ),
    Scenario(
        way="the user may not use the QPU (without a gateway)",
        submit=batch(SAY_AND_TASK),
        access=NOT_FOR_NOBODY,
        ends="FAILED",
        told=DENIED,
        sessions=(0,),
        keys="user",
    ),
    Scenario(
        way="srun, the user may not use the QPU",
        submit=srun(SAY),
        access=NOT_FOR_NOBODY,
        ends="CANCELLED",
        told=DENIED,
        sessions=(0,),
    ),
    Scenario(
        way="the QPU is for another partition",
        submit=batch(SAY_AND_TASK, "--partition=normal"),
        access='{ allow = [{ partitions = ["quantum"] }] }',
        ends="FAILED",
        told="in partition normal: it is for jobs in partition quantum",
        sessions=(0,),
    ),
    Scenario(
        way="het job, the QPU is for the partition of one component",
        submit=het("--qpu={qpu} --partition=normal", "", SAY_AND_TASK),
        access='{ allow = [{ partitions = ["quantum"] }] }',
        told=HOLDS,
    ),
)
