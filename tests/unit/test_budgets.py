# SPDX-License-Identifier: Apache-2.0
"""What budgets let a job have: reserved as its session is intended, settled as its use is known."""

from __future__ import annotations

import pwd
import re
import sqlite3
import threading
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from qpu_slurm.config.budgets import ALL, EACH, Budget, BudgetsConfig, Period, Scope
from qpu_slurm.errors import BudgetReservedError, BudgetSpentError, ConfigError, UnavailableError
from qpu_slurm.journal.journal import Journal
from qpu_slurm.journal.model import Hold, LeaseState
from qpu_slurm.leases.accountant import Accountant
from qpu_slurm.leases.broker import Broker
from qpu_slurm.leases.budgets import Budgets, user_number
from qpu_slurm.providers.base import TaskStatus
from qpu_slurm.system.deadline import NEVER
from qpu_slurm.system.directory import Directory
from tests.unit.memory_service import Service, request

if TYPE_CHECKING:
    from pathlib import Path

    from qpu_slurm.config import Config
    from qpu_slurm.journal.balances import Balance
    from qpu_slurm.journal.model import Lease, LeaseRequest


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not wait for what is reserved: nothing settles it here meanwhile."""
    monkeypatch.setattr("qpu_slurm.leases.broker._TURN", 0.0)


def limit(seconds: float, *scope: str, period: Period = Period.MONTH) -> Budget:
    return Budget(scope=Scope(*scope), period=period, limit=seconds)


def budgeted(config: Config, *standing: Budget, **more: Any) -> Config:  # noqa: ANN401 - its other fields
    return msgspec.structs.replace(config, budgets=BudgetsConfig(standing=standing, **more))


def job(job_id: int, *qpus: str, account: str = "physics", user_id: int = 1000) -> LeaseRequest:
    wanted = request(*(qpus or ("ibm_fez",)), job_id=job_id)
    return msgspec.structs.replace(wanted, account=account, user_id=user_id)


def use(service: Service, lease: Lease, seconds: float) -> None:
    service.used[lease.session_id or ""] = seconds


def only(config: Config, journal: Journal) -> Balance:
    (balance,) = Budgets(config, journal).all()
    return balance


def test_a_session_lives_no_longer_than_what_is_left(
    config: Config, journal: Journal, service: Service
) -> None:
    config = budgeted(config, limit(100, "physics"))
    broker = Broker(config, journal, service.connect, settle=0)
    before = datetime.now(UTC)
    (lease,) = broker.acquire(job(1))
    assert service.ttls == [100]
    assert lease.max_ttl == 100
    assert lease.expires_at is not None
    assert lease.expires_at - before < timedelta(seconds=102)
    assert (only(config, journal).used, only(config, journal).reserved) == (0, 100)
    use(service, lease, 30)
    broker.release(1, "Done.")
    assert (only(config, journal).used, only(config, journal).reserved) == (30, 0)
    broker.acquire(job(2))
    assert service.ttls == [100, 70]


def test_what_runs_is_reserved(config: Config, journal: Journal, service: Service) -> None:
    config = budgeted(config, limit(1810, "physics"))
    broker = Broker(config, journal, service.connect, settle=0)
    (first,) = broker.acquire(job(1))
    broker.acquire(job(2))
    assert service.ttls == [1800, 10]
    with pytest.raises(BudgetReservedError, match="1810 s of 1810 s are reserved, and 0 s are used"):
        broker.acquire(job(3))
    broker.acquire(job(3, account="chemistry"))
    use(service, first, 5)
    broker.release(1, "Done.")
    broker.acquire(job(4))
    assert service.ttls[-1] == 1795


def test_a_job_that_asks_again_keeps_what_it_has(config: Config, journal: Journal, service: Service) -> None:
    broker = Broker(budgeted(config, limit(10, "physics")), journal, service.connect, settle=0)
    assert broker.acquire(job(1)) == broker.acquire(job(1))


def test_a_budget_that_is_used_up(config: Config, journal: Journal, service: Service) -> None:
    broker = Broker(
        budgeted(config, limit(10, "physics", period=Period.DAY)), journal, service.connect, settle=0
    )
    (lease,) = broker.acquire(job(1))
    use(service, lease, 12.25)
    broker.release(1, "Done.")
    tomorrow = datetime.now(UTC).astimezone().date() + timedelta(days=1)
    sentence = (
        f"The budget of account physics is used up: 12.2 s of 10 s today. It begins again on {tomorrow}. "
        "Ask the admin of the cluster for more."
    )
    with pytest.raises(BudgetSpentError, match=re.escape(sentence)) as caught:
        broker.acquire(job(2))
    assert (caught.value.status, caught.value.code) == (403, 9403)
    assert len(service.sessions) == 1
    # One that is only bound to the QPU spends nothing.
    broker.acquire(msgspec.structs.replace(job(3), qpus=(), bind=("ibm_fez",)))


def test_nested_budgets_all_hold(config: Config, journal: Journal, service: Service) -> None:
    # A budget of its own takes the place of that for each account.
    budgets = (limit(100, "class"), limit(60, "class", EACH), limit(500, ALL, "1001"), limit(9, EACH))
    config = budgeted(config, *budgets)
    broker = Broker(config, journal, service.connect, settle=0)
    (one,) = broker.acquire(job(1, account="class", user_id=1000))
    (two,) = broker.acquire(job(2, account="class", user_id=1001))
    assert service.ttls == [60, 40]
    use(service, one, 10)
    use(service, two, 40)
    broker.release(1, "Done.")
    broker.release(2, "Done.")
    broker.acquire(job(3, account="class", user_id=1000))
    assert service.ttls[2:] == [50]
    with pytest.raises(BudgetReservedError, match="50 s of 100 s are reserved, and 50 s are used"):
        broker.acquire(job(4, account="class", user_id=1001))


def test_a_budget_of_ones_own_replaces_that_for_each(
    config: Config, journal: Journal, service: Service
) -> None:
    config = budgeted(config, limit(60, "class", EACH), limit(90, "class", "1001"))
    broker = Broker(config, journal, service.connect, settle=0)
    broker.acquire(job(1, account="class", user_id=1000))
    broker.acquire(job(2, account="class", user_id=1001))
    assert service.ttls == [60, 90]
    journal.budgets.put(limit(70, "class", EACH), by=0, reason="more")
    journal.budgets.put(limit(5, "class", "1002"), by=0, reason="less")
    broker.acquire(job(3, account="class", user_id=1002))
    broker.acquire(job(4, account="class", user_id=1003))
    assert service.ttls[2:] == [5, 70]


def test_a_job_with_two_qpus_shares_what_is_left(config: Config, journal: Journal, service: Service) -> None:
    broker = Broker(budgeted(config, limit(100, "physics")), journal, service.connect, settle=0)
    broker.acquire(job(1, "ibm_fez", "ibm_torino"))
    assert service.ttls == [50, 50]


def test_first_tasks_share_what_is_left(config: Config, journal: Journal, service: Service) -> None:
    broker = Broker(budgeted(config, limit(100, "physics")), journal, service.connect, settle=0)
    wanted = msgspec.structs.replace(job(1, "ibm_fez", "ibm_torino"), hold=Hold.TASK)
    fez, torino = broker.acquire(wanted)
    assert service.ttls == []
    broker.open_session(fez.id)
    broker.open_session(torino.id)
    assert service.ttls == [50, 50]


def test_a_later_task_gets_what_the_last_session_has_left(
    config: Config, journal: Journal, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qpu_slurm.leases.broker._ACCOUNT_TIMEOUT", 0.0)
    config = budgeted(config, limit(100, "physics"))
    broker = Broker(config, journal, service.connect, settle=0)
    (lease,) = broker.acquire(msgspec.structs.replace(job(1), hold=Hold.TASK))
    first = broker.open_session(lease.id)
    use(service, first, 20)
    service.close(first.session_id or "")
    with pytest.raises(BudgetReservedError):
        broker.open_session(lease.id)
    assert journal.lease(lease.id).state is LeaseState.BOUND
    Accountant(config, journal, service.connect).run()
    broker.open_session(lease.id)
    assert service.ttls == [100, 80]


def test_a_session_in_which_a_task_runs_is_not_settled_yet(
    config: Config, journal: Journal, service: Service
) -> None:
    """The service closes it at the end of its life, and lets the task run on: that is used as well."""
    config = budgeted(config, limit(10, "physics"))
    broker = Broker(config, journal, service.connect, settle=0)
    (lease,) = broker.acquire(job(1))
    session_id = lease.session_id or ""
    provider = broker.provider(lease, deadline=NEVER)
    task_id = provider.submit("sampler", b"{}", session_id=session_id, tags=[])
    service.offline["ibm_fez"] = "it runs"
    service.used[session_id] = 10.0
    service.close(session_id)
    journal.part(lease.id, session_id, "The service had closed the session.")
    accountant = Accountant(config, journal, service.connect)
    assert accountant.run() == []
    assert only(config, journal).reserved == 10
    service.end_task(task_id, TaskStatus.COMPLETED)
    service.used[session_id] = 14.0
    Accountant(config, journal, service.connect).run()
    assert (only(config, journal).used, only(config, journal).reserved) == (14, 0)


def test_a_session_that_was_not_opened_frees_what_was_reserved(
    config: Config, journal: Journal, service: Service
) -> None:
    config = budgeted(config, limit(10, "physics"))
    broker = Broker(config, journal, service.connect, settle=0)

    def away() -> object:
        raise UnavailableError("The service is away.")

    service.before["open ibm_fez"] = away
    with pytest.raises(UnavailableError):
        broker.acquire(job(1))
    assert only(config, journal).reserved == 0
    wanted = msgspec.structs.replace(job(2), hold=Hold.TASK)
    (lease,) = broker.acquire(wanted)
    with pytest.raises(UnavailableError):
        broker.open_session(lease.id)
    assert only(config, journal).reserved == 0


def test_use_that_is_never_reported_counts_as_the_most_that_it_can_be(
    config: Config, journal: Journal, service: Service
) -> None:
    config = budgeted(config, limit(1000, "physics"))
    broker = Broker(config, journal, service.connect, settle=0)

    def away() -> object:
        raise UnavailableError("The service is away.")

    service.before["usage ibm_fez"] = away
    (lease,) = broker.acquire(job(1))
    broker.release(1, "Done.")
    assert only(config, journal).reserved == 1000
    Accountant(config, journal, service.connect, give_up=-1).run()
    # It was held for a moment.
    assert only(config, journal).reserved == 0
    assert 0 < only(config, journal).used < 60
    # The service has found it after all.
    journal.history.account(lease.session_id or "", locked=7, executed=5, tasks=[])
    assert only(config, journal).used == 7


def test_what_the_service_corrects_counts(config: Config, journal: Journal, service: Service) -> None:
    config = budgeted(config, limit(1000, "physics"), counts="executed")
    broker = Broker(config, journal, service.connect, settle=0)
    (lease,) = broker.acquire(job(1))
    broker.release(1, "Done.")
    for locked, executed in ((20, 10), (30, 15), (12, 4)):
        journal.history.account(lease.session_id or "", locked=locked, executed=executed, tasks=[])
        assert (only(config, journal).used, only(config, journal).reserved) == (executed, 0)


def test_what_was_used_before_a_budget_was_set_counts(
    config: Config, journal: Journal, service: Service
) -> None:
    broker = Broker(config, journal, service.connect, settle=0)
    (lease,) = broker.acquire(job(1))
    use(service, lease, 30)
    broker.release(1, "Done.")
    broker.acquire(job(2))
    journal.budgets.put(limit(2000, "physics"), by=0, reason="")
    balance = only(config, journal)
    assert (balance.used, balance.reserved, balance.left) == (30, 1800, 170)


def test_a_grant_holds_in_its_period(config: Config, journal: Journal, service: Service) -> None:
    config = budgeted(config, limit(60, "class", EACH, period=Period.DAY))
    broker = Broker(config, journal, service.connect, settle=0)
    terms = Budgets(config, journal).terms("class", 1000, "ibm_fez")
    (balance,) = journal.budgets.balances(terms)
    journal.budgets.grant(balance, 30, by=0, reason="a deadline")
    broker.acquire(job(1, account="class", user_id=1000))
    broker.acquire(job(2, account="class", user_id=1001))
    assert service.ttls == [90, 60]
    (tomorrow,) = journal.budgets.balances(terms, datetime.now(UTC) + timedelta(days=1))
    assert (tomorrow.granted, tomorrow.reserved) == (0, 0)
    assert [(change.what, change.amount, change.reason) for change in journal.budgets.changes()] == [
        ("granted", 30, "a deadline")
    ]


def test_money(config: Config, journal: Journal, service: Service) -> None:
    budget = Budget(scope=Scope("physics"), period=Period.MONTH, limit=100, in_money=True)
    config = budgeted(config, budget, prices={"ibm_fez": 2.0, "ibm_torino": 0.5}, currency="EUR")
    broker = Broker(config, journal, service.connect, settle=0)
    (lease,) = broker.acquire(job(1))
    assert service.ttls == [50]
    use(service, lease, 40)
    broker.release(1, "Done.")
    broker.acquire(job(2, "ibm_torino"))
    assert service.ttls == [50, 40]
    journal.budgets.put(msgspec.structs.replace(budget, limit=80.0), by=0, reason="")
    with pytest.raises(BudgetSpentError, match=re.escape("80.00 EUR of 80.00 EUR this month")):
        broker.acquire(job(3))


def test_a_project_begins_and_ends(config: Config, journal: Journal, service: Service) -> None:
    today = datetime.now(UTC).astimezone().date()

    def project(begins: date | None, ends: date) -> Budget:
        return Budget(scope=Scope("physics"), period=Period.PROJECT, begins=begins, ends=ends, limit=1e6)

    yesterday, tomorrow = today - timedelta(days=1), today + timedelta(days=1)
    for budget, sentence in (
        (project(tomorrow, tomorrow), f"The budget of account physics begins on {tomorrow}."),
        (project(None, yesterday), f"The budget of account physics ended on {yesterday}."),
    ):
        with pytest.raises(BudgetSpentError, match=sentence):
            Broker(budgeted(config, budget), journal, service.connect, settle=0).acquire(job(1))
    Broker(budgeted(config, project(None, tomorrow)), journal, service.connect, settle=0).acquire(job(1))
    assert service.ttls == [1800]


def test_users_are_warned_from_80_percent_on(config: Config, journal: Journal, service: Service) -> None:
    config = budgeted(config, limit(100, "physics"), limit(1000))
    broker, budgets = Broker(config, journal, service.connect, settle=0), Budgets(config, journal)
    for job_id, seconds in ((1, 79.0), (2, 1.0), (3, 30.0)):
        assert (budgets.warning("physics", 1000, ["ibm_fez"]) == "") == (job_id < 3)
        (lease,) = broker.acquire(job(job_id))
        use(service, lease, seconds)
        broker.release(job_id, "Done.")
    sentence = "100% of the budget of account physics is used: 110 s of 100 s this month."
    assert budgets.warning("physics", 1000, ["ibm_fez"]) == sentence
    assert budgets.warning("chemistry", 1000, ["ibm_fez"]) == ""


def test_a_task_is_refused_once_a_budget_is_used_up(
    config: Config, journal: Journal, service: Service
) -> None:
    """However it came about: another job has overspent it, or an admin has lowered it."""
    config = budgeted(config, limit(100, "physics"))
    broker, budgets = Broker(config, journal, service.connect, settle=0), Budgets(config, journal)
    (lease,) = broker.acquire(job(1))
    budgets.refuse_task(lease)
    use(service, lease, 50)
    broker.release(1, "Done.")
    (later,) = broker.acquire(job(2))
    journal.budgets.put(limit(50, "physics"), by=0, reason="")
    with pytest.raises(BudgetSpentError):
        budgets.refuse_task(later)


def test_a_budget_of_a_user_who_has_left_keeps_no_other_user_out(
    config: Config, journal: Journal, service: Service
) -> None:
    mine = budgeted(config, limit(1, ALL, "nobody-at-all"), limit(30, ALL, "root"))
    (standing,) = Budgets(mine, journal).standing
    assert standing.scope.user == "0"
    Broker(mine, journal, service.connect).acquire(job(7), deadline=NEVER)
    Broker(mine, journal, service.connect).acquire(job(8, user_id=0), deadline=NEVER)
    assert service.ttls == [1800, 30]
    with pytest.raises(ConfigError, match="There is no user 'nobody-at-all' on this machine"):
        user_number("nobody-at-all")


def test_a_directory_that_does_not_answer_lifts_no_budget(
    config: Config, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command that shows budgets, and metrics, go on; jobs wait."""

    def hang(_: str) -> pwd.struct_passwd:
        go_on.wait(60)
        return root

    go_on, root = threading.Event(), pwd.getpwuid(0)
    monkeypatch.setattr("qpu_slurm.leases.budgets.DIRECTORY", Directory())
    monkeypatch.setattr("qpu_slurm.leases.budgets._DIRECTORY_SECONDS", 0.2)
    monkeypatch.setattr(pwd, "getpwnam", hang)
    budgets = Budgets(budgeted(config, *(limit(1, ALL, f"user{number}") for number in range(50))), journal)
    assert budgets.standing == []
    with pytest.raises(UnavailableError, match="has not answered"):
        budgets.refuse(job(7))
    go_on.set()
    monkeypatch.setattr("qpu_slurm.leases.budgets._DIRECTORY_SECONDS", 60.0)
    budgets.refuse(job(7))
    assert {budget.scope.user for budget in budgets.standing} == {"0"}


