# SPDX-License-Identifier: Apache-2.0
"""Budgets as tables, as sentences and as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from rich.table import Table
from rich.text import Text

from qpu_slurm.admin.tables import printed, time_text
from qpu_slurm.config.budgets import Period
from qpu_slurm.journal.balances import amount
from qpu_slurm.system.users import user_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qpu_slurm.config.budgets import Budget, Scope
    from qpu_slurm.journal.balances import Balance
    from qpu_slurm.journal.budgets import BudgetChange

_WARN, _SPENT = 0.8, 1.0

COLUMNS = (
    "account",
    "user",
    "qpu",
    "period",
    "first_day",
    "last_day",
    "unit",
    "limit",
    "granted",
    "used",
    "reserved",
    "left",
    "source",
)
"""The keys of a budget as JSON."""


def balances_as_json(balances: Sequence[Balance]) -> str:
    """Write budgets as a JSON list."""
    rows = [dict(zip(COLUMNS, _values(balance), strict=True)) for balance in balances]
    return msgspec.json.format(msgspec.json.encode(rows), indent=2).decode()


def _values(balance: Balance) -> tuple[object, ...]:
    account, user, qpu = balance.scope
    return (
        account,
        user_name(int(user)) if user.isdigit() else user,
        qpu,
        balance.budget.period,
        balance.budget.begins if balance.budget.period is Period.PROJECT else balance.window.first,
        balance.window.last,
        balance.unit,
        balance.budget.limit,
        balance.granted,
        balance.used,
        balance.reserved,
        balance.left,
        "configuration" if balance.standing else "set",
    )


def balances_as_table(balances: Sequence[Balance]) -> str:
    """Draw budgets, those that are used most first."""
    if not balances:
        return "There is no budget."
    table = Table(box=None, pad_edge=False)
    for title in ("budget of", "period", "used", "reserved", "limit", "left", "from"):
        table.add_column(title, justify="right" if title in {"used", "reserved", "limit", "left"} else "left")
    for balance in sorted(balances, key=lambda one: -one.ratio):
        numbers = (balance.used, balance.reserved, balance.total, balance.left)
        row = (
            balance.subject(),
            _period(balance),
            *(amount(number, balance.unit) for number in numbers),
            "configuration" if balance.standing else "set",
        )
        style = "red" if balance.ratio >= _SPENT else "yellow" if balance.ratio >= _WARN else ""
        table.add_row(*map(Text, row), style=style)
    return printed(table)


def own(balances: Sequence[Balance]) -> str:
    """Write the budgets of a user, a line each, that which is used most first."""
    if not balances:
        return "No budget limits your use of QPUs."
    return "\n".join(
        f"{balance.subject()}: {amount(max(balance.left, 0), balance.unit)} left; used {balance.numbers()}"
        + (f"; {amount(balance.reserved, balance.unit)} reserved by running jobs" if balance.reserved else "")
        for balance in sorted(balances, key=lambda one: -one.ratio)
    )


def changes_as_json(changes: Sequence[BudgetChange]) -> str:
    """Write the changes of budgets as a JSON list, times in UTC."""
    return msgspec.json.format(msgspec.json.encode(changes), indent=2).decode()


def changes_as_table(changes: Sequence[BudgetChange], currency: str) -> str:
    """Draw the changes of budgets, the oldest first."""
    if not changes:
        return "No budget was ever set."
    table = Table("time", "by", "what", "budget of", "period", "amount", "reason", box=None, pad_edge=False)
    for change in changes:
        period = f"{change.period}" if change.window is None else f"{change.period} from {change.window}"
        row = (
            time_text(change.time),
            user_name(change.by),
            change.what,
            _subject(change.scope),
            period,
            amount(change.amount, currency if change.in_money else "s"),
            change.reason,
        )
        table.add_row(*map(Text, row))
    return printed(table)


def named(budget: Budget) -> str:
    """Name a budget: `The budget of account physics per month`."""
    when = f"until {budget.ends}" if budget.period is Period.PROJECT else f"per {budget.period}"
    return f"The budget of {_subject(budget.scope)} {when}"


def limit_of(budget: Budget, currency: str) -> str:
    """Write a budget's limit."""
    return amount(budget.limit, currency if budget.in_money else "s")


def _subject(scope: Scope) -> str:
    return scope._replace(user=user_name(int(scope.user)) if scope.user.isdigit() else scope.user).text()


def _period(balance: Balance) -> str:
    if balance.budget.period is Period.PROJECT:
        return f"until {balance.window.last}"
    return f"{balance.budget.period}"
