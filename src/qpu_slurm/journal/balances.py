# SPDX-License-Identifier: Apache-2.0
"""The arithmetic of budgets: what is left, how long a session may live, and why it may not be opened.

Pure functions: the journal calls them inside of the transaction that writes the intent of a session. What
runs is reserved, with the longest time that it may take. So two sessions never share their last seconds, and
a budget is overspent by no more than the task that runs as its session reaches its end.
"""

from __future__ import annotations

from datetime import date, timedelta
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from qpu_slurm.config.budgets import ALL, EACH, Budget, Period, Scope, Window
from qpu_slurm.errors import BudgetReservedError, BudgetSpentError
from qpu_slurm.system.users import user_name

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

SHORTEST: Final = 1.0
"""The seconds of the shortest session: whatever is left below that is nothing."""

_SOON: Final = 1e-6
"""What sums of floating-point numbers may be wrong by."""

STATES: Final = ("ok", "near", "spent")
"""How much of a budget is used: less than users are warned of, more, and all."""

_ASK = "Ask the admin of the cluster for more."


class Amounts(NamedTuple):
    """What was used or is reserved, each in the three units that a budget may have."""

    locked: float = 0.0
    executed: float = 0.0
    cost: float = 0.0


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """Whose session it is, and what limits it apart from the journal's own budgets.

    Attributes:
        account: Slurm's account of the job; empty where Slurm has none.
        user_id: The job's user.
        qpu: The QPU.
        standing: The budgets of the configuration that may cover it.
        price: What a second costs.
        counts: Which time is counted: `locked` or `executed`.
        currency: What money is called.
        warn_at: The percentage of a budget from which on users are warned.
        share: For how many QPUs what is left has to last, of those that the job gets now.
    """

    account: str
    user_id: int
    qpu: str
    standing: tuple[Budget, ...] = ()
    price: float = 0.0
    counts: str = "locked"
    currency: str = ""
    warn_at: int = 80
    share: int = 1

    @property
    def user(self) -> str:
        """The user, as a scope of the journal has it."""
        return str(self.user_id)


class Balance(msgspec.Struct, frozen=True, kw_only=True):
    """What one budget has come to.

    Attributes:
        budget: The budget.
        scope: Whose use counts against it: of a budget for each user, this user's.
        window: The days that count together.
        granted: What an admin has added for these days.
        used: What ended sessions have used.
        reserved: What sessions may yet use that run, or whose use is not known yet.
        unit: What `used` is counted in: `s`, or the currency.
        standing: Whether it comes from the configuration, and not from the journal.
        warn_at: The percentage from which on users are warned.
    """

    budget: Budget
    scope: Scope
    window: Window
    granted: float = 0.0
    used: float = 0.0
    reserved: float = 0.0
    unit: str = "s"
    standing: bool = False
    warn_at: int = 80

    @property
    def state(self) -> str:
        """How much is used: one of `STATES`."""
        if self.ratio >= 1:
            return STATES[2]
        return STATES[1] if self.ratio * 100 >= self.warn_at else STATES[0]

    @property
    def total(self) -> float:
        """The limit, with what was granted."""
        return self.budget.limit + self.granted

    @property
    def left(self) -> float:
        """What neither is used nor reserved; negative where it is overspent."""
        return self.total - self.used - self.reserved

    @property
    def ratio(self) -> float:
        """The part that is used, 1 for all; of a budget of nothing, all is used."""
        return self.used / self.total if self.total > 0 else 1.0

    def subject(self) -> str:
        """Name whose budget it is, with the user's name."""
        user = self.scope.user
        if user.isdigit():
            user = user_name(int(user))
        return self.scope._replace(user=user).text()

    def numbers(self) -> str:
        """Write how much of it is used, and in which period: `60 s of 60 s today`."""
        return f"{amount(self.used, self.unit)} of {amount(self.total, self.unit)} {self.when()}"

    def when(self) -> str:
        """Name the period."""
        if self.budget.period is Period.DAY:
            return "today"
        if self.budget.period is Period.MONTH:
            return "this month"
        return f"until {self.window.last}"


