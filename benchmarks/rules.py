# SPDX-License-Identifier: Apache-2.0
"""What the rules of a centre cost a start: who may use a QPU, and how much.

Two brokers in this process, as in the gateway, each with a journal of its own in which 1,000 jobs run. One
has no rules. The other has a rule of who may use the QPU, 10,000 accounts with a budget each, one for each
user of an account, and one for the whole cluster. They acquire and release in turn, on one emulator.
"""

from __future__ import annotations

import itertools
import tempfile
import time
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from benchmarks.broker import configuration
from benchmarks.figures import Figure
from benchmarks.processes import Pairs, rounded
from benchmarks.step import HOURS, QPU
from qpu_slurm.config.access import AccessRule, AccessRules
from qpu_slurm.config.budgets import EACH, Budget, BudgetsConfig, Period, Scope
from qpu_slurm.journal.journal import Journal
from qpu_slurm.journal.model import LeaseRequest, LeaseState
from qpu_slurm.leases.broker import Broker
from qpu_slurm.leases.budgets import Budgets
from qpu_slurm.providers import Connections
from qpu_slurm.system import logs
from qpu_slurm_devkit.emulator import Emulator

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qpu_slurm.config import Config

_ACCOUNTS, _RUNNING, _ROUNDS = 10_000, 1_000, 61

_NOTE = (
    f"{{ruled:.2f}} ms against {{free:.2f}} ms, with {_ACCOUNTS:,} accounts with budgets and {_RUNNING:,} "
    "running jobs. Three budgets cover the job: its account's, its user's, and that of the whole cluster."
)


def measure() -> Iterator[Figure]:
    """Compare a start with rules with one without them."""
    with ExitStack() as stack:
        emulator = stack.enter_context(Emulator(interactive_ttl=HOURS, idle_ttl=HOURS, backends=(QPU,)))
        disk = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="qpu-bench-")))
        logs.configure("info", disk / "broker.log")
        config = configuration(disk, emulator.url, emulator.accounts[0])
        brokers = []
        for name, own in (("ruled", _with_rules(config)), ("free", config)):
            journal = stack.enter_context(Journal(disk / f"{name}.sqlite"))
            _run_jobs(own, journal)
            if own is not config:
                _set_budgets(journal)
            brokers.append(Broker(own, journal, Connections().connect))
        took: tuple[list[float], list[float]] = ([], [])
        jobs = itertools.count(1_000_000)
        for number in range(_ROUNDS + 1):
            for broker, times in zip(brokers, took, strict=True):
                seconds = _start(broker, next(jobs))
                if number:
                    times.append(seconds * 1e3)
    pairs = Pairs(*took)
    ruled, free = pairs.medians
    yield Figure(
        key="rules.start_vs_none",
        what="a start with all rules on, against the same without",
        value=pairs.ratio,
        at_most=1.1,
        details={"milliseconds": rounded(pairs.one, 2), "without_milliseconds": rounded(pairs.other, 2)},
        note=_NOTE.format(ruled=ruled, free=free),
    )


def _start(broker: Broker, job_id: int) -> float:
    """Start and end a job; return the seconds that the start took."""
    request = LeaseRequest(
        job_id=job_id,
        user_id=1000,
        account=f"account{job_id % _ACCOUNTS}",
        qpus=(QPU,),
        seconds_left=600,
    )
    begin = time.perf_counter()
    (lease,) = broker.acquire(request)
    seconds = time.perf_counter() - begin
    if lease.state is not LeaseState.HELD:
        raise RuntimeError(f"the lease is {lease.state}")
    broker.release(job_id, "The job ended.")
    return seconds


def _with_rules(config: Config) -> Config:
    rules = AccessRules(allow=(AccessRule(users=(1000,)), AccessRule(accounts=("other",))))
    qpu = msgspec.structs.replace(config.qpu(QPU), access_rules=rules)
    standing = (
        Budget(scope=Scope(EACH, EACH), period=Period.MONTH, limit=1e6),
        Budget(scope=Scope(), period=Period.MONTH, limit=1e8),
    )
    budgets = BudgetsConfig(standing=standing)
    return msgspec.structs.replace(config, qpus={QPU: qpu}, budgets=budgets)


def _set_budgets(journal: Journal) -> None:
    """Give each account a budget, as `qpu-slurm budget set` does."""
    for number in range(_ACCOUNTS):
        scope = Scope(f"account{number}")
        journal.budgets.put(Budget(scope=scope, period=Period.MONTH, limit=1e6), by=0, reason="a benchmark")


def _run_jobs(config: Config, journal: Journal) -> None:
    """Write down jobs that run, each with its session and what that reserves."""
    budgets, until = Budgets(config, journal), datetime.now(UTC) + timedelta(hours=8)
    for job_id in range(1, _RUNNING + 1):
        account, user_id = f"account{job_id % _ACCOUNTS}", 1000 + job_id % 50
        lease = journal.intend(
            qpu=QPU,
            expires_at=until,
            max_ttl=600,
            terms=budgets.terms(account, user_id, QPU),
            job_id=job_id,
            user_id=user_id,
            account=account,
        )
        journal.hold(lease.id, f"session-{job_id}", until)
