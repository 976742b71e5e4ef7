# SPDX-License-Identifier: Apache-2.0
"""What a person types: `qpu-slurm budget`."""

from __future__ import annotations

import argparse
import os
from datetime import date
from typing import TYPE_CHECKING

from qpu_slurm import reach
from qpu_slurm.admin import tables
from qpu_slurm.admin.budget import show
from qpu_slurm.config import budgets as rules
from qpu_slurm.config.budgets import ALL, Budget, Period, Scope
from qpu_slurm.errors import ConfigError
from qpu_slurm.leases.budgets import Budgets, user_number, with_number
from qpu_slurm.reach.local import open_journal
from qpu_slurm.slurm.accounts import Accounts
from qpu_slurm.system import logs
from qpu_slurm.system.durations import parse_duration
from qpu_slurm.system.users import operator, user_name

if TYPE_CHECKING:
    from qpu_slurm.config import Config
    from qpu_slurm.journal.balances import Balance
    from qpu_slurm.journal.journal import Journal

_REASON_LENGTH = 200

_WHERE = "Run it as root or SlurmUser, where the journal is."

DESCRIPTION = """\
Show how much QPU time, or money, you have left. With a gateway, every user may run it, on every host that has
the configuration. The commands below show and change all budgets: run them as root or SlurmUser, where the
journal is.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options to a parser."""
    parser.description = DESCRIPTION
    parser.add_argument("--json", action="store_true", help="print a JSON list")
    verbs = parser.add_subparsers(title="commands", dest="verb", metavar="VERB")
    listed = verbs.add_parser(
        "list",
        help="list all budgets",
        description=f"List all budgets, with what is used and reserved. {_WHERE}",
    )
    _add_scope(listed, "only budgets of")
    listed.add_argument("--json", action="store_true", help="print a JSON list")
    put = verbs.add_parser(
        "set",
        help="set a budget",
        description="Set a budget, or replace the one of the same scope and period. It takes the place of "
        f"one in the configuration. Without a scope, it limits the whole cluster. {_WHERE}",
    )
    _add_scope(put, "limit", each=True)
    amount = put.add_mutually_exclusive_group(required=True)
    amount.add_argument("--limit", type=_seconds, metavar="TIME", help="QPU time, such as 60s or 10h")
    amount.add_argument(
        "--cost", type=_money, metavar="MONEY", help="money; it needs prices in the configuration"
    )
    put.add_argument(
        "--period",
        choices=tuple(Period),
        help="how long it lasts (default: project with --until, otherwise month)",
    )
    put.add_argument("--from", type=_day, dest="begins", metavar="DATE", help="a project's first day")
    put.add_argument("--until", type=_day, dest="ends", metavar="DATE", help="a project's last day")
    _add_reason(put)
    grant = verbs.add_parser(
        "grant",
        help="add to a budget in the present period",
        description="Add to a budget, in the present day, month or project only. Of a budget for each user, "
        f"name the user. {_WHERE}",
    )
    grant.add_argument(
        "amount", metavar="AMOUNT", help="QPU time, such as 60s or 10h; of a budget in money, a number"
    )
    _add_scope(grant, "the budget of")
    _add_period(grant)
    _add_reason(grant)
    remove = verbs.add_parser(
        "remove",
        help="remove a budget that was set",
        description=f"Remove a budget that `set` has made. One in the configuration stays. {_WHERE}",
    )
    _add_scope(remove, "the budget of", each=True)
    _add_period(remove)
    _add_reason(remove)
    past = verbs.add_parser(
        "history",
        help="list all changes of budgets",
        description=f"List all changes and grants, with who made them and why. {_WHERE}",
    )
    past.add_argument("--json", action="store_true", help="print a JSON list")


def run(config: Config, arguments: argparse.Namespace) -> int:
    """Do it, and return the exit code.

    Raises:
        ConfigError: It makes no sense, or the journal is on another host.
        JournalError: The journal cannot be read or written.
        UnavailableError: The gateway does not answer.
    """
    if arguments.verb is None:
        with reach.records(config) as broker:
            found = broker.budgets(os.getuid())
        print(show.balances_as_json(found) if arguments.json else show.own(found))  # noqa: T201 - a command
        return 0
    with open_journal(config, make=arguments.verb != "history") as journal:
        return {"list": _list, "set": _set, "grant": _grant, "remove": _remove, "history": _history}[
            arguments.verb
        ](config, journal, arguments)


def _list(config: Config, journal: Journal, arguments: argparse.Namespace) -> int:
    wanted = _scope_of(arguments)
    found = [
        balance
        for balance in Budgets(config, journal).all()
        if all(part in {ALL, own} for part, own in zip(wanted, balance.scope, strict=True))
    ]
    print(show.balances_as_json(found) if arguments.json else show.balances_as_table(found))  # noqa: T201
    return 0


