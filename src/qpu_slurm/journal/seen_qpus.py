# SPDX-License-Identifier: Apache-2.0
"""How the QPUs were when their services were last asked: whoever asks, all processes need not ask again."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec

from qpu_slurm.journal import rows

if TYPE_CHECKING:
    import sqlite3

    from qpu_slurm.journal.database import Database


class SeenQpu(msgspec.Struct, frozen=True, kw_only=True):
    """How a QPU was.

    Attributes:
        qpu: Its name.
        online: Whether it took tasks.
        reason: Why not.
        seen_at: When the service said so.
    """

    qpu: str
    online: bool
    reason: str
    seen_at: datetime

    @property
    def age(self) -> float:
        """Seconds since the service said so; a clock that was set back makes it old."""
        age = (datetime.now(UTC) - self.seen_at).total_seconds()
        return age if age >= 0 else float("inf")


class SeenQpus:
    """The part of the journal that says how the QPUs were. All of it may raise `JournalError`.

    Args:
        database: The journal's file.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def note(self, qpu: str, *, online: bool, reason: str = "") -> SeenQpu:
        """Write down how a QPU is now."""
        with self._database.transaction() as db:
            db.execute(
                "INSERT OR REPLACE INTO seen_qpus (qpu, online, reason, seen_at) VALUES (?, ?, ?, ?)",
                (qpu, online, reason, rows.now()),
            )
            return _read(db.execute("SELECT * FROM seen_qpus WHERE qpu = ?", (qpu,)).fetchone())

    def find(self, qpu: str) -> SeenQpu | None:
        """Return how a QPU was when it was last asked for; None if it never was."""
        with self._database.reading() as db:
            row = db.execute("SELECT * FROM seen_qpus WHERE qpu = ?", (qpu,)).fetchone()
        return None if row is None else _read(row)


def _read(row: sqlite3.Row) -> SeenQpu:
    return msgspec.convert(dict(row), SeenQpu, strict=False)
