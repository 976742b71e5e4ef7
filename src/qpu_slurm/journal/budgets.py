# SPDX-License-Identifier: Apache-2.0
"""Budgets in the journal: those that an admin has set, what was granted, what is reserved, and what was used.

    budgets         what an admin has set with `qpu-slurm budget`
    budget_changes  every change of them, and every grant, with who made it and why
    reservations    what each session may use at most, from its intent until its use is known
    used            what ended sessions have used, by day: one row for each scope that they fall into

A reservation is written in the transaction that writes the intent, and `settle` puts the use in its place in
the transaction that writes down the use. So what is left is right in between any two transactions, and for
two processes that ask at once. Days are those of this machine's clock. A session counts on the day on which
it was asked for.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Final

import msgspec

from qpu_slurm.config.budgets import ALL, EACH, Budget, Period, Scope, Window
from qpu_slurm.journal import rows
from qpu_slurm.journal.balances import (
    Amounts,
    Balance,
    Terms,
    allow,
    applicable,
    covers,
    refuse_if_spent,
)

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Iterator

    from qpu_slurm.config.budgets import BudgetsConfig
    from qpu_slurm.journal.database import Database
    from qpu_slurm.journal.model import Lease

_SECONDS: Final = "s"


class BudgetChange(msgspec.Struct, frozen=True, kw_only=True):
    """A change of a budget.

    Attributes:
        time: When it was made.
        by: The admin's user id.
        what: `set`, `granted` or `removed`.
        scope: Whose budget.
        period: Which of the scope's budgets.
        amount: The new limit, or what was granted.
        in_money: Whether the amount is money.
        window: Of a grant, the first day of the period that it is for.
        reason: The reason, in the admin's words.
    """

    time: datetime
    by: int
    what: str
    scope: Scope
    period: Period
    amount: float
    in_money: bool
    window: date | None
    reason: str


class BudgetBook:
    """The budgets in the journal. Every method may raise `JournalError`.

    Args:
        database: The journal's file.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    # What an admin does.

    def put(self, budget: Budget, *, by: int, reason: str) -> None:
        """Set a budget; one of the same scope and period is replaced."""
        with self._database.transaction(durable=True) as db:
            db.execute(
                "INSERT OR REPLACE INTO budgets (account, user, qpu, period, begins, ends, amount, in_money)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    *budget.scope,
                    budget.period,
                    _day(budget.begins),
                    _day(budget.ends),
                    budget.limit,
                    budget.in_money,
                ),
            )
            _insert(db, "budget_changes", what="set", **_change(budget, by=by, reason=reason))

    def remove(self, scope: Scope, period: Period, *, by: int, reason: str) -> bool:
        """Remove a budget; return whether there was one."""
        with self._database.transaction(durable=True) as db:
            row = db.execute(
                "SELECT * FROM budgets WHERE account = ? AND user = ? AND qpu = ? AND period = ?",
                (*scope, period),
            ).fetchone()
            if row is None:
                return False
            budget = _budget(row)
            db.execute(
                "DELETE FROM budgets WHERE account = ? AND user = ? AND qpu = ? AND period = ?",
                (*scope, period),
            )
            _insert(db, "budget_changes", what="removed", **_change(budget, by=by, reason=reason))
            return True

    def grant(self, balance: Balance, amount: float, *, by: int, reason: str) -> None:
        """Add to a budget, for one scope and in the present period only.

        Args:
            balance: The budget as it applies to the scope.
            amount: How much; negative takes it back.
            by: The admin's user id.
            reason: Why.
        """
        with self._database.transaction(durable=True) as db:
            change = _change(balance.budget, by=by, reason=reason) | balance.scope._asdict()
            change |= {"amount": amount, "window": _day(balance.window.first)}
            _insert(db, "budget_changes", what="granted", **change)

    def changes(self) -> list[BudgetChange]:
        """List all changes, the oldest first."""
        with self._database.reading() as db:
            found = db.execute("SELECT * FROM budget_changes ORDER BY id").fetchall()
        return [
            BudgetChange(
                time=datetime.fromisoformat(row["time"]),
                by=row["by_user"],
                what=row["what"],
                scope=_scope(row),
                period=Period(row["period"]),
                amount=row["amount"],
                in_money=bool(row["in_money"]),
                window=_date(row["window"]),
                reason=row["reason"],
            )
            for row in found
        ]

    # What has become of them.

    def balances(self, terms: Terms, now: datetime | None = None) -> list[Balance]:
        """Return the balance of every budget that limits a session."""
        with self._database.reading() as db:
            return balances(db, terms, now or datetime.now(UTC))

    def check(self, terms: Terms, seconds: int = 1) -> int:
        """Return the seconds that a session could live if it were opened now; see `allow` for the errors."""
        now = datetime.now(UTC)
        with self._database.reading() as db:
            return allow(balances(db, terms, now), seconds, terms, now)

    def refuse_if_spent(self, terms: Terms) -> None:
        """Make sure that a job may submit another task; see `balances.refuse_if_spent`."""
        now = datetime.now(UTC)
        with self._database.reading() as db:
            refuse_if_spent(balances(db, terms, now), terms, now)

    def all(self, standing: Iterable[Budget], common: BudgetsConfig) -> list[Balance]:
        """Return the balance of every budget; of one for each user or account, of those who have used some.

        Args:
            standing: The budgets of the configuration, with users as numbers.
            common: What all budgets have in common.
        """
        today = datetime.now(UTC).astimezone().date()
        with self._database.reading() as db:
            own = [(_budget(row), False) for row in db.execute("SELECT * FROM budgets")]
            taken = {(budget.scope, budget.period) for budget, _ in own}
            more = [(one, True) for one in standing if (one.scope, one.period) not in taken]
            book = _Sums(db)
            found = []
            exact = taken | {(one.scope, one.period) for one, _ in more}
            for budget, is_standing in (*own, *more):
                window = budget.window(today)
                for scope in book.scopes(budget, window):
                    if scope != budget.scope and (scope, budget.period) in exact:
                        continue  # it has a budget of its own
                    column = "cost" if budget.in_money else common.counts
                    found.append(
                        Balance(
                            budget=budget,
                            scope=scope,
                            window=window,
                            granted=book.granted(scope, budget, window),
                            used=getattr(book.used(window).get(scope, Amounts()), column),
                            reserved=book.reserved(window).get(scope, (0.0, 0.0))[budget.in_money],
                            unit=common.currency if budget.in_money else _SECONDS,
                            standing=is_standing,
                            warn_at=common.warn_at,
                        )
                    )
        return found

    def accounts_of(self, user_id: int) -> list[str]:
        """Return the accounts of which a user has used or reserved something."""
        query = (
            "SELECT account FROM used WHERE user = ?1 AND qpu = ?2 AND account <> ?2"
            " UNION SELECT account FROM reservations WHERE user = ?1"
        )
        with self._database.reading() as db:
            return [row[0] for row in db.execute(query, (str(user_id), ALL))]


