# SPDX-License-Identifier: Apache-2.0
"""Budgets: how much QPU time, or money, an account, a user, a QPU or all of them may spend in a period.

The tables `[budgets]` and `[[budget]]` of config.toml become these. `qpu-slurm budget` writes more of them
into the journal.
"""

from __future__ import annotations

import calendar
import math
from datetime import date, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, NamedTuple

import msgspec

from qpu_slurm.config.tables import Problems, keys_of

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

ALL: Final = "*"
"""In a scope: all accounts, users or QPUs together."""

EACH: Final = "+"
"""In a scope: each account or user by itself."""

_DAY = 86_400

Seconds = Annotated[
    int,
    msgspec.Meta(
        ge=0,
        le=36_600 * _DAY,
        description='a duration such as "60s", "10h" or "30d", or seconds as an integer',
        extra={"duration": True},
    ),
]

Money = Annotated[float, msgspec.Meta(ge=0, le=1e12, description="an amount of money, a number from 0")]

Price = Annotated[float, msgspec.Meta(gt=0, le=1e6, description="the price of a second, a number above 0")]

Percent = Annotated[int, msgspec.Meta(ge=1, le=100, description="a percentage, an integer from 1 to 100")]

Name = Annotated[str, msgspec.Meta(pattern=r"\A[^\s*+,=]{1,128}\Z", description="a name")]

UserId = Annotated[int, msgspec.Meta(ge=0, lt=(1 << 32) - 1)]


class Scope(NamedTuple):
    """Whose use a budget limits: of an account, a user and a QPU, each a name, `ALL` or `EACH`.

    A user is a name in the configuration, and a number in the journal.
    """

    account: str = ALL
    user: str = ALL
    qpu: str = ALL

    @property
    def is_each(self) -> bool:
        """Whether it stands for many scopes."""
        return EACH in self

    def of(self, account: str, user: str, qpu: str) -> Scope:
        """Return the part of this scope, which covers them, that an account, a user and a QPU fall into."""
        own = (account, user, qpu)
        return Scope(*(ALL if part == ALL else name for part, name in zip(self, own, strict=True)))

    def text(self) -> str:
        """Name it, as in "the budget of": `account physics`, `each user of account class`."""
        parts = []
        if self.user != ALL:
            parts.append("each user" if self.user == EACH else f"user {self.user}")
        if self.account != ALL:
            of = "of " if parts else ""
            parts.append(f"{of}each account" if self.account == EACH else f"{of}account {self.account}")
        if self.qpu != ALL:
            parts.append(f"on {self.qpu}" if parts else f"QPU {self.qpu}")
        return " ".join(parts) or "the whole cluster"


class Period(StrEnum):
    """How long a budget lasts: until midnight, until the month is over, or between two days."""

    DAY = "day"
    MONTH = "month"
    PROJECT = "project"


class Window(NamedTuple):
    """The days, the last one included, in which use counts against a budget."""

    first: date
    last: date

    def seconds_left(self, now: datetime) -> float:
        """Return the seconds until it is over, by the clock of this machine; infinite if it never is.

        Args:
            now: The time, with a time zone.
        """
        if self.last > _END:  # the calendar has no day after it
            return math.inf
        end = datetime.combine(self.last + timedelta(days=1), datetime.min.time()).astimezone()
        return (end - now).total_seconds()


_BEGIN, _END = date(1970, 1, 1), date(9999, 12, 30)


class Budget(msgspec.Struct, frozen=True, kw_only=True):
    """What a scope may spend in a period.

    Attributes:
        scope: Whose use it limits.
        period: How long it lasts.
        begins: Its first day; None if it has none. Only of a project.
        ends: Its last day. Only of a project.
        limit: Seconds of QPU time; or, if `in_money`, an amount of money.
        in_money: Whether it limits what the use costs.
    """

    scope: Scope
    period: Period
    begins: date | None = None
    ends: date | None = None
    limit: float
    in_money: bool = False

    def window(self, day: date) -> Window:
        """Return the days that count together with this one. A project's may lie before or after it."""
        if self.period is Period.DAY:
            return Window(day, day)
        if self.period is Period.MONTH:
            last = calendar.monthrange(day.year, day.month)[1]
            return Window(day.replace(day=1), day.replace(day=last))
        return Window(self.begins or _BEGIN, self.ends or _END)


class BudgetsConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What all budgets have in common, and those of the configuration.

    Attributes:
        counts: What is counted, and has a price: the time that a QPU was `locked`, which most contracts bill,
            or that it `executed`.
        warn_at: The percentage of a budget from which on users are warned.
        currency: What money is called.
        prices: What a second on a QPU costs.
        standing: The budgets.
    """

    counts: Literal["locked", "executed"] = "locked"
    warn_at: Percent = 80
    currency: str = ""
    prices: dict[str, float] = {}
    standing: tuple[Budget, ...] = ()

    def price(self, qpu: str) -> float:
        """Return what a second on a QPU costs; 0 if it has no price."""
        return self.prices.get(qpu, 0.0)

    def cost(self, qpu: str, locked: float, executed: float) -> float:
        """Return what a use of a QPU costs."""
        return self.price(qpu) * (locked if self.counts == "locked" else executed)


class _Common(msgspec.Struct, frozen=True, kw_only=True):
    """The keys of `[budgets]`."""

    counts: Literal["locked", "executed"] = "locked"
    warn_at: Percent = 80
    currency: Annotated[str, msgspec.Meta(max_length=16, description='a currency such as "EUR"')] = ""


class _Table(msgspec.Struct, frozen=True, kw_only=True):
    """The keys of one `[[budget]]`."""

    account: Name | None = None
    user: Name | UserId | None = None
    qpu: Name | None = None
    each: Literal["user", "account"] | None = None
    limit: Seconds | None = None
    cost: Money | None = None
    period: Literal["day", "month", "project"] | None = None
    begins: Annotated[date, msgspec.Meta(description="a date such as 2026-12-31")] | None = None
    ends: Annotated[date, msgspec.Meta(description="a date such as 2026-12-31")] | None = None


KEYS: Final = {{"begins": "from", "ends": "until"}.get(name, name): name for name in keys_of(_Table)}
"""The keys of one `[[budget]]`, and the fields that they are read into."""


def read(document: Mapping[str, Any], qpus: Collection[str], problems: Problems) -> BudgetsConfig:
    """Read `[budgets]` and every `[[budget]]`.

    Args:
        document: The configuration.
        qpus: The QPUs that there are; none if they are not known here.
        problems: Gets what is wrong.
    """
    common = document.get("budgets", {})
    prices: dict[str, float] = {}
    if isinstance(common, dict) and "prices" in common:
        prices = _prices(common["prices"], qpus, problems)
        common = {key: value for key, value in common.items() if key != "prices"}
    keys = keys_of(_Common)
    values = problems.table(_Common, common, "[budgets] ", keys)
    tables = document.get("budget", [])
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        problems.add("[[budget]]: expected a table for each budget, with [[budget]] (two brackets) above it.")
        tables = []
    found: dict[tuple[Scope, Period], Budget] = {}
    for number, table in enumerate(tables, 1):
        where = f"[[budget]] number {number}: "
        wrong = len(problems.found)
        fields = problems.table(_Table, table, where, KEYS)
        if len(problems.found) > wrong:
            continue
        try:
            budget = make(**fields, qpus=qpus, prices=prices)
        except ValueError as error:
            problems.add(f"{where}{error}")
            continue
        key = (budget.scope, budget.period)
        if key in found:
            problems.add(f"{where}another budget of {budget.scope.text()} has the same period.")
        found[key] = budget
    return BudgetsConfig(**values, prices=prices, standing=tuple(found.values()))


def make(
    *,
    account: str | None = None,
    user: str | int | None = None,
    qpu: str | None = None,
    each: str | None = None,
    limit: int | None = None,
    cost: float | None = None,
    period: str | None = None,
    begins: date | None = None,
    ends: date | None = None,
    qpus: Collection[str],
    prices: Mapping[str, float],
) -> Budget:
    """Make a budget of what an admin wrote.

    Args:
        account: The account, in upper or lower case; None: all.
        user: The user; None: all.
        qpu: The QPU; None: all.
        each: `user` or `account`, if each of these has a budget of its own.
        limit: Seconds; None with `cost`.
        cost: An amount of money; None with `limit`.
        period: `day`, `month` or `project`; None: a project if it ends, else a month.
        begins: A project's first day.
        ends: A project's last day.
        qpus: The QPUs that there are; none if they are not known here.
        prices: What a second on each costs.

    Raises:
        ValueError: It makes no sense; the text says why.
    """
    if (limit is None) == (cost is None):
        raise ValueError("expected limit (QPU time) or cost (money), one of the two.")
    if qpu is not None and qpus and qpu not in qpus:
        raise ValueError(f"there is no QPU {qpu!r} here. Choose one of: {', '.join(qpus)}.")
    if (each == "user" and user is not None) or (each == "account" and account is not None):
        raise ValueError(f'each = "{each}" excludes {each}: leave one of them out.')
    unpriced = [name for name in qpus if name not in prices and qpu in {None, name}]
    if cost is not None and unpriced:
        raise ValueError(f"cost needs the price of a second on {unpriced[0]}: add it to [budgets.prices].")
    span = Period(period or ("project" if ends is not None else "month"))
    if span is Period.PROJECT:
        if ends is None:
            raise ValueError("until is missing: expected the last day of the project.")
        if begins is not None and ends < begins:
            raise ValueError(f"the period ends ({ends}) before it begins ({begins}).")
    elif begins is not None or ends is not None:
        raise ValueError(f'from and until belong to period = "project", not to "{span}".')
    # Slurm has the accounts of jobs in lower case.
    named = {"account": None if account is None else account.lower(), "user": user, "qpu": qpu}
    if each is not None:
        named[each] = EACH
    scope = Scope(**{name: str(value) for name, value in named.items() if value is not None})
    in_money = cost is not None
    return Budget(
        scope=scope, period=span, begins=begins, ends=ends, limit=float(cost or limit or 0), in_money=in_money
    )


def _prices(table: Any, qpus: Collection[str], problems: Problems) -> dict[str, float]:  # noqa: ANN401 - TOML
    if not isinstance(table, dict):
        problems.add("[budgets.prices]: expected a table with the price of a second on each QPU.")
        return {}
    if qpus:
        problems.unknown_keys(table, "[budgets.prices] ", qpus)
    found = {}
    for qpu in table:
        try:
            found[qpu] = msgspec.convert(table[qpu], Price)
        except msgspec.ValidationError:
            problems.add(f"[budgets.prices] {qpu}: expected the price of a second, a number above 0.")
    return found
