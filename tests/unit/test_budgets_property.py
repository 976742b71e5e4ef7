# SPDX-License-Identifier: Apache-2.0
"""Random jobs, budgets, crashes and late accounts: no budget is ever overspent by more than running tasks.

The service in memory keeps the truth: how long each session was active. A session runs tasks as long as its
life is not over. The task that runs then is the only one that goes beyond it.
"""

from __future__ import annotations

import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from qpu_slurm.config.budgets import ALL, EACH, Budget, BudgetsConfig, Period, Scope
from qpu_slurm.errors import QpuSlurmError, UnavailableError
from qpu_slurm.journal.journal import Journal
from qpu_slurm.journal.model import Hold
from qpu_slurm.leases.accountant import Accountant
from qpu_slurm.leases.broker import Broker
from qpu_slurm.leases.budgets import Budgets
from qpu_slurm.system.deadline import NEVER, Deadline
from tests.unit.memory_service import Killed, Life, Mortal, Service, configure, request

if TYPE_CHECKING:
    import pytest

    from qpu_slurm.providers.base import Access, Provider, Session

ACCOUNTS, USERS, QPUS = ("physics", "class"), (1000, 1001), ("ibm_fez", "ibm_torino")
LIMITS = {
    Scope("physics"): 100.0,
    Scope("class"): 70.0,
    Scope("class", EACH): 30.0,
    Scope(ALL, "1000"): 120.0,
    Scope(ALL, ALL, "ibm_fez"): 90.0,
    Scope(): 150.0,
}
JOBS = st.integers(1, 6)