def _set(config: Config, journal: Journal, arguments: argparse.Namespace) -> int:
    try:
        budget = rules.make(
            account=arguments.account,
            user=arguments.user,
            qpu=arguments.qpu,
            each=arguments.each,
            limit=arguments.limit,
            cost=arguments.cost,
            period=arguments.period,
            begins=arguments.begins,
            ends=arguments.ends,
            qpus=config.qpus,
            prices=config.budgets.prices,
        )
    except ValueError as error:
        raise ConfigError(f"budget set: {error}") from None
    if arguments.account is not None and Accounts(config.slurm).knows(arguments.account) is False:
        raise ConfigError(
            f"Slurm has no account {arguments.account!r}. `sacctmgr show account` lists all; "
            f"`sacctmgr add account {arguments.account}` makes one."
        )
    budget = with_number(budget)
    reason = _reason_of(arguments)
    journal.budgets.put(budget, by=operator(), reason=reason)
    _audit("budget set", budget, budget.scope, budget.limit, reason)
    print(f"{show.named(budget)}: {show.limit_of(budget, config.budgets.currency)}.")  # noqa: T201 - a command
    return 0


def _grant(config: Config, journal: Journal, arguments: argparse.Namespace) -> int:
    budgets, scope = Budgets(config, journal), _scope_of(arguments)
    balance = _the_one(budgets.exactly(scope), arguments.period, scope)
    amount = _amount(arguments.amount, in_money=balance.budget.in_money)
    reason = _reason_of(arguments)
    journal.budgets.grant(balance, amount, by=operator(), reason=reason)
    _audit("budget granted", balance.budget, scope, amount, reason)
    (after,) = [one for one in budgets.exactly(scope) if one.budget.period is balance.budget.period]
    print(show.own([after]))  # noqa: T201 - a command
    return 0


def _remove(config: Config, journal: Journal, arguments: argparse.Namespace) -> int:
    del config
    scope, reason = _scope_of(arguments), _reason_of(arguments)
    if arguments.each is not None:
        scope = scope._replace(**{arguments.each: rules.EACH})
    periods = [Period(arguments.period)] if arguments.period else list(Period)
    found = [
        period for period in periods if journal.budgets.remove(scope, period, by=operator(), reason=reason)
    ]
    if not found:
        raise ConfigError(f"`qpu-slurm budget set` has made no budget of {scope.text()}. `list` shows all.")
    for period in found:
        logs.audit("budget removed", by=user_name(operator()), scope=scope.text(), period=period, why=reason)
        print(f"The budget of {scope.text()} per {period} is removed.")  # noqa: T201 - a command
    return 0


def _history(config: Config, journal: Journal, arguments: argparse.Namespace) -> int:
    changes = journal.budgets.changes()
    if arguments.json:
        print(show.changes_as_json(changes))  # noqa: T201 - a command
    else:
        print(show.changes_as_table(changes, config.budgets.currency))  # noqa: T201 - a command
    return 0


# The arguments.


def _add_scope(parser: argparse.ArgumentParser, what: str, *, each: bool = False) -> None:
    parser.add_argument("--account", metavar="NAME", help=f"{what} this account of Slurm's")
    parser.add_argument("--user", metavar="USER", help=f"{what} this user, by name or number")
    parser.add_argument("--qpu", metavar="NAME", help=f"{what} this QPU")
    if each:
        parser.add_argument("--each", choices=("user", "account"), help=f"{what} each of them, by itself")


def _add_period(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--period", choices=tuple(Period), help="which one, if there are several of different periods"
    )


def _add_reason(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--reason", required=True, metavar="TEXT", help="the reason, for the history")


def _scope_of(arguments: argparse.Namespace) -> Scope:
    user = ALL if arguments.user is None else str(user_number(arguments.user))
    return Scope((arguments.account or ALL).lower(), user, arguments.qpu or ALL)


def _reason_of(arguments: argparse.Namespace) -> str:
    reason = tables.one_line(arguments.reason)[:_REASON_LENGTH]
    if not reason:
        raise ConfigError("--reason is empty. Give the reason: the history keeps it.")
    return reason


def _the_one(found: list[Balance], period: str | None, scope: Scope) -> Balance:
    """Choose the budget that is meant.

    Raises:
        ConfigError: There is none, or more than one.
    """
    chosen = [balance for balance in found if period is None or balance.budget.period == period]
    if not chosen:
        raise ConfigError(f"There is no such budget of {scope.text()}. `qpu-slurm budget list` shows all.")
    if len(chosen) > 1:
        periods = ", ".join(balance.budget.period for balance in chosen)
        raise ConfigError(f"There are several budgets of {scope.text()}: add --period, one of {periods}.")
    return chosen[0]


def _amount(text: str, *, in_money: bool) -> float:
    try:
        return _money(text) if in_money else float(_seconds(text))
    except argparse.ArgumentTypeError as error:
        raise ConfigError(f"budget grant: {error}.") from None


def _seconds(text: str) -> int:
    try:
        return int(text) if text.isascii() and text.isdigit() and len(text) < 12 else parse_duration(text)  # noqa: PLR2004 - years
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError(f"{text[:64]!r} is no duration such as 60s, 10h or 30d") from None


def _money(text: str) -> float:
    try:
        amount = float(text)
    except ValueError:
        amount = -1.0
    if not 0 <= amount <= 1e12:  # noqa: PLR2004 - more than anybody has; no NaN
        raise argparse.ArgumentTypeError(f"{text[:64]!r} is no amount of money such as 500 or 99.50")
    return amount


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text[:64]!r} is no date such as 2026-12-31") from None


def _audit(event: str, budget: Budget, scope: Scope, amount: float, reason: str) -> None:
    logs.audit(
        event,
        by=user_name(operator()),
        scope=scope.text(),
        period=budget.period,
        amount=amount,
        in_money=budget.in_money,
        why=reason,
    )