class _Sums:
    """What was used and is reserved, by scope, each window read once."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._used: dict[Window, dict[Scope, Amounts]] = {}
        self._reserved: dict[Window, dict[Scope, tuple[float, float]]] = {}
        self._granted: dict[tuple[Scope, str, bool, str], float] = defaultdict(float)
        for row in db.execute("SELECT * FROM budget_changes WHERE what = 'granted'"):
            key = (_scope(row), row["period"], bool(row["in_money"]), row["window"])
            self._granted[key] += row["amount"]

    def granted(self, scope: Scope, budget: Budget, window: Window) -> float:
        return self._granted.get((scope, budget.period.value, budget.in_money, window.first.isoformat()), 0.0)

    def used(self, window: Window) -> dict[Scope, Amounts]:
        if window not in self._used:
            query = (
                "SELECT account, user, qpu, sum(locked), sum(executed), sum(cost) FROM used"
                " WHERE day BETWEEN ? AND ? GROUP BY account, user, qpu"
            )
            self._used[window] = {
                Scope(*row[:3]): Amounts(*row[3:])
                for row in map(tuple, self._db.execute(query, _days(window)))
            }
        return self._used[window]

    def reserved(self, window: Window) -> dict[Scope, tuple[float, float]]:
        if window not in self._reserved:
            sums: dict[Scope, tuple[float, float]] = {}
            query = "SELECT * FROM reservations WHERE day BETWEEN ? AND ?"
            for row in self._db.execute(query, _days(window)):
                for scope in _falls_into(row["account"], row["user"], row["qpu"]):
                    seconds, cost = sums.get(scope, (0.0, 0.0))
                    sums[scope] = (seconds + row["seconds"], cost + row["cost"])
            self._reserved[window] = sums
        return self._reserved[window]

    def scopes(self, budget: Budget, window: Window) -> list[Scope]:
        """Return the scopes that a budget stands for, as far as something is known of them."""
        if not budget.scope.is_each:
            return [budget.scope]
        known = {*self.used(window), *self.reserved(window)}
        return sorted(
            scope
            for scope in known
            if all(
                (one == EACH and another != ALL) or one == another
                for one, another in zip(budget.scope, scope, strict=True)
            )
        )


# Within a transaction.


def balances(db: sqlite3.Connection, terms: Terms, now: datetime) -> list[Balance]:
    """Read the balance of every budget that limits a session.

    Args:
        db: The database.
        terms: Whose session it is.
        now: The time, with a time zone.
    """
    query = (
        "SELECT * FROM budgets WHERE account IN (?, ?, ?) AND user IN (?, ?, ?) AND qpu IN (?, ?)"
        # Not by one of them alone: 10,000 accounts have a budget.
    )
    names = (ALL, EACH, terms.account, ALL, EACH, terms.user, ALL, terms.qpu)
    own = [_budget(row) for row in db.execute(query, names)]
    standing = [budget for budget in terms.standing if covers(budget.scope, terms)]
    if not own and not standing:
        return []
    today = now.astimezone().date()
    return [
        _balance(db, budget, scope, today, terms, is_standing=is_standing)
        for budget, scope, is_standing in applicable(own, standing, terms)
    ]


def _balance(
    db: sqlite3.Connection, budget: Budget, scope: Scope, today: date, terms: Terms, *, is_standing: bool
) -> Balance:
    window = budget.window(today)
    days = _days(window)
    named = {name: part for name, part in scope._asdict().items() if part != ALL}
    parts = "".join(f" AND {name} = ?" for name in named)
    used, reserved = ("cost", "cost") if budget.in_money else (terms.counts, "seconds")
    # One statement: every start of a job waits for it. All names in it are this package's own.
    query = (
        "SELECT (SELECT total(amount) FROM budget_changes WHERE account = ? AND user = ? AND qpu = ?"  # noqa: S608
        " AND period = ? AND window = ? AND what = 'granted' AND in_money = ?),"
        f" (SELECT total({used}) FROM used WHERE account = ? AND user = ? AND qpu = ?"
        " AND day BETWEEN ? AND ?),"
        f" (SELECT total({reserved}) FROM reservations WHERE day BETWEEN ? AND ?{parts})"
    )
    values = (*scope, budget.period, days[0], budget.in_money, *scope, *days, *days, *named.values())
    row = db.execute(query, values).fetchone()
    return Balance(
        budget=budget,
        scope=scope,
        window=window,
        granted=row[0],
        used=row[1],
        reserved=row[2],
        unit=terms.currency if budget.in_money else _SECONDS,
        standing=is_standing,
        warn_at=terms.warn_at,
    )


def reserve(db: sqlite3.Connection, lease_id: int, seconds: int, terms: Terms, now: datetime) -> int:
    """Reserve what a session may use that is about to be asked for; return the seconds that it may live.

    What the lease had reserved for a session that is not there is replaced.

    Raises:
        BudgetSpentError: A budget is used up, or its period is not now.
        BudgetReservedError: Running jobs have reserved what is left.
    """
    drop(db, lease_id)
    seconds = allow(balances(db, terms, now), seconds, terms, now)
    _insert(
        db,
        "reservations",
        lease_id=lease_id,
        day=_local_day(now),
        account=terms.account,
        user=terms.user,
        qpu=terms.qpu,
        seconds=seconds,
        cost=seconds * terms.price,
    )
    return seconds


def take_over(db: sqlite3.Connection, lease: Lease, seconds: float) -> None:
    """Reserve what a session may use that a lost journal has known, whatever is left."""
    _insert(
        db,
        "reservations",
        lease_id=lease.id,
        session_id=lease.session_id,
        day=_local_day(datetime.now(UTC)),
        account=lease.account,
        user=str(lease.user_id),
        qpu=lease.qpu,
        seconds=max(seconds, 0.0),
        cost=0.0,
    )


def attach(db: sqlite3.Connection, lease_id: int, session_id: str) -> None:
    """Write down which session a reservation has become."""
    db.execute(
        "UPDATE reservations SET session_id = ? WHERE lease_id = ? AND session_id IS NULL",
        (session_id, lease_id),
    )


def drop(db: sqlite3.Connection, lease_id: int) -> None:
    """Free what is reserved for a lease's session that was not opened."""
    db.execute("DELETE FROM reservations WHERE lease_id = ? AND session_id IS NULL", (lease_id,))