class Cluster(RuleBasedStateMachine):
    """A cluster whose broker may be killed at each of its steps."""

    def __init__(self) -> None:
        super().__init__()
        self._directory = tempfile.TemporaryDirectory(prefix="qpu-budgets-")
        standing = tuple(
            Budget(scope=scope, period=Period.MONTH, limit=limit) for scope, limit in LIMITS.items()
        )
        config = configure(Path(self._directory.name))
        # With the admin's key for both: what a user's own key alone could tell counts as the time for which
        # the lease was held, and no time passes here.
        fez = config.qpu("ibm_fez")
        qpus = {name: msgspec.structs.replace(fez, name=name, backend=name) for name in QPUS}
        self.config = msgspec.structs.replace(
            config,
            qpus=qpus,
            budgets=BudgetsConfig(standing=standing),
            outage=msgspec.structs.replace(config.outage, acquire_timeout=2),
        )
        self.service = Service()
        self.journal = Journal(self.config.journal)
        self._dead: list[Journal] = []
        # What tasks used that ran on after their session's life, by session; and whose a session is.
        self.beyond: dict[str, float] = {}
        self.holder: dict[str, tuple[str, str, str]] = {}
        self.granted = dict.fromkeys(LIMITS, 0.0)
        self.owners: dict[int, tuple[str, int]] = {}

    def teardown(self) -> None:
        for journal in (self.journal, *self._dead):
            journal.close()
        self._directory.cleanup()

    # What jobs do.

    @rule(
        job_id=JOBS,
        account=st.sampled_from(ACCOUNTS),
        user_id=st.sampled_from(USERS),
        qpus=st.sampled_from([QPUS[:1], QPUS[1:], QPUS]),
        seconds=st.integers(1, 60),
        hold=st.sampled_from([Hold.JOB, Hold.TASK]),
        steps=st.none() | st.integers(1, 40),
    )
    def start(
        self,
        *,
        job_id: int,
        account: str,
        user_id: int,
        qpus: tuple[str, ...],
        seconds: int,
        hold: Hold,
        steps: int | None,
    ) -> None:
        account, user_id = self.owners.setdefault(job_id, (account, user_id))
        wanted = msgspec.structs.replace(
            request(*qpus, job_id=job_id, seconds=seconds), account=account, user_id=user_id, hold=hold
        )
        self._as_a_process(steps, lambda broker: broker.acquire(wanted))

    @rule(job_id=JOBS, steps=st.none() | st.integers(1, 30))
    def open(self, job_id: int, steps: int | None) -> None:
        for lease in self.journal.leases(job_id=job_id):
            self._as_a_process(steps, lambda broker, number=lease.id: broker.open_session(number))

    @rule(number=st.integers(0, 20), seconds=st.floats(0.1, 25))
    def run(self, number: int, seconds: float) -> None:
        """Run a task in an open session."""
        sessions = [session for session in self.service.sessions.values() if session.accepting_tasks]
        if not sessions:
            return
        session = sessions[number % len(sessions)]
        lease = self.journal.holder_of(session.id)
        if lease is None or lease.session_id != session.id:
            return
        with suppress(QpuSlurmError):
            Budgets(self.config, self.journal).refuse_task(lease)
            self._run(session, seconds)

    def _run(self, session: Session, seconds: float) -> None:
        life, before = float(session.max_ttl or 0), self.service.used.get(session.id, 0.0)
        after = before + seconds
        self.service.used[session.id] = after
        if after >= life:
            self.beyond[session.id] = after - life
            self.service.close(session.id)

    @rule(job_id=JOBS, steps=st.none() | st.integers(1, 20))
    def end(self, job_id: int, steps: int | None) -> None:
        self._as_a_process(steps, lambda broker: broker.release(job_id, "Done."))
        if steps is None:
            self.owners.pop(job_id, None)

    # What else happens.

    @rule()
    def account(self) -> None:
        self.service.before.clear()
        Accountant(self.config, self.journal, self.service.connect).run()

    @rule()
    def hide_usage(self) -> None:
        def away() -> object:
            raise UnavailableError("The service does not tell.")

        self.service.before |= {f"usage {qpu}": away for qpu in QPUS}

    @rule(scope=st.sampled_from([scope for scope in LIMITS if not scope.is_each]), amount=st.integers(1, 20))
    def grant(self, scope: Scope, amount: int) -> None:
        budgets = Budgets(self.config, self.journal)
        (balance,) = [one for one in budgets.all() if one.scope == scope]
        self.journal.budgets.grant(balance, amount, by=0, reason="")
        self.granted[scope] += amount

    def _as_a_process(self, steps: int | None, work: Any) -> None:  # noqa: ANN401 - of a broker
        """Do something as a process of its own does, which may be killed at a step."""
        life = Life(steps or -1)

        def connect(access: Access, *, deadline: Deadline = NEVER) -> Provider:
            return cast("Provider", Mortal(self.service.connect(access, deadline=deadline), life))

        mortal: Any = Mortal(self.journal, life)
        try:
            with suppress(QpuSlurmError):
                work(Broker(self.config, mortal, connect, settle=0))
        except Killed:
            # Another process has another connection.
            self._dead.append(self.journal)
            self.journal = Journal(self.config.journal)

    # What has to hold.

    def _spent(self) -> dict[Scope, tuple[float, float]]:
        """Sum up the truth: what was used, and what of it in tasks that ran beyond their session's life."""
        sums: dict[Scope, tuple[float, float]] = {}
        for session_id, used in self.service.used.items():
            lease = self.journal.holder_of(session_id)
            if lease is not None:
                whose = (lease.account, str(lease.user_id), lease.qpu)
                self.holder[session_id] = whose
            whose = self.holder[session_id]
            for scope in LIMITS:
                part = scope.of(*whose)
                if all(one in {ALL, EACH, name} for one, name in zip(scope, whose, strict=True)):
                    before, beyond = sums.get(part, (0.0, 0.0))
                    sums[part] = (before + used, beyond + self.beyond.get(session_id, 0.0))
        return sums

    @invariant()
    def overspends_no_budget_by_more_than_the_tasks_that_ran(self) -> None:
        for part, (used, beyond) in self._spent().items():
            limit = next(
                LIMITS[scope] + self.granted[scope]
                for scope in (part, Scope(part.account, EACH, part.qpu))
                if scope in LIMITS
            )
            assert used <= limit + beyond + 1e-6, part

    @invariant()
    def the_journal_never_believes_that_less_is_spent(self) -> None:
        truth = self._spent()
        for balance in Budgets(self.config, self.journal).all():
            used, beyond = truth.get(balance.scope, (0.0, 0.0))
            assert balance.used + balance.reserved + beyond >= used - 1e-6


def test_no_budget_is_overspent_by_more_than_running_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    # Nothing settles what is reserved while a job waits for it.
    monkeypatch.setattr("qpu_slurm.leases.broker._TURN", 0.0)
    monkeypatch.setattr("qpu_slurm.leases.broker._ACCOUNT_TIMEOUT", 0.0)
    run_state_machine_as_test(Cluster, settings=settings(max_examples=40, stateful_step_count=30))
