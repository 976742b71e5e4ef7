# SPDX-License-Identifier: Apache-2.0
"""The QPUs that an admin has closed to new leases, as scontrol drains a node."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import msgspec

from qpu_slurm.journal import rows

if TYPE_CHECKING:
    from qpu_slurm.journal.database import Database


class Closing(msgspec.Struct, frozen=True, kw_only=True):
    """A QPU that is closed to new leases.

    Attributes:
        qpu: Its name.
        reason: The reason, in the admin's words.
        user_id: The admin's user id.
        closed_at: When the admin closed it.
    """

    qpu: str
    reason: str
    user_id: int
    closed_at: datetime


class Closings:
    """The closed QPUs in the journal. Every method may raise `JournalError`.

    Args:
        database: The journal's file.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def close(self, qpu: str, reason: str, user_id: int) -> None:
        """Close a QPU; replace reason and admin if it is closed already."""
        with self._database.transaction(durable=True) as db:
            db.execute(
                "INSERT INTO closed_qpus (qpu, reason, user_id, closed_at) VALUES (?, ?, ?, ?)"
                " ON CONFLICT (qpu) DO UPDATE SET reason = excluded.reason, user_id = excluded.user_id",
                (qpu, reason, user_id, rows.now()),
            )

    def open(self, qpu: str) -> bool:
        """Open a QPU again; return whether it was closed."""
        with self._database.transaction(durable=True) as db:
            return bool(db.execute("DELETE FROM closed_qpus WHERE qpu = ?", (qpu,)).rowcount)

    def all(self) -> dict[str, Closing]:
        """Return the closed QPUs, by name."""
        with self._database.reading() as db:
            found = [msgspec.convert(dict(row), Closing) for row in db.execute("SELECT * FROM closed_qpus")]
        return {closing.qpu: closing for closing in found}
