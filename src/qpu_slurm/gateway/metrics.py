# SPDX-License-Identifier: Apache-2.0
"""The metrics that Prometheus reads at /metrics; docs/watching.md lists them.

Every client that reaches the port can read them. So they contain no names of users, no job numbers and no
free text, and every label has a bounded number of values.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

from qpu_slurm.gateway.client_names import Names
from qpu_slurm.system.version import __version__

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from prometheus_client.registry import Collector

    from qpu_slurm.config import Config
    from qpu_slurm.config.budgets import BudgetsConfig
    from qpu_slurm.leases.reaper import Report

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)

LIMITS: Final = (
    "max_connections",
    "max_connections_per_address",
    "max_connections_per_user",
    "max_leases",
    "sessions_per_minute",
    "requests_of_a_lease",
    "histories",
    "histories_per_minute",
    "qpus_per_minute",
    "size",
)
"""Everything that the gateway limits: settings by their names, fixed limits by what they limit."""

STARTS: Final = ("granted", "full", "postponed", "refused", "dropped")
"""The outcomes of a job's start: it got its QPUs; one has as many jobs as may have it; one is away, closed or
slow; the job may not have one; the job ended meanwhile."""

RUNS: Final = ("complete", "incomplete", "failed")
"""The outcomes of a run of the reaper; an incomplete one left something to the next."""


class Process(ProcessCollector):
    """Describes the process, also where /proc has processes only, as under our systemd unit (ProcSubset=pid).

    The base class reads the time of the boot in /proc/stat, and describes nothing without it.
    """

    def _boot_time(self) -> float:
        return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)


class Metrics:
    """What the gateway counts and measures.

    Args:
        state: Describes the current state at each scrape.

    Attributes:
        requests: Times of requests, by method and route.
        errors: Failed requests, by kind.
        limits: Refusals, by limit.
        starts: Times of jobs' starts, by outcome.
        tasks: Tasks submitted, by QPU.
        input_bytes: Bytes of submissions, by QPU.
        reaped: Leases that the reaper ended, by QPU.
        taken_over: Leases restored from Slurm, by QPU.
        connections: Connections now.
        connections_limit: How many there may be.
        connections_closed: Connections closed to make room.
    """

    def __init__(self, state: Collector) -> None:
        # A second series for each counter: when it was made. Prometheus does not use it.
        disable_created_metrics()  # type: ignore[no-untyped-call] # published without types
        self._registry = CollectorRegistry(auto_describe=False)
        self._clients = Names()
        self.requests = Histogram(
            "qpu_slurm_request_seconds",
            "Time until a request was answered, the service's time included.",
            ("method", "route"),
            buckets=_BUCKETS,
            registry=self._registry,
        )
        self.errors = self._counter("errors", "Requests that failed, by kind.", "kind")
        self.limits = self._counter("limits_reached", "Requests and connections refused, by limit.", "limit")
        self.starts = Histogram(
            "qpu_slurm_start_seconds",
            "Time from a job's request for its QPUs to the answer.",
            ("outcome",),
            buckets=_BUCKETS,
            registry=self._registry,
        )
        self._client_requests = self._counter(
            "client_requests",
            "Requests of jobs, hooks and steps, by the client's release.",
            "client",
            "version",
        )
        self.tasks = self._counter("tasks", "Tasks submitted through the gateway.", "qpu")
        self.input_bytes = self._counter("task_input_bytes", "Bytes of submissions.", "qpu")
        self._executed = self._counter("qpu_seconds", "Execution on the QPU, of sessions that ended.", "qpu")
        self._locked = self._counter(
            "locked_seconds", "Time that the QPU was locked, by sessions that ended.", "qpu"
        )
        self._idle = self._counter("idle_seconds", "Time that a QPU was locked and executed nothing.", "qpu")
        self._cost = self._counter(
            "cost", "What sessions that ended cost, at the prices of the configuration.", "qpu"
        )
        self.reaped = self._counter("reaped_leases", "Leases that the reaper ended.", "qpu")
        self.taken_over = self._counter(
            "taken_over_leases", "Leases that Slurm knew of and the journal did not.", "qpu"
        )
        self._runs = self._counter("reaper_runs", "Runs of the reaper.", "outcome")
        self._last_run = self._gauge(
            "reaper_last_run_timestamp_seconds", "When the reaper last had compared the journal with Slurm."
        )
        self._without_job = self._gauge(
            "sessions_without_job", "Leases of ended jobs that the reaper could not end yet.", "qpu"
        )
        self._reloaded = self._gauge(
            "config_reload_successful", "Whether the last reload of the configuration succeeded."
        )
        self._reloaded.set(1)
        self._gauge("start_timestamp_seconds", "When the gateway was started.").set(time.time())
        self._gauge("build_info", "The gateway's release.", "version").labels(__version__).set(1)
        self.connections = self._gauge(
            "connections",
            "Connections that are open, and those in places reserved for hooks and steps.",
            "state",
        )
        self.connections_limit = self._gauge("connections_limit", "The setting max_connections.")
        self.connections_closed = self._counter(
            "connections_closed", "Connections out of use that were closed to make room."
        )
        for metric, values in ((self.limits, LIMITS), (self.starts, STARTS), (self._runs, RUNS)):
            for value in values:
                metric.labels(value)
        self._registry.register(state)
        Process(registry=self._registry)

    def _counter(self, name: str, documentation: str, *labels: str) -> Counter:
        return Counter(f"qpu_slurm_{name}", documentation, labels, registry=self._registry)

    def _gauge(self, name: str, documentation: str, *labels: str) -> Gauge:
        return Gauge(f"qpu_slurm_{name}", documentation, labels, registry=self._registry)

    def show(self, config: Config) -> None:
        """Export the QPUs of a configuration, unused ones included."""
        for qpu in config.qpus:
            for metric in (
                *(self.tasks, self.input_bytes, self._executed, self._locked, self._idle),
                *(self.reaped, self.taken_over, self._without_job),
            ):
                metric.labels(qpu)
            if config.budgets.price(qpu):
                self._cost.labels(qpu)

    def note_client(self, headers: Mapping[str, str]) -> None:
        """Count a request, once its caller is known, by what its client says of itself."""
        self._client_requests.labels(*self._clients.of(headers)).inc()

    def note_use(self, qpu: str, budgets: BudgetsConfig, *, locked: float, executed: float) -> None:
        """Count the use of a session that ended.

        Args:
            qpu: The QPU.
            budgets: Has its price.
            locked: The seconds that the session had it to itself.
            executed: The seconds that its tasks ran.
        """
        if budgets.price(qpu):
            self._cost.labels(qpu).inc(budgets.cost(qpu, locked, executed))
        self._locked.labels(qpu).inc(locked)
        self._executed.labels(qpu).inc(executed)
        self._idle.labels(qpu).inc(max(locked - executed, 0.0))

    def note_reload(self, *, successful: bool) -> None:
        """Note the result of a reload of the configuration."""
        self._reloaded.set(successful)

    def note_run(self, report: Report | None, qpus: Collection[str]) -> None:
        """Note a run of the reaper.

        Args:
            report: Its result; None if it failed.
            qpus: The QPUs of the configuration.
        """
        if report is None:
            self._runs.labels("failed").inc()
            return
        self._runs.labels("complete" if report.complete else "incomplete").inc()
        if not report.trouble:
            self._last_run.set_to_current_time()
        left = [lease.qpu for lease in report.unended]
        for qpu in {*qpus, *left}:
            self._without_job.labels(qpu).set(left.count(qpu))
        for lease in report.taken_over:
            self.taken_over.labels(lease.qpu).inc()
        for reaped in report.reaped:
            if reaped.lease.state.final:
                self.reaped.labels(reaped.lease.qpu).inc()

    def text(self) -> bytes:
        """Return all metrics in Prometheus' text format.

        Raises:
            JournalError: The leases cannot be counted.
        """
        return generate_latest(self._registry)
