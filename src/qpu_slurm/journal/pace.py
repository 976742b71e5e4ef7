# SPDX-License-Identifier: Apache-2.0
"""How long the last sessions and tasks on each QPU took: what a job that starts now has to expect."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from qpu_slurm.journal.database import Database

_SESSIONS: Final = 500
"""How many sessions are looked at: the last ones on all QPUs."""

_LEAST: Final = 1.0
"""Seconds that anything takes at least: else many jobs on a QPU would count as none."""


class Pace(msgspec.Struct, frozen=True, kw_only=True):
    """How long things take on a QPU. The defaults are a guess, for a QPU that nothing is known of.

    Attributes:
        session: Seconds for which a session has the QPU locked.
        task: Seconds that a task runs.
    """

    session: float = 60.0
    task: float = 10.0


class Paces:
    """The part of the journal that says how long things take. It may raise `JournalError`.

    Args:
        database: The journal's file.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def by_qpu(self) -> dict[str, Pace]:
        """Return the means of the last sessions, and of their tasks, for each QPU that has any."""
        query = (
            "SELECT qpu, avg(locked_seconds) AS session, sum(executed_seconds) AS executed,"
            " sum(tasks) AS tasks"
            " FROM (SELECT leases.qpu, locked_seconds, ifnull(executed_seconds, 0) AS executed_seconds,"
            " (SELECT count(*) FROM tasks WHERE tasks.session_id = sessions.session_id) AS tasks"
            " FROM sessions JOIN leases ON leases.id = sessions.lease_id"
            " WHERE sessions.ended_at IS NOT NULL AND locked_seconds IS NOT NULL"
            " ORDER BY sessions.ended_at DESC LIMIT ?) GROUP BY qpu"
        )
        usual = Pace()
        with self._database.reading() as db:
            return {
                row["qpu"]: Pace(
                    session=max(row["session"], _LEAST),
                    task=max(row["executed"] / row["tasks"], _LEAST) if row["tasks"] else usual.task,
                )
                for row in db.execute(query, (_SESSIONS,))
            }
