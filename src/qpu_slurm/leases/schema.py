# SPDX-License-Identifier: Apache-2.0
"""The journal's tables.

A step once released is never changed: what comes later is a step of its own. The file's `user_version`
counts the steps that it has. The SQL is held to what SQLite 3.26 knows (the enterprise distributions').
"""

from __future__ import annotations

SCHEMA: tuple[tuple[str, ...], ...] = (
    (
        """
        CREATE TABLE leases (
            -- AUTOINCREMENT: the number of a lease never comes again.
            id          INTEGER PRIMARY KEY AUTOINCREMENT,
            job_id      INTEGER NOT NULL,
            user_id     INTEGER NOT NULL,
            qpu         TEXT NOT NULL,
            state       TEXT NOT NULL
                        CHECK (state IN ('acquiring', 'held', 'releasing', 'released', 'failed')),
            session_id  TEXT,
            created_at  TEXT NOT NULL,
            acquired_at TEXT,
            expires_at  TEXT,
            ended_at    TEXT,
            reason      TEXT NOT NULL DEFAULT '',
            CHECK (state <> 'held' OR session_id IS NOT NULL),
            CHECK ((ended_at IS NULL) = (state IN ('acquiring', 'held', 'releasing')))
        )
        """,
        # What makes acquire idempotent: two processes cannot both intend.
        """
        CREATE UNIQUE INDEX one_lease_of_a_job_on_a_qpu ON leases (job_id, qpu)
            WHERE state IN ('acquiring', 'held', 'releasing')
        """,
        "CREATE INDEX leases_of_a_job ON leases (job_id)",
        "CREATE INDEX leases_by_end ON leases (ended_at)",
        """
        CREATE VIEW open_leases AS
            SELECT * FROM leases WHERE state IN ('acquiring', 'held', 'releasing')
        """,
        """
        CREATE TABLE events (
            id       INTEGER PRIMARY KEY,
            time     TEXT NOT NULL,
            lease_id INTEGER NOT NULL REFERENCES leases (id) ON DELETE CASCADE,
            what     TEXT NOT NULL,
            detail   TEXT NOT NULL
        )
        """,
        "CREATE INDEX events_of_a_lease ON events (lease_id)",
        # Only users' own keys, and only while their leases are not over.
        """
        CREATE TABLE credentials (
            lease_id INTEGER PRIMARY KEY REFERENCES leases (id) ON DELETE CASCADE,
            api_key  TEXT NOT NULL
        )
        """,
    ),
    # Leases that are bound. SQLite changes a constraint only by way of another table (foreign keys are off).
    (
        "DROP VIEW open_leases",
        """
        CREATE TABLE new_leases (
            id          INTEGER PRIMARY KEY AUTOINCREMENT,
            job_id      INTEGER NOT NULL,
            user_id     INTEGER NOT NULL,
            qpu         TEXT NOT NULL,
            state       TEXT NOT NULL
                        CHECK (state IN ('acquiring', 'held', 'bound', 'releasing', 'released', 'failed')),
            session_id  TEXT,
            created_at  TEXT NOT NULL,
            acquired_at TEXT,
            expires_at  TEXT,
            ended_at    TEXT,
            reason      TEXT NOT NULL DEFAULT '',
            CHECK (state <> 'held' OR session_id IS NOT NULL),
            CHECK (state <> 'bound' OR session_id IS NULL),
            CHECK ((ended_at IS NULL) = (state IN ('acquiring', 'held', 'bound', 'releasing')))
        )
        """,
        "INSERT INTO sqlite_sequence SELECT 'new_leases', seq FROM sqlite_sequence WHERE name = 'leases'",
        "INSERT INTO new_leases SELECT * FROM leases",
        "DROP TABLE leases",
        "ALTER TABLE new_leases RENAME TO leases",
        # What has, or may have, a session: two processes cannot both intend one.
        """
        CREATE UNIQUE INDEX one_session_of_a_job_on_a_qpu ON leases (job_id, qpu)
            WHERE state IN ('acquiring', 'held', 'releasing')
        """,
        # What gives the job something; beside it, what an earlier run of the job held may be RELEASING yet.
        """
        CREATE UNIQUE INDEX one_grant_of_a_job_on_a_qpu ON leases (job_id, qpu)
            WHERE state IN ('acquiring', 'held', 'bound')
        """,
        "CREATE INDEX leases_of_a_job ON leases (job_id)",
        "CREATE INDEX leases_by_end ON leases (ended_at)",
        """
        CREATE VIEW open_leases AS
            SELECT * FROM leases WHERE state IN ('acquiring', 'held', 'bound', 'releasing')
        """,
    ),
)
