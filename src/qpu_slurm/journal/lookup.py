# SPDX-License-Identifier: Apache-2.0
"""What a broker and an admin ask the journal about leases; nothing here changes it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from qpu_slurm.journal import rows
from qpu_slurm.journal.model import Event, Lease, LeaseState
from qpu_slurm.qpu_option import Choice
from qpu_slurm.system.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from qpu_slurm.journal.database import Database


class Lookup:
    """The questions that a journal answers about leases.

    Args:
        database: The file.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def lease(self, lease_id: int) -> Lease:
        """Read a lease."""
        with self._database.reading() as db:
            return rows.one(db, lease_id)

    def find(self, lease_id: int) -> Lease | None:
        """Read a lease by a number that somebody claims; None if there is none of it."""
        with self._database.reading() as db:
            row = db.execute("SELECT * FROM leases WHERE id = ?", (lease_id,)).fetchone()
        return rows.lease_of(row) if row else None

    def open_lease(self, job_id: int, qpu: str) -> Lease | None:
        """Read a job's lease that has, or may have, a session on a QPU, if there is one."""
        query = (
            "SELECT * FROM open_leases WHERE job_id = ? AND qpu = ? AND (state <> 'bound' OR hold <> 'none')"
        )
        with self._database.reading() as db:
            row = db.execute(query, (job_id, qpu)).fetchone()
        return rows.lease_of(row) if row else None

    def is_news(self, job_id: int, qpu: str, run: str, session_id: str | None) -> bool:
        """Tell whether nothing is known of a session, nor of what a run of a job holds on a QPU."""
        with self._database.reading() as db:
            return rows.is_news(db, job_id, qpu, run, session_id)

    def unsettled(self) -> list[Lease]:
        """Read the leases that are over without a session, of which nobody knows that none was opened."""
        with self._database.reading() as db:
            return [rows.lease_of(row) for row in db.execute("SELECT * FROM unsettled_leases ORDER BY id")]

    def unanswered(self) -> list[Lease]:
        """Read the leases whose session was asked for and is not recorded, those that are over last."""
        queries = (
            "SELECT * FROM open_leases WHERE intended_at IS NOT NULL AND session_id IS NULL ORDER BY id",
            "SELECT * FROM unsettled_leases ORDER BY id",
        )
        found = []
        for query in queries:
            with self._database.reading() as db:
                found += [rows.lease_of(row) for row in db.execute(query)]
        return found

    def leases(self, *, job_id: int | None = None, over: bool = False) -> list[Lease]:
        """Read leases, the oldest first.

        Args:
            job_id: Only this job's; None reads everybody's.
            over: Those that are over, too.
        """
        query = "SELECT * FROM leases" if over else "SELECT * FROM open_leases"
        if job_id is not None:
            query += " WHERE job_id = ?"
        with self._database.reading() as db:
            # `+id`: found by their state, then sorted; not found by going through all leases of a year.
            found = db.execute(query + " ORDER BY +id", () if job_id is None else (job_id,))
            return [rows.lease_of(row) for row in found]

    def count(self) -> dict[tuple[str, LeaseState], int]:
        """Count the leases that are not over, by QPU and state."""
        query = "SELECT qpu, state, count(*) AS found FROM open_leases GROUP BY qpu, state"
        with self._database.reading() as db:
            return {(row["qpu"], LeaseState(row["state"])): row["found"] for row in db.execute(query)}

    def jobs_on(self, qpu: str) -> frozenset[int]:
        """Read which jobs have a QPU, or may have a session on it yet; not those that never get one."""
        with self._database.reading() as db:
            return rows.jobs_on(db, qpu)

    def holder_of(self, session_id: str) -> Lease | None:
        """Read the lease that has, or had, a session; None if none had it."""
        query = "SELECT * FROM leases WHERE id = (SELECT lease_id FROM sessions WHERE session_id = ?)"
        with self._database.reading() as db:
            row = db.execute(query, (session_id,)).fetchone()
        return rows.lease_of(row) if row else None

    def known_sessions(self, since: datetime) -> frozenset[str]:
        """Read the sessions that leases hold, or held until after `since`."""
        query = "SELECT session_id FROM sessions WHERE ended_at IS NULL OR ended_at >= ?"
        with self._database.reading() as db:
            return frozenset(row["session_id"] for row in db.execute(query, (rows.text(since),)))

    def api_key(self, lease_id: int) -> Secret | None:
        """Read the user's own credential, if the lease is not over and needs one."""
        query = "SELECT api_key FROM credentials WHERE lease_id = ?"
        with self._database.reading() as db:
            row = db.execute(query, (lease_id,)).fetchone()
        return Secret(row["api_key"]) if row else None

    def events(self, lease_id: int) -> list[Event]:
        """Read what happened to a lease, in order."""
        query = "SELECT time, lease_id, what, detail FROM events WHERE lease_id = ? ORDER BY id"
        with self._database.reading() as db:
            return [msgspec.convert(dict(row), Event) for row in db.execute(query, (lease_id,))]

    def with_choices(self, leases: Iterable[Lease]) -> list[Lease]:
        """Return leases with what was written down of why their jobs have these QPUs."""
        query = "SELECT detail FROM events WHERE lease_id = ? AND what = ?"
        found = []
        with self._database.reading() as db:
            for lease in leases:
                row = db.execute(query, (lease.id, rows.CHOSEN)).fetchone()
                chosen = None if row is None else msgspec.json.decode(row["detail"], type=Choice)
                found.append(msgspec.structs.replace(lease, chosen=chosen))
        return found

    def statistics(self) -> dict[str, int]:
        """Count what is in the journal: its schema's version, the leases by state, the rows of each table."""
        with self._database.reading() as db:
            counted = {"schema": int(db.execute("PRAGMA user_version").fetchone()[0])}
            for state, leases in db.execute("SELECT state, count(*) FROM leases GROUP BY state"):
                counted[f"leases {state}"] = leases
            tables = "SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name"
            for (table,) in db.execute(tables).fetchall():
                # The schema's own names: no user's input is in them.
                rows_of = db.execute(f'SELECT count(*) FROM "{table}"')  # noqa: S608 - likewise
                counted[table] = rows_of.fetchone()[0]
        return counted

    def last_event(self) -> int:
        """Return the number of what happened last; see `end_one`."""
        with self._database.reading() as db:
            return int(db.execute("SELECT ifnull(max(id), 0) FROM events").fetchone()[0])