def amount(value: float, unit: str) -> str:
    """Write an amount: seconds with one place at most, money with two."""
    return f"{value:.1f}".removesuffix(".0") + " s" if unit == "s" else f"{value:.2f} {unit}".rstrip()


def applicable(
    own: Iterable[Budget], standing: Iterable[Budget], terms: Terms
) -> list[tuple[Budget, Scope, bool]]:
    """Choose the budgets that limit a session.

    One of the journal takes the place of one of the configuration for the same scope and period. One that
    names an account or a user takes the place of one for each of them.

    Args:
        own: The journal's budgets that cover it.
        standing: The configuration's.
        terms: Whose session it is.

    Returns:
        Each budget, the scope whose use counts, and whether it is the configuration's.
    """
    chosen: dict[tuple[Scope, Period], tuple[Budget, Scope, bool]] = {}
    for budgets, is_standing in ((own, False), (standing, True)):
        for budget in budgets:
            scope = budget.scope.of(terms.account, terms.user, terms.qpu)
            key = (scope, budget.period)
            known = chosen.get(key)
            if known is None or budget.scope.count(EACH) < known[0].scope.count(EACH):
                chosen[key] = (budget, scope, is_standing)
    return list(chosen.values())


def covers(scope: Scope, terms: Terms) -> bool:
    """Tell whether a budget's scope covers a session."""
    own = (terms.account, terms.user, terms.qpu)
    return all(part in {ALL, EACH, name} for part, name in zip(scope, own, strict=True))


def allow(balances: Iterable[Balance], wanted: int, terms: Terms, now: datetime) -> int:
    """Return the whole seconds that a session may live.

    Args:
        balances: Of every budget that limits it.
        wanted: The seconds that it would live otherwise.
        terms: Whose session it is.
        now: The time, with a time zone.

    Raises:
        BudgetSpentError: A budget is used up, or its period is not now.
        BudgetReservedError: Running jobs have reserved what is left.
    """
    seconds = float(wanted)
    day = now.astimezone().date()
    for balance in balances:
        check_period(balance, day)
        price = terms.price if balance.budget.in_money else 1.0
        if price > 0:
            if (balance.total - balance.used) / price < SHORTEST - _SOON:
                raise spent(balance)
            left = balance.left / price
            if left < SHORTEST - _SOON:
                raise BudgetReservedError(
                    f"Running jobs have reserved what is left of the budget of {balance.subject()}: "
                    f"{amount(balance.reserved, balance.unit)} of {amount(balance.total, balance.unit)} are "
                    f"reserved, and {amount(balance.used, balance.unit)} are used."
                )
            seconds = min(seconds, max(SHORTEST, left / terms.share))
        if balance.budget.period is Period.PROJECT:
            seconds = min(seconds, balance.window.seconds_left(now))
    return max(1, int(seconds + _SOON))


def check_period(balance: Balance, day: date) -> None:
    """Make sure that a budget's period is now.

    Raises:
        BudgetSpentError: It begins later, or is over.
    """
    if day < balance.window.first:
        raise BudgetSpentError(f"The budget of {balance.subject()} begins on {balance.window.first}.")
    if day > balance.window.last:
        raise BudgetSpentError(
            f"The budget of {balance.subject()} ended on {balance.window.last}.", advice=_ASK
        )


def spent(balance: Balance) -> BudgetSpentError:
    """Return the error for a budget that is used up."""
    again = ""
    if balance.budget.period is not Period.PROJECT:
        again = f" It begins again on {balance.window.last + timedelta(days=1)}."
    return BudgetSpentError(
        f"The budget of {balance.subject()} is used up: {balance.numbers()}.{again}", advice=_ASK
    )


def refuse_if_spent(balances: Iterable[Balance], terms: Terms, now: datetime) -> None:
    """Make sure that a job may submit another task, whatever is reserved.

    Raises:
        BudgetSpentError: A budget is used up, or its period is not now.
    """
    for balance in balances:
        check_period(balance, now.astimezone().date())
        price = terms.price if balance.budget.in_money else 1.0
        if price > 0 and balance.total - balance.used <= _SOON:
            raise spent(balance)
