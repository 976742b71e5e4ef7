# SPDX-License-Identifier: Apache-2.0
"""The users that an admin has blocked: they get no QPU."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import msgspec

from qpu_slurm.journal import rows

if TYPE_CHECKING:
    from qpu_slurm.journal.database import Database


class BlockedUser(msgspec.Struct, frozen=True, kw_only=True):
    """A blocked user.

    Attributes:
        user_id: The user.
        reason: The reason, in the admin's words, which the user sees.
        blocked_by: The admin's user id.
        blocked_at: When the admin blocked the user.
    """

    user_id: int
    reason: str
    blocked_by: int
    blocked_at: datetime


class BlockedUsers:
    """The blocked users in the journal. Every method may raise `JournalError`.

    Args:
        database: The journal's file.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, user_id: int, reason: str, blocked_by: int) -> None:
        """Block a user; replace the reason if the user is blocked already."""
        with self._database.transaction(durable=True) as db:
            db.execute(
                "INSERT OR REPLACE INTO blocked_users (user_id, reason, blocked_by, blocked_at)"
                " VALUES (?, ?, ?, ?)",
                (user_id, reason, blocked_by, rows.now()),
            )

    def remove(self, user_id: int) -> bool:
        """Unblock a user; return whether the user was blocked."""
        with self._database.transaction(durable=True) as db:
            return bool(db.execute("DELETE FROM blocked_users WHERE user_id = ?", (user_id,)).rowcount)

    def find(self, user_id: int) -> BlockedUser | None:
        """Return a user's entry; None if the user is not blocked."""
        with self._database.reading() as db:
            row = db.execute("SELECT * FROM blocked_users WHERE user_id = ?", (user_id,)).fetchone()
        return None if row is None else msgspec.convert(dict(row), BlockedUser)

    def all(self) -> list[BlockedUser]:
        """List the blocked users."""
        with self._database.reading() as db:
            found = db.execute("SELECT * FROM blocked_users ORDER BY blocked_at").fetchall()
        return [msgspec.convert(dict(row), BlockedUser) for row in found]