def settle(db: sqlite3.Connection, session_id: str, locked: float, executed: float, cost: float) -> None:
    """Put what a session has used in the place of what is reserved for it.

    It may be called again: what the service corrects later replaces what it reported before.

    Args:
        db: The database, in a transaction.
        session_id: The session.
        locked: Seconds that it was active.
        executed: Seconds that its tasks ran.
        cost: What that costs.
    """
    row = db.execute(
        "SELECT opened_at, charged_day, charged_locked, charged_executed, charged_cost, account, user_id, qpu"
        " FROM sessions JOIN leases ON leases.id = lease_id WHERE sessions.session_id = ?",
        (session_id,),
    ).fetchone()
    if row is None:
        return
    reserved = db.execute("SELECT day FROM reservations WHERE session_id = ?", (session_id,)).fetchone()
    day = (
        row["charged_day"]
        or (reserved and reserved["day"])
        or _local_day(datetime.fromisoformat(row["opened_at"]))
    )
    more = (locked - row["charged_locked"], executed - row["charged_executed"], cost - row["charged_cost"])
    db.execute("DELETE FROM reservations WHERE session_id = ?", (session_id,))
    db.execute(
        "UPDATE sessions SET charged_day = ?, charged_locked = ?, charged_executed = ?, charged_cost = ?"
        " WHERE session_id = ?",
        (day, locked, executed, cost, session_id),
    )
    db.executemany(
        "INSERT INTO used (account, user, qpu, day, locked, executed, cost) VALUES (?, ?, ?, ?, ?, ?, ?)"
        " ON CONFLICT DO UPDATE SET locked = locked + excluded.locked,"
        " executed = executed + excluded.executed, cost = cost + excluded.cost",
        [(*scope, day, *more) for scope in _falls_into(row["account"], str(row["user_id"]), row["qpu"])],
    )


