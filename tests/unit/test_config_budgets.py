# SPDX-License-Identifier: Apache-2.0
"""The tables [budgets] and [[budget]]: read, checked, and everything that is wrong named at once."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import TYPE_CHECKING

import pytest

from qpu_slurm.config import load
from qpu_slurm.config.budgets import ALL, EACH, Budget, Period, Scope, Window
from qpu_slurm.errors import ConfigError
from tests.unit.test_config import MINIMAL, write

if TYPE_CHECKING:
    from pathlib import Path


def test_every_kind_of_budget(tmp_path: Path) -> None:
    text = """
    [budgets]
    counts = "executed"
    warn_at = 90
    currency = "EUR"
    prices = { ibm_fez = 1.6 }
    [[budget]]
    account = "physics"
    limit = "10h"
    [[budget]]
    account = "class"
    each = "user"
    limit = "60s"
    period = "day"
    [[budget]]
    account = "physics"
    user = "ada"
    qpu = "ibm_fez"
    cost = 500.5
    from = 2026-06-01
    until = 2026-12-31
    [[budget]]
    user = 1000
    limit = 0
    [[budget]]
    each = "account"
    limit = 1
    [[budget]]
    limit = "30d"
    """
    found = load(write(tmp_path, MINIMAL + text)).budgets
    assert (found.counts, found.warn_at, found.currency, found.price("ibm_fez")) == (
        "executed",
        90,
        "EUR",
        1.6,
    )
    assert found.standing == (
        Budget(scope=Scope("physics"), period=Period.MONTH, limit=36_000),
        Budget(scope=Scope("class", EACH), period=Period.DAY, limit=60),
        Budget(
            scope=Scope("physics", "ada", "ibm_fez"),
            period=Period.PROJECT,
            begins=date(2026, 6, 1),
            ends=date(2026, 12, 31),
            limit=500.5,
            in_money=True,
        ),
        Budget(scope=Scope(ALL, "1000"), period=Period.MONTH, limit=0),
        Budget(scope=Scope(EACH), period=Period.MONTH, limit=1),
        Budget(scope=Scope(), period=Period.MONTH, limit=30 * 86_400),
    )


@pytest.mark.parametrize(
    ("table", "problem"),
    [
        ("", "expected limit (QPU time) or cost (money), one of the two."),
        ("limit = 1\ncost = 2", "expected limit (QPU time) or cost (money), one of the two."),
        ("cost = 2", "cost needs the price of a second on ibm_fez: add it to [budgets.prices]."),
        (
            "limit = 1\nfrom = 2026-06-01\nuntil = 2026-05-31",
            "the period ends (2026-05-31) before it begins (2026-06-01).",
        ),
        ('limit = 1\nperiod = "project"', "until is missing: expected the last day of the project."),
        (
            'limit = 1\nperiod = "day"\nuntil = 2026-05-31',
            'from and until belong to period = "project", not to "day".',
        ),
        ('limit = 1\nqpu = "ibm_fes"', "there is no QPU 'ibm_fes' here. Choose one of: ibm_fez."),
        ('limit = 1\nuser = "ada"\neach = "user"', 'each = "user" excludes user: leave one of them out.'),
        ('limit = 1\nperiod = "week"', 'period: expected "day" or "month" or "project", not \'week\'.'),
        ('limit = "soon"', 'limit: expected a duration such as "60s", "10h" or "30d"'),
        ("limit = -1", 'limit: expected a duration such as "60s", "10h" or "30d"'),
        ('limit = 1\nacount = "physics"', "unknown key 'acount'; did you mean 'account'?"),
        ('limit = 1\naccount = "a b"', "account: expected a name, not 'a b'."),
        ('limit = 1\nuntil = "tomorrow"', "until: expected a date such as 2026-12-31, not 'tomorrow'."),
    ],
)
def test_what_is_wrong_with_a_budget(tmp_path: Path, table: str, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(write(tmp_path, f"{MINIMAL}\n[[budget]]\n{table}"))
    (found,) = caught.value.problems
    assert f"[[budget]] number 1: {problem}" in found


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "[budgets]\nwarn_at = 0",
            "[budgets] warn_at: expected a percentage, an integer from 1 to 100, not 0.",
        ),
        ("[budgets.prices]\nibm_fes = 1", "[budgets.prices] unknown key 'ibm_fes'; did you mean 'ibm_fez'?"),
        ("[budgets.prices]\nibm_fez = 0", "[budgets.prices] ibm_fez: expected the price of a second"),
        ("[budget]\nlimit = 1", "[[budget]]: expected a table for each budget, with [[budget]]"),
        (
            "[[budget]]\nlimit = 1\n[[budget]]\nlimit = 2",
            "[[budget]] number 2: another budget of the whole cluster has the same period.",
        ),
    ],
)
def test_what_is_wrong_with_the_tables(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(write(tmp_path, f"{MINIMAL}\n{text}"))
    assert [problem in found for found in caught.value.problems] == [True]


@pytest.mark.parametrize(
    ("period", "window"),
    [
        (Period.DAY, Window(date(2028, 2, 11), date(2028, 2, 11))),
        (Period.MONTH, Window(date(2028, 2, 1), date(2028, 2, 29))),
    ],
)
def test_which_days_count_together(period: Period, window: Window) -> None:
    assert Budget(scope=Scope(), period=period, limit=1).window(date(2028, 2, 11)) == window


def test_a_period_is_over_at_midnight() -> None:
    now = datetime(2026, 11, 28, 23, 59, 30).astimezone()
    assert Window(now.date(), now.date()).seconds_left(now) == 30
    assert Window(now.date(), now.date()).seconds_left(now.astimezone(UTC)) == 30


def test_the_last_day_of_the_calendar_ends_no_session() -> None:
    forever = Window(date(2026, 1, 1), date(9999, 12, 31))
    assert forever.seconds_left(datetime.now(UTC)) > 86_400 * 365


def test_an_account_is_called_as_slurm_calls_it(tmp_path: Path) -> None:
    """Slurm has the accounts of jobs in lower case, however a user or an admin writes them."""
    config = load(write(tmp_path, f'{MINIMAL}\n[[budget]]\naccount = "Physics"\nlimit = "1h"\n'))
    (budget,) = config.budgets.standing
    assert budget.scope == Scope("physics")


@pytest.mark.parametrize(
    ("scope", "text"),
    [
        (Scope(), "the whole cluster"),
        (Scope("physics"), "account physics"),
        (Scope(qpu="ibm_fez"), "QPU ibm_fez"),
        (Scope("class", EACH), "each user of account class"),
        (Scope(EACH, "ada", "ibm_fez"), "user ada of each account on ibm_fez"),
    ],
)
def test_what_a_scope_is_called(scope: Scope, text: str) -> None:
    assert scope.text() == text
