# SPDX-License-Identifier: Apache-2.0
"""All scenarios, in the order of docs/reliability.md."""

from __future__ import annotations

from tests.cluster.matrix import ways_of_the_cluster as cluster
from tests.cluster.matrix.ways_by_rules import WAYS_BY_RULES
from tests.cluster.matrix.ways_of_arrays import WAYS_OF_ARRAYS
from tests.cluster.matrix.ways_of_many import WAYS_OF_MANY
from tests.cluster.matrix.ways_the_service_fails import WAYS_THE_SERVICE_FAILS
from tests.cluster.matrix.ways_to_end import WAYS_TO_END
from tests.cluster.matrix.ways_to_live import WAYS_TO_LIVE
from tests.cluster.matrix.ways_to_wait import WAYS_TO_WAIT
from tests.cluster.matrix.ways_without_sessions import WAYS_ON_THE_PREMISES

GROUPS = {
    "Every way a job can live": WAYS_TO_LIVE,
    "Every way an element of an array can wait": WAYS_OF_ARRAYS,
    "Every way its steps can wait": WAYS_TO_WAIT,
    "Many jobs at once": WAYS_OF_MANY,
    "Every way it can end": (
        *WAYS_TO_END,
        *cluster.GATEWAY,
        *cluster.JOURNAL,
        *cluster.SLURMCTLD,
        *cluster.CLOCKS,
        *cluster.JOURNAL_OF_THE_HOOKS,
    ),
    "Rules of the centre": WAYS_BY_RULES,
    "Every way the service can fail": (*WAYS_THE_SERVICE_FAILS, *cluster.REFUSED, *cluster.EXPIRED),
    "QPUs on the premises, without sessions": WAYS_ON_THE_PREMISES,
}
