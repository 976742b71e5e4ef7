# SPDX-License-Identifier: Apache-2.0
"""Rows of the journal's tables, as leases and events, inside of a transaction."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec

from qpu_slurm.errors import JournalError
from qpu_slurm.leases.model import Lease

if TYPE_CHECKING:
    import sqlite3


def begin_end(db: sqlite3.Connection, lease_id: int, reason: str) -> Lease:
    """Write down the intent to end a lease that gives its job something."""
    changed = db.execute(
        "UPDATE leases SET state = 'releasing', reason = ? WHERE id = ? AND state IN ('acquiring', 'held')",
        (reason, lease_id),
    )
    # Of what is only bound, there is nothing to be ended anywhere else.
    ended = db.execute(
        "UPDATE leases SET state = 'released', reason = ?, ended_at = ? WHERE id = ? AND state = 'bound'",
        (reason, now(), lease_id),
    )
    if changed.rowcount or ended.rowcount:
        log(db, lease_id, "releasing" if changed.rowcount else "released", reason)
    return one(db, lease_id)


def log(db: sqlite3.Connection, lease_id: int, what: str, detail: str) -> None:
    """Write down an event; see `Event`."""
    db.execute(
        "INSERT INTO events (time, lease_id, what, detail) VALUES (?, ?, ?, ?)",
        (now(), lease_id, what, detail),
    )


def one(db: sqlite3.Connection, lease_id: int) -> Lease:
    """Read a lease."""
    row = db.execute("SELECT * FROM leases WHERE id = ?", (lease_id,)).fetchone()
    if row is None:
        raise JournalError(f"The journal knows no lease {lease_id}.")
    return lease_of(row)


def lease_of(row: sqlite3.Row) -> Lease:
    """Make a lease of its row."""
    return msgspec.convert(dict(row), Lease)


def now() -> str:
    """Write the time."""
    return text(datetime.now(UTC))


def text(time_: datetime) -> str:
    """Write a time so that texts sort as times do."""
    return time_.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
