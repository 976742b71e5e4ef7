# SPDX-License-Identifier: Apache-2.0
"""Budgets, as the broker asks for them: what limits a job's sessions, and whether something is left.

The journal reserves in the transaction that writes a session's intent; see `journal.budgets`. Here are the
budgets of the configuration, the prices, and the questions that are asked before and after.
"""

from __future__ import annotations

import itertools
import threading
from collections import defaultdict
from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec

from qpu_slurm.config.budgets import ALL, EACH, Budget, Scope
from qpu_slurm.errors import BudgetReservedError, BudgetSpentError, ConfigError, UnavailableError
from qpu_slurm.journal.balances import STATES, Terms
from qpu_slurm.journal.model import Hold
from qpu_slurm.slurm.accounts import Accounts
from qpu_slurm.system.deadline import NEVER, Deadline
from qpu_slurm.system.directory import DIRECTORY
from qpu_slurm.system.users import user_name

if TYPE_CHECKING:
    from collections.abc import Iterable

    from qpu_slurm.config import Config
    from qpu_slurm.journal.balances import Balance
    from qpu_slurm.journal.journal import Journal
    from qpu_slurm.journal.model import Lease, LeaseRequest


_DIRECTORY_SECONDS = 5.0
"""Seconds to wait for the system's directory of users, for all users together that budgets name."""

_NOBODY = (1 << 32) - 1
"""No user has this number."""


