# SPDX-License-Identifier: Apache-2.0
"""Rows of the journal's tables, as leases and events, inside of a transaction."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, overload

import msgspec

from qpu_slurm.errors import JournalError, QpuFullError
from qpu_slurm.journal.model import TRANSITIONS, Hold, Lease, LeaseState

if TYPE_CHECKING:
    import sqlite3

    from qpu_slurm.journal.model import Holder

CHOSEN = "chosen"
"""The event that says why a lease's job has this QPU; its detail is a `Choice` in JSON."""


def begin_end(db: sqlite3.Connection, lease_id: int, reason: str) -> Lease:
    """Write down the intent to end a lease that gives its job something."""
    lease = one(db, lease_id)
    if lease.state is LeaseState.BOUND and lease.hold is Hold.NONE:
        # Of what is only bound, there is nothing to be ended anywhere else.
        return move(db, lease_id, LeaseState.RELEASED, why=reason, reason=reason, ended_at=now())
    if LeaseState.RELEASING in TRANSITIONS[lease.state]:
        return move(db, lease_id, LeaseState.RELEASING, why=reason, reason=reason)
    return lease


def move(
    db: sqlite3.Connection,
    lease_id: int,
    state: LeaseState,
    *,
    event: str = "",
    why: str = "",
    **columns: str | int | None,
) -> Lease:
    """Bring a lease into another state, and write down that this has happened.

    Args:
        db: The database, in a transaction.
        lease_id: The lease.
        state: The state.
        event: What the event is called, if it is not the state's name.
        why: The event's detail.
        columns: What else changes with the state.

    Raises:
        JournalError: The lease is in a state that this one does not follow; see `TRANSITIONS`.
    """
    before = one(db, lease_id)
    if state not in TRANSITIONS[before.state]:
        raise JournalError(f"Lease {lease_id} cannot become {state}: it is {before.state}.")
    change(db, lease_id, state=state, **columns)
    log(db, lease_id, event or state, why)
    return one(db, lease_id)


def change(db: sqlite3.Connection, lease_id: int, **columns: str | int | None) -> None:
    """Write something of a lease; its state changes by `move` alone."""
    changes = ", ".join(f"{name} = ?" for name in columns)
    # The names are this package's own.
    db.execute(f"UPDATE leases SET {changes} WHERE id = ?", (*columns.values(), lease_id))  # noqa: S608


def insert(db: sqlite3.Connection, holder: Holder, state: LeaseState, **more: str | int | None) -> int:
    """Write a lease, with its user's own credential where there is one; return its number."""
    if state not in TRANSITIONS[None]:
        raise JournalError(f"No lease begins as {state}.")
    values = (
        {"created_at": now(), "state": state}
        | more
        | {
            "job_id": holder["job_id"],
            "user_id": holder["user_id"],
            "run": holder.get("run", ""),
            "account": holder.get("account", ""),
            "submitted_at": text(holder.get("submitted_at")),
            "job_ends_at": text(holder.get("job_ends_at")),
            "tag": holder.get("tag", ""),
        }
    )
    names = ", ".join(values)
    marks = ", ".join("?" * len(values))
    # The names are this package's own.
    cursor = db.execute(f"INSERT INTO leases ({names}) VALUES ({marks})", tuple(values.values()))  # noqa: S608
    lease_id = cursor.lastrowid or 0
    if (api_key := holder.get("api_key")) is not None:
        db.execute("INSERT INTO credentials VALUES (?, ?)", (lease_id, api_key.reveal()))
    if (chosen := holder.get("chosen")) is not None:
        log(db, lease_id, CHOSEN, msgspec.json.encode(chosen).decode())
    return lease_id


def copy(db: sqlite3.Connection, lease: Lease, state: LeaseState, reason: str) -> int:
    """Write another lease of the same job, with the same credential, that begins and ends now."""
    holder: Holder = {
        "job_id": lease.job_id,
        "user_id": lease.user_id,
        "run": lease.run,
        "account": lease.account,
        "submitted_at": lease.submitted_at,
        "job_ends_at": lease.job_ends_at,
        "tag": lease.tag,
    }
    lease_id = insert(
        db,
        holder,
        state,
        qpu=lease.qpu,
        hold=lease.hold,
        intended_at=text(lease.intended_at),
        expires_at=text(lease.expires_at),
        max_ttl=lease.max_ttl,
        ended_at=now(),
        reason=reason,
    )
    db.execute(
        "INSERT INTO credentials SELECT ?, api_key FROM credentials WHERE lease_id = ?", (lease_id, lease.id)
    )
    return lease_id


def add_session(db: sqlite3.Connection, lease_id: int, session_id: str) -> bool:
    """Write down a session of a lease; return whether it was not known before."""
    added = db.execute(
        "INSERT OR IGNORE INTO sessions (session_id, lease_id, opened_at) VALUES (?, ?, ?)",
        (session_id, lease_id, now()),
    )
    return bool(added.rowcount)


def is_news(db: sqlite3.Connection, job_id: int, qpu: str, run: str, session_id: str | None) -> bool:
    """Tell whether nothing is known of a session, nor of what a run of a job holds on a QPU."""
    if db.execute("SELECT 1 FROM sessions WHERE session_id = ?", (session_id,)).fetchone():
        return False
    query = "SELECT * FROM leases WHERE job_id = ? AND qpu = ?"
    found = [lease_of(row) for row in db.execute(query, (job_id, qpu))]
    return not any(lease.is_of(run) or not lease.state.final for lease in found)


def jobs_on(db: sqlite3.Connection, qpu: str) -> frozenset[int]:
    """Read which jobs have a QPU, or may have a session on it yet; not those that never get one."""
    query = (
        "SELECT job_id FROM open_leases WHERE qpu = ? AND hold <> 'none' AND (state <> 'releasing'"
        " OR (ifnull(session_id, intended_at) IS NOT NULL AND ifnull(expires_at, 'forever') > ?))"
    )
    return frozenset(row["job_id"] for row in db.execute(query, (qpu, now())))


def make_sure_of_room(db: sqlite3.Connection, qpu: str, job_id: int, limit: int | None) -> None:
    """Raise `QpuFullError` if as many other jobs as may have a QPU."""
    if limit is None:
        return
    jobs = jobs_on(db, qpu)
    if job_id not in jobs and len(jobs) >= limit:
        raise QpuFullError(f"{qpu} is in use by {len(jobs)} jobs, the most that may use it at once.")


def end_sessions(db: sqlite3.Connection, lease_id: int) -> None:
    """Write down that the sessions of a lease take no more tasks."""
    db.execute("UPDATE sessions SET ended_at = ? WHERE lease_id = ? AND ended_at IS NULL", (now(), lease_id))


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


def open_leases(db: sqlite3.Connection, job_id: int) -> list[Lease]:
    """Read what a job has that is not over."""
    query = "SELECT * FROM open_leases WHERE job_id = ? ORDER BY id"
    return [lease_of(row) for row in db.execute(query, (job_id,))]


def lease_of(row: sqlite3.Row) -> Lease:
    """Make a lease of its row."""
    return msgspec.convert(dict(row), Lease)


def now() -> str:
    """Write the time."""
    return text(datetime.now(UTC))


@overload
def text(time_: datetime) -> str: ...
@overload
def text(time_: None) -> None: ...
def text(time_: datetime | None) -> str | None:
    """Write a time so that texts sort as times do."""
    return None if time_ is None else time_.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
