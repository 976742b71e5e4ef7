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
    # Which run of a job a lease belongs to, how long it holds a session, what its sessions were used for, and
    # which QPUs an admin has closed.
    (
        "ALTER TABLE leases ADD COLUMN run TEXT NOT NULL DEFAULT ''",
        """
        ALTER TABLE leases ADD COLUMN hold TEXT NOT NULL DEFAULT 'job'
            CHECK (hold IN ('job', 'task', 'none'))
        """,
        "UPDATE leases SET hold = 'none' WHERE state = 'bound'",
        "ALTER TABLE leases ADD COLUMN account TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE leases ADD COLUMN submitted_at TEXT",
        # When the job's time limit is over, as far as was known when it started.
        "ALTER TABLE leases ADD COLUMN job_ends_at TEXT",
        # When a session was about to be created that is not recorded yet; NULL if there is none.
        "ALTER TABLE leases ADD COLUMN intended_at TEXT",
        """
        UPDATE leases SET intended_at = created_at
            WHERE session_id IS NULL AND state IN ('acquiring', 'releasing')
        """,
        "DROP VIEW open_leases",
        """
        CREATE VIEW open_leases AS
            SELECT * FROM leases WHERE state IN ('acquiring', 'held', 'bound', 'releasing')
        """,
        # All that a lease ever had; `leases.session_id` is the one that it has now.
        """
        CREATE TABLE sessions (
            session_id       TEXT PRIMARY KEY,
            lease_id         INTEGER NOT NULL REFERENCES leases (id) ON DELETE CASCADE,
            opened_at        TEXT NOT NULL,
            ended_at         TEXT,
            -- NULL until the service has told.
            locked_seconds   REAL,
            executed_seconds REAL,
            -- Why the service was given up on: then both stay NULL for ever.
            unknown          TEXT NOT NULL DEFAULT ''
        )
        """,
        "CREATE INDEX sessions_of_a_lease ON sessions (lease_id)",
        "CREATE INDEX sessions_by_begin ON sessions (opened_at)",
        "CREATE INDEX sessions_by_end ON sessions (ended_at)",
        """
        CREATE INDEX sessions_to_account_for ON sessions (ended_at)
            WHERE locked_seconds IS NULL AND unknown = ''
        """,
        """
        INSERT OR IGNORE INTO sessions (session_id, lease_id, opened_at, ended_at)
            SELECT session_id, id, ifnull(acquired_at, created_at), ended_at FROM leases
            WHERE session_id IS NOT NULL
        """,
        """
        CREATE TABLE tasks (
            task_id    TEXT PRIMARY KEY,
            session_id TEXT NOT NULL REFERENCES sessions (session_id) ON DELETE CASCADE,
            status     TEXT NOT NULL,
            created_at TEXT,
            started_at TEXT,
            ended_at   TEXT,
            seconds    REAL NOT NULL DEFAULT 0
        )
        """,
        "CREATE INDEX tasks_of_a_session ON tasks (session_id)",
        # When a session had the QPU for itself, as far as the service says.
        """
        CREATE TABLE locks (
            session_id TEXT NOT NULL REFERENCES sessions (session_id) ON DELETE CASCADE,
            began_at   TEXT NOT NULL,
            ended_at   TEXT NOT NULL,
            PRIMARY KEY (session_id, began_at)
        )
        """,
        """
        CREATE TABLE steps (
            job_id     INTEGER NOT NULL,
            run        TEXT NOT NULL,
            step       TEXT NOT NULL,
            name       TEXT NOT NULL,
            started_at TEXT NOT NULL,
            ended_at   TEXT,
            PRIMARY KEY (job_id, run, step)
        )
        """,
        """
        CREATE TABLE closed_qpus (
            qpu       TEXT PRIMARY KEY,
            reason    TEXT NOT NULL,
            user_id   INTEGER NOT NULL,
            closed_at TEXT NOT NULL
        )
        """,
    ),
    # Which leases ended without a session while one was being opened for them: it may come yet.
    (
        "UPDATE leases SET intended_at = NULL WHERE ended_at IS NOT NULL",
        """
        CREATE INDEX leases_to_settle ON leases (id)
            WHERE state = 'released' AND intended_at IS NOT NULL
        """,
        """
        CREATE VIEW unsettled_leases AS
            SELECT * FROM leases WHERE state = 'released' AND intended_at IS NOT NULL
        """,
    ),
    # How the tasks of a lease's job are tagged. Those of jobs that run now are tagged as they were until now.
    (
        "ALTER TABLE leases ADD COLUMN tag TEXT NOT NULL DEFAULT ''",
        "UPDATE leases SET tag = 'slurm-job:' || job_id WHERE ended_at IS NULL",
        "DROP VIEW open_leases",
        """
        CREATE VIEW open_leases AS
            SELECT * FROM leases WHERE state IN ('acquiring', 'held', 'bound', 'releasing')
        """,
        "DROP VIEW unsettled_leases",
        """
        CREATE VIEW unsettled_leases AS
            SELECT * FROM leases WHERE state = 'released' AND intended_at IS NOT NULL
        """,
    ),
    # The users to whom an admin gives no QPU any more.
    (
        """
        CREATE TABLE blocked_users (
            user_id    INTEGER PRIMARY KEY,
            reason     TEXT NOT NULL,
            blocked_by INTEGER NOT NULL,
            blocked_at TEXT NOT NULL
        )
        """,
    ),
    # The states that may follow a state: see `model.TRANSITIONS`.
    (
        """
        CREATE TRIGGER states_follow_the_table BEFORE UPDATE OF state ON leases
            WHEN NEW.state <> OLD.state AND NOT (
                (OLD.state = 'acquiring' AND NEW.state IN ('held', 'bound', 'releasing', 'failed'))
                OR (OLD.state = 'held' AND NEW.state IN ('bound', 'releasing', 'released'))
                OR (OLD.state = 'bound' AND NEW.state IN ('acquiring', 'releasing', 'released'))
                OR (OLD.state = 'releasing' AND NEW.state = 'released')
            )
            BEGIN
                SELECT RAISE(ABORT, 'this lease state does not follow that one');
            END
        """,
    ),  # Those that are not over are few among those of a year.
    (
        """
        CREATE INDEX leases_not_over ON leases (qpu, state)
            WHERE state IN ('acquiring', 'held', 'bound', 'releasing')
        """,
    ),
    # How long a session was asked to live, by which one whose answer was lost is told from others; and how
    # the QPUs were when they were last asked for.
    (
        "ALTER TABLE leases ADD COLUMN max_ttl INTEGER",
        "DROP VIEW open_leases",
        """
        CREATE VIEW open_leases AS
            SELECT * FROM leases WHERE state IN ('acquiring', 'held', 'bound', 'releasing')
        """,
        "DROP VIEW unsettled_leases",
        """
        CREATE VIEW unsettled_leases AS
            SELECT * FROM leases WHERE state = 'released' AND intended_at IS NOT NULL
        """,
        """
        CREATE TABLE seen_qpus (
            qpu     TEXT PRIMARY KEY,
            online  INTEGER NOT NULL,
            reason  TEXT NOT NULL,
            seen_at TEXT NOT NULL
        )
        """,
    ),
    # Budgets: see `budgets`. What was used until now counts as well, and what runs is reserved.
    (
        """
        CREATE TABLE budgets (
            account  TEXT NOT NULL,
            user     TEXT NOT NULL,
            qpu      TEXT NOT NULL,
            period   TEXT NOT NULL CHECK (period IN ('day', 'month', 'project')),
            begins   TEXT,
            ends     TEXT,
            amount   REAL NOT NULL,
            in_money INTEGER NOT NULL,
            PRIMARY KEY (account, user, qpu, period)
        ) WITHOUT ROWID
        """,
        """
        CREATE TABLE budget_changes (
            id       INTEGER PRIMARY KEY,
            time     TEXT NOT NULL,
            by_user  INTEGER NOT NULL,
            what     TEXT NOT NULL CHECK (what IN ('set', 'granted', 'removed')),
            account  TEXT NOT NULL,
            user     TEXT NOT NULL,
            qpu      TEXT NOT NULL,
            period   TEXT NOT NULL,
            amount   REAL NOT NULL,
            in_money INTEGER NOT NULL,
            window   TEXT,
            reason   TEXT NOT NULL
        )
        """,
        """
        CREATE INDEX budget_grants ON budget_changes (account, user, qpu, period, window)
            WHERE what = 'granted'
        """,
        """
        CREATE TABLE used (
            account  TEXT NOT NULL,
            user     TEXT NOT NULL,
            qpu      TEXT NOT NULL,
            day      TEXT NOT NULL,
            locked   REAL NOT NULL,
            executed REAL NOT NULL,
            cost     REAL NOT NULL,
            PRIMARY KEY (account, user, qpu, day)
        ) WITHOUT ROWID
        """,
        """
        CREATE TABLE reservations (
            id         INTEGER PRIMARY KEY,
            lease_id   INTEGER NOT NULL REFERENCES leases (id) ON DELETE CASCADE,
            -- NULL until the session is recorded.
            session_id TEXT,
            day        TEXT NOT NULL,
            account    TEXT NOT NULL,
            user       TEXT NOT NULL,
            qpu        TEXT NOT NULL,
            seconds    REAL NOT NULL,
            cost       REAL NOT NULL
        )
        """,
        "CREATE INDEX reservations_of_a_lease ON reservations (lease_id)",
        "CREATE INDEX reservations_of_a_session ON reservations (session_id)",
        "CREATE INDEX reservations_of_an_account ON reservations (account, day)",
        "CREATE INDEX reservations_of_a_user ON reservations (user, day)",
        # With all that is summed up of the whole cluster, which has many.
        "CREATE INDEX reservations_by_day ON reservations (day, qpu, seconds, cost)",
        # What of a session's use stands in `used`, and on which day.
        "ALTER TABLE sessions ADD COLUMN charged_day TEXT",
        "ALTER TABLE sessions ADD COLUMN charged_locked REAL NOT NULL DEFAULT 0",
        "ALTER TABLE sessions ADD COLUMN charged_executed REAL NOT NULL DEFAULT 0",
        "ALTER TABLE sessions ADD COLUMN charged_cost REAL NOT NULL DEFAULT 0",
        """
        UPDATE sessions SET charged_day = date(opened_at, 'localtime'), charged_locked = locked_seconds,
                charged_executed = ifnull(executed_seconds, 0)
            WHERE locked_seconds IS NOT NULL
        """,
        """
        INSERT INTO used (account, user, qpu, day, locked, executed, cost)
            SELECT iif(mask & 1, account, '*'), iif(mask & 2, user_id, '*'), iif(mask & 4, qpu, '*'),
                charged_day, sum(charged_locked), sum(charged_executed), 0
            FROM sessions JOIN leases ON leases.id = lease_id
            JOIN (SELECT column1 AS mask FROM (VALUES (0), (1), (2), (3), (4), (5), (6), (7)))
            WHERE charged_day IS NOT NULL GROUP BY 1, 2, 3, 4
        """,
        """
        INSERT INTO reservations (lease_id, session_id, day, account, user, qpu, seconds, cost)
            SELECT lease_id, sessions.session_id, date(opened_at, 'localtime'), account, user_id, qpu,
                max_ttl, 0
            FROM sessions JOIN leases ON leases.id = lease_id
            WHERE locked_seconds IS NULL AND unknown = '' AND max_ttl IS NOT NULL
        """,
    ),
)