class Budgets:
    """What budgets say of sessions.

    A budget may name a user that this host does not know, or not yet. It limits no job until the user is
    known, and each start of a job looks again.

    Args:
        config: What the admin wrote.
        journal: The record of all leases.
    """

    def __init__(self, config: Config, journal: Journal) -> None:
        self._config = config.budgets
        self._qpus = tuple(config.qpus)
        self._journal = journal
        self._standing: dict[Scope, list[Budget]] = defaultdict(list)
        self._unknown: tuple[Budget, ...] = ()
        self._lock = threading.Lock()
        # Many may be named: a directory that does not answer is not waited for once for each.
        deadline = Deadline.after(_DIRECTORY_SECONDS)
        for budget in self._config.standing:
            try:
                self._add(with_number(budget, deadline))
            except (ConfigError, UnavailableError):
                self._unknown += (budget,)

    @property
    def standing(self) -> list[Budget]:
        """The budgets of the configuration, with users as numbers."""
        return list(itertools.chain(*self._standing.values()))

    def terms(self, account: str, user_id: int, qpu: str, *, share: int = 1) -> Terms:
        """Return what limits a session, apart from the journal's own budgets.

        Args:
            account: Slurm's account of the job.
            user_id: The job's user.
            qpu: The QPU.
            share: For how many QPUs what is left has to last, of those that the job gets now.
        """
        standing: list[Budget] = []
        if self._standing:
            covering = itertools.product((ALL, EACH, account), (ALL, EACH, str(user_id)), (ALL, qpu))
            for scope in itertools.starmap(Scope, covering):
                standing += self._standing.get(scope, ())
        return Terms(
            account=account,
            user_id=user_id,
            qpu=qpu,
            standing=tuple(standing),
            price=self._config.price(qpu),
            counts=self._config.counts,
            currency=self._config.currency,
            warn_at=self._config.warn_at,
            share=share,
        )

    def terms_of(self, lease: Lease) -> Terms:
        """Return what limits the next session of a lease.

        What is left is shared with the job's other QPUs on which a first task has yet to open a session.
        """
        waiting = [
            other
            for other in self._journal.leases(job_id=lease.job_id)
            if other.id != lease.id and other.hold is not Hold.NONE and other.session_id is None
        ]
        return self.terms(lease.account, lease.user_id, lease.qpu, share=1 + len(waiting))

    def refuse(self, request: LeaseRequest) -> None:
        """Make sure that a job may start: something is left for each QPU on which it has no lease yet.

        Raises:
            BudgetSpentError: A budget is used up, or its period is not now.
            BudgetReservedError: Running jobs have reserved what is left.
            UnavailableError: Whether a budget limits the job cannot be found out now.
            JournalError: The journal cannot be read.
        """
        self._look_again()
        for qpu in request.qpus:
            try:
                self.check(qpu, request)
            except (BudgetSpentError, BudgetReservedError):
                if self._journal.open_lease(request.job_id, qpu) is None:
                    raise

    def _look_again(self) -> None:
        """Look whether users are known by now that were not."""
        deadline = Deadline.after(_DIRECTORY_SECONDS)
        for budget in self._unknown:
            with suppress(ConfigError):
                known = with_number(budget, deadline)
                with self._lock:
                    if budget in self._unknown:
                        self._add(known)
                        self._unknown = tuple(one for one in self._unknown if one != budget)

    def _add(self, budget: Budget) -> None:
        self._standing[budget.scope].append(budget)

    def check(self, qpu: str, request: LeaseRequest) -> None:
        """Make sure that something is left for a job's session on one QPU; see `refuse` for the errors."""
        self._journal.budgets.check(self.terms(request.account, request.user_id, qpu))

    def refuse_task(self, lease: Lease) -> None:
        """Make sure that a job may submit another task.

        Raises:
            BudgetSpentError: A budget is used up, or its period is not now.
            JournalError: The journal cannot be read.
        """
        self._journal.budgets.refuse_if_spent(self.terms(lease.account, lease.user_id, lease.qpu))

    def limits(self, lease: Lease) -> bool:
        """Tell whether a budget limits a lease's sessions.

        Raises:
            JournalError: The journal cannot be read.
        """
        terms = self.terms(lease.account, lease.user_id, lease.qpu)
        return bool(self._journal.budgets.balances(terms))

    def refuse_next(self, lease: Lease) -> None:
        """Make sure that a job may get another session; see `Budgets.refuse` for the errors."""
        self._journal.budgets.check(self.terms_of(lease))

    def warning(self, account: str, user_id: int, qpus: Iterable[str]) -> str:
        """Return the sentence for the budget of a job that is nearest to its end; empty below `warn_at`."""
        found: list[Balance] = []
        for qpu in qpus:
            found += self._journal.budgets.balances(self.terms(account, user_id, qpu))
        near = [balance for balance in found if balance.state != STATES[0]]
        if not near:
            return ""
        worst = max(near, key=lambda balance: balance.ratio)
        return f"{min(worst.ratio, 1):.0%} of the budget of {worst.subject()} is used: {worst.numbers()}."

    def exactly(self, scope: Scope) -> list[Balance]:
        """Return the balance of every budget of a scope, or of one for each that it is one of.

        Args:
            scope: The scope, with the user as a number.

        Raises:
            JournalError: The journal cannot be read.
        """
        user_id = int(scope.user) if scope.user.isdigit() else _NOBODY
        terms = self.terms(scope.account, user_id, scope.qpu)
        return [one for one in self._journal.budgets.balances(terms) if one.scope == scope]

    def of_user(self, user_id: int, accounts: Iterable[str] = ()) -> list[Balance]:
        """Return the balance of every budget that limits a user.

        Args:
            user_id: The user.
            accounts: The user's accounts, besides those that the user has spent something of.

        Raises:
            JournalError: The journal cannot be read.
        """
        found: dict[tuple[Scope, str], Balance] = {}
        for account in sorted({*accounts, *self._journal.budgets.accounts_of(user_id)}) or [""]:
            for qpu in self._qpus:
                for balance in self._journal.budgets.balances(self.terms(account, user_id, qpu)):
                    found[balance.scope, balance.budget.period] = balance
        return list(found.values())

    def all(self) -> list[Balance]:
        """Return the balance of every budget.

        Raises:
            JournalError: The journal cannot be read.
        """
        return self._journal.budgets.all(self.standing, self._config)


def balances_of(config: Config, journal: Journal, user_id: int) -> tuple[Balance, ...]:
    """Return the balance of every budget that limits a user; Slurm is asked for the user's accounts.

    Args:
        config: What the admin wrote.
        journal: The record of all leases.
        user_id: The user.

    Raises:
        JournalError: The journal cannot be read.
    """
    accounts = Accounts(config.slurm).of(user_name(user_id))
    return tuple(Budgets(config, journal).of_user(user_id, accounts))


def with_number(budget: Budget, deadline: Deadline = NEVER) -> Budget:
    """Return a budget of the configuration with its user as a number; see `user_number`."""
    user = budget.scope.user
    if user in {ALL, EACH}:
        return budget
    return msgspec.structs.replace(budget, scope=budget.scope._replace(user=str(user_number(user, deadline))))


def user_number(user: str, deadline: Deadline = NEVER) -> int:
    """Return a user's number.

    Args:
        user: The user, by name or number.
        deadline: When the system's directory of users is given up on.

    Raises:
        ConfigError: This host does not know the user.
        UnavailableError: Its directory does not answer.
    """
    found = DIRECTORY.user_id(user, deadline)
    if found is not None:
        return found
    if user.isascii() and user.isdigit() and int(user[:11]) < 1 << 32:
        return int(user)
    raise ConfigError(f"There is no user {user[:64]!r} on this machine.")