def test_two_that_ask_at_once_never_get_the_last_seconds_twice(
    config: Config, service: Service, tmp_path: Path
) -> None:
    config = budgeted(config, limit(30, "physics"))
    with Journal(config.journal) as journal, Journal(config.journal) as other:
        second = Broker(config, other, service.connect, settle=0)

        def meanwhile() -> object:
            service.before.clear()
            with pytest.raises(BudgetReservedError):
                second.acquire(job(2))
            return None

        service.before["open ibm_fez"] = meanwhile
        Broker(config, journal, service.connect, settle=0).acquire(job(1))
    assert service.ttls == [30]
    assert tmp_path.exists()


def test_a_journal_of_before_is_brought_along(config: Config, journal: Journal, service: Service) -> None:
    """What was used until the update counts, and what runs is reserved."""
    broker = Broker(config, journal, service.connect, settle=0)
    (lease,) = broker.acquire(job(1))
    use(service, lease, 30)
    broker.release(1, "Done.")
    broker.acquire(job(2))
    journal.close()
    with sqlite3.connect(config.journal) as db:  # as the release before left it
        for statement in (
            "DROP TABLE budgets",
            "DROP TABLE budget_changes",
            "DROP TABLE used",
            "DROP TABLE reservations",
            *(
                f"ALTER TABLE sessions DROP COLUMN charged_{name}"
                for name in ("day", "locked", "executed", "cost")
            ),
        ):
            db.execute(statement)
        version = db.execute("PRAGMA user_version").fetchone()[0]
        db.execute(f"PRAGMA user_version = {version - 1}")
    db.close()
    config = budgeted(config, limit(5000, "physics"), limit(9000), limit(7000, ALL, "1000", "ibm_fez"))
    with Journal(config.journal) as updated:
        found = Budgets(config, updated).all()
        assert [(one.used, one.reserved) for one in found] == [(30, 1800)] * 3
