# SPDX-License-Identifier: Apache-2.0
"""The state of leases, QPUs and journal at this moment, for the metrics: read at each scrape."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from qpu_slurm.config.budgets import ALL
from qpu_slurm.journal.balances import STATES
from qpu_slurm.journal.model import LeaseState
from qpu_slurm.leases.availability import Cause, QpuState, as_now, not_checked
from qpu_slurm.leases.budgets import Budgets

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from prometheus_client.core import Metric

    from qpu_slurm.config import Config
    from qpu_slurm.journal.balances import Balance
    from qpu_slurm.journal.journal import Journal
    from qpu_slurm.leases.availability import QpuReport

_WAL = "-wal"
"""What SQLite adds to the name of the file with the newest changes."""


class Observed(Protocol):
    """What is observed: the gateway."""

    @property
    def config(self) -> Config:
        """The current configuration."""

    @property
    def reports(self) -> tuple[QpuReport, ...] | None:
        """The QPUs' state at the last check; None before the first one."""

    @property
    def certificate_ends(self) -> float | None:
        """When the certificate ends, in seconds since the epoch; None without TLS."""

    @property
    def losses(self) -> Sequence[str]:
        """The times that the journal was found deleted or damaged."""


class State(Collector):
    """Describes the current state at each scrape.

    Args:
        gateway: The gateway.
        journal: A connection to the journal of its own.
    """

    def __init__(self, gateway: Observed, journal: Journal) -> None:
        self._gateway = gateway
        self._journal = journal

    def collect(self) -> Iterator[Metric]:
        """Describe the current state.

        Raises:
            JournalError: The journal cannot be read.
        """
        yield self._leases()
        yield CounterMetricFamily(
            "qpu_slurm_journal_losses",
            "Times that the journal was found deleted or damaged.",
            len(self._gateway.losses),
        )
        yield GaugeMetricFamily(
            "qpu_slurm_journal_bytes",
            "Size of the journal, with what is not yet merged into its main file.",
            _size(self._gateway.config.journal),
        )
        if self._gateway.certificate_ends is not None:
            yield GaugeMetricFamily(
                "qpu_slurm_certificate_end_timestamp_seconds",
                "When the gateway's certificate ends.",
                self._gateway.certificate_ends,
            )
        yield from _qpus(self._reports())
        yield from _budgets(Budgets(self._gateway.config, self._journal).all())

    def _leases(self) -> Metric:
        found = self._journal.count()
        family = GaugeMetricFamily(
            "qpu_slurm_leases", "Leases that are not over, by state.", labels=("qpu", "state")
        )
        for qpu in self._gateway.config.qpus:
            for state in LeaseState:
                if not state.final:
                    family.add_metric((qpu, state), found.get((qpu, state), 0))
        return family

    def _reports(self) -> tuple[QpuReport, ...]:
        """Return the state of the QPUs, closed ones and their jobs as of now."""
        config = self._gateway.config
        known = {report.qpu: report for report in self._gateway.reports or ()}
        # A QPU that is new in the configuration was not checked yet.
        reports = [known.get(report.qpu, report) for report in not_checked(config)]
        return as_now(reports, self._journal)


def _qpus(reports: Iterable[QpuReport]) -> Iterator[Metric]:
    """Describe QPUs; see docs/watching.md."""
    state = _family("qpu_state", "1 for the QPU's state, 0 for the others.", "state")
    cause = _family("qpu_unavailable", "1 for the reason why the QPU is not available.", "cause")
    jobs = _family("jobs", "Jobs that have the QPU.")
    limit = _family("jobs_limit", "How many jobs may have the QPU at a time.")
    waiting = _family("waiting_jobs", "Jobs in Slurm's queue that wait for the QPU.")
    tasks = _family("service_waiting_tasks", "Tasks, whoever's, that wait for the QPU at its service.")
    for report in reports:
        for each in QpuState:
            state.add_metric((report.qpu, each), report.state is each)
        for why in Cause:
            cause.add_metric((report.qpu, why), report.cause is why)
        jobs.add_metric((report.qpu,), len(report.jobs))
        for family, value in (
            (limit, report.limit),
            (waiting, None if report.waiting is None else len(report.waiting)),
            (tasks, report.tasks),
        ):
            if value is not None:
                family.add_metric((report.qpu,), value)
    yield from (state, cause, jobs, limit, waiting, tasks)


def _budgets(balances: Iterable[Balance]) -> Iterator[Metric]:
    """Describe budgets: how many are near their end, and the use of those that the configuration names.

    Users are not named here: every client that reaches the port can read metrics.
    """
    counted = dict.fromkeys(STATES, 0)
    used = GaugeMetricFamily(
        "qpu_slurm_budget_used_ratio",
        "The used part of a budget of the configuration that is no user's.",
        labels=("account", "qpu", "period"),
    )
    for balance in balances:
        counted[balance.state] += 1
        scope = balance.budget.scope
        if balance.standing and scope.user == ALL and not scope.is_each:
            used.add_metric((scope.account, scope.qpu, balance.budget.period), balance.ratio)
    family = GaugeMetricFamily(
        "qpu_slurm_budgets", "Budgets, by how much of them is used.", labels=("state",)
    )
    for state, number in counted.items():
        family.add_metric((state,), number)
    yield from (family, used)


def _family(name: str, documentation: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"qpu_slurm_{name}", documentation, labels=("qpu", *labels))


def _size(journal: Path) -> int:
    size = 0
    for path in (journal, journal.with_name(journal.name + _WAL)):
        try:
            size += path.stat().st_size
        except FileNotFoundError:
            continue
    return size
