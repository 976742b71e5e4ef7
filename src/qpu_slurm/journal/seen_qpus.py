# SPDX-License-Identifier: Apache-2.0
"""The last known status of each QPU. One process asks the service, and all processes read the answer here."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec

from qpu_slurm.journal import rows

if TYPE_CHECKING:
    import sqlite3

    from qpu_slurm.journal.database import Database


class SeenQpu(msgspec.Struct, frozen=True, kw_only=True):
    """The last known status of a QPU.

    Attributes:
        qpu: Its name.
        online: Whether it took tasks.
        reason: Why not.
        seen_at: When the service was asked.
    """

    qpu: str
    online: bool
    reason: str
    seen_at: datetime

    @property
    def age(self) -> float:
        """Seconds since the service was asked; infinite if the clock was set back meanwhile."""
        age = (datetime.now(UTC) - self.seen_at).total_seconds()
        return age if age >= 0 else float("inf")


class SeenQpus:
    """The part of the journal with the QPUs' last known status. Every method may raise `JournalError`.

    Args:
        database: The journal's file.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def note(self, qpu: str, *, asked_at: datetime, online: bool, reason: str = "") -> SeenQpu:
        """Record what a service has answered about a QPU, unless a later question was answered before.

        Answers overtake each other: the watcher's question may wait for a slow account while a job that
        starts gets an answer at once.

        Args:
            qpu: Its name.
            asked_at: When the service was asked.
            online: Whether the QPU takes tasks.
            reason: Why not.

        Returns:
            The newest status that is known.
        """
        with self._database.transaction() as db:
            db.execute(
                "INSERT INTO seen_qpus (qpu, online, reason, seen_at) VALUES (?, ?, ?, ?)"
                " ON CONFLICT (qpu) DO UPDATE SET"
                " online = excluded.online, reason = excluded.reason, seen_at = excluded.seen_at"
                # A time in the future is from before the clock was set back.
                " WHERE excluded.seen_at >= seen_at OR seen_at > ?",
                (qpu, online, reason, rows.text(asked_at), rows.now()),
            )
            return _read(db.execute("SELECT * FROM seen_qpus WHERE qpu = ?", (qpu,)).fetchone())

    def find(self, qpu: str) -> SeenQpu | None:
        """Return a QPU's last known status; None if no service was asked yet."""
        with self._database.reading() as db:
            row = db.execute("SELECT * FROM seen_qpus WHERE qpu = ?", (qpu,)).fetchone()
        return None if row is None else _read(row)


def _read(row: sqlite3.Row) -> SeenQpu:
    return msgspec.convert(dict(row), SeenQpu, strict=False)