def settle_unknown(db: sqlite3.Connection, session_id: str) -> None:
    """Charge a session whose use the service does not report with the most that it can have used.

    That is what was reserved, and no more than the time for which its lease was held.
    """
    row = db.execute(
        "SELECT seconds, cost, opened_at, leases.ended_at AS over_at FROM reservations"
        " JOIN sessions ON sessions.session_id = reservations.session_id"
        " JOIN leases ON leases.id = sessions.lease_id WHERE sessions.session_id = ?",
        (session_id,),
    ).fetchone()
    if row is None or not row["seconds"]:
        return
    over = datetime.now(UTC) if row["over_at"] is None else datetime.fromisoformat(row["over_at"])
    held = max(0.0, (over - datetime.fromisoformat(row["opened_at"])).total_seconds())
    most = min(row["seconds"], held)
    settle(db, session_id, most, most, row["cost"] * most / row["seconds"])


def _falls_into(account: str, user: str, qpu: str) -> Iterator[Scope]:
    """Name the scopes that a use counts in: of an account, a user and a QPU, each by itself or with all."""
    return itertools.starmap(Scope, itertools.product((ALL, account), (ALL, user), (ALL, qpu)))


def _insert(db: sqlite3.Connection, table: str, **columns: str | float | None) -> None:
    names, marks = ", ".join(columns), ", ".join("?" * len(columns))
    # The names are this package's own.
    db.execute(f"INSERT INTO {table} ({names}) VALUES ({marks})", tuple(columns.values()))  # noqa: S608


def _change(budget: Budget, *, by: int, reason: str) -> dict[str, str | float | None]:
    return budget.scope._asdict() | {
        "time": rows.now(),
        "by_user": by,
        "period": budget.period,
        "amount": budget.limit,
        "in_money": budget.in_money,
        "window": None,
        "reason": reason,
    }


def _budget(row: sqlite3.Row) -> Budget:
    return Budget(
        scope=_scope(row),
        period=Period(row["period"]),
        begins=_date(row["begins"]),
        ends=_date(row["ends"]),
        limit=row["amount"],
        in_money=bool(row["in_money"]),
    )


def _scope(row: sqlite3.Row) -> Scope:
    return Scope(row["account"], row["user"], row["qpu"])


def _days(window: Window) -> tuple[str, str]:
    return window.first.isoformat(), window.last.isoformat()


def _day(day: date | None) -> str | None:
    return None if day is None else day.isoformat()


def _date(text: str | None) -> date | None:
    return None if text is None else date.fromisoformat(text)


def _local_day(time: datetime) -> str:
    return time.astimezone().date().isoformat()
