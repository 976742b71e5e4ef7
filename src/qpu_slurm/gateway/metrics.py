# SPDX-License-Identifier: Apache-2.0
"""The metrics that Prometheus reads at /metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from qpu_slurm.journal.model import LeaseState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from prometheus_client.core import Metric

    from qpu_slurm.journal.journal import Journal

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Metrics:
    """The gateway's counters. Leases are counted in the journal at each request.

    Args:
        journal: The leases.
        losses: Returns how often the journal was found deleted or damaged.
    """

    def __init__(self, journal: Journal, losses: Callable[[], int]) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        self._qpus: tuple[str, ...] = ()
        self._journal = journal
        self._losses = losses
        self.requests = Histogram(
            "qpu_slurm_request_seconds",
            "Time until a request was answered, the service's time included.",
            ("method", "route"),
            buckets=_BUCKETS,
            registry=self._registry,
        )
        self.errors = self._counter("errors", "Requests that failed, by kind.", "kind")
        self.tasks = self._counter("tasks", "Tasks submitted through the gateway.", "qpu")
        self.input_bytes = self._counter("task_input_bytes", "Bytes of submissions.", "qpu")
        self.qpu_seconds = self._counter(
            "qpu_seconds", "Execution on the QPU, of sessions that ended.", "qpu"
        )
        self.locked_seconds = self._counter(
            "locked_seconds", "Time that the QPU was locked, by sessions that ended.", "qpu"
        )
        self.idle_seconds = self._counter(
            "idle_seconds", "Time that a QPU was locked and executed nothing.", "qpu"
        )
        self.reaped = self._counter("reaped_leases", "Leases that the reaper ended.", "qpu")
        self.taken_over = self._counter(
            "taken_over_leases", "Leases that Slurm knew of and the journal did not.", "qpu"
        )
        self.reloaded = Gauge(
            "qpu_slurm_config_reload_successful",
            "Whether the last reload of the configuration succeeded.",
            registry=self._registry,
        )
        self.reloaded.set(1)
        self.connections = Gauge(
            "qpu_slurm_connections",
            "Connections that are open, and those in places reserved for hooks and steps.",
            ("state",),
            registry=self._registry,
        )
        self.connections_limit = Gauge(
            "qpu_slurm_connections_limit", "The setting max_connections.", registry=self._registry
        )
        self.connections_refused = self._counter(
            "connections_refused",
            "Connections and requests refused, by the limit that they reached.",
            "limit",
        )
        self.connections_closed = Counter(
            "qpu_slurm_connections_closed",
            "Connections out of use that were closed to make room.",
            registry=self._registry,
        )
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    def show(self, qpus: Iterable[str]) -> None:
        """Export these QPUs, unused ones included."""
        self._qpus = tuple(qpus)
        for qpu in self._qpus:
            for counter in (self.tasks, self.qpu_seconds, self.locked_seconds, self.idle_seconds):
                counter.labels(qpu)

    def _counter(self, name: str, documentation: str, label: str) -> Counter:
        return Counter(f"qpu_slurm_{name}", documentation, (label,), registry=self._registry)

    def collect(self) -> Iterator[Metric]:
        """Count the open leases, for the registry."""
        found = self._journal.count()
        family = GaugeMetricFamily(
            "qpu_slurm_leases", "Leases that are not over, by state.", labels=("qpu", "state")
        )
        for qpu in self._qpus:
            for state in LeaseState:
                if not state.final:
                    family.add_metric((qpu, state), found.get((qpu, state), 0))
        yield family
        yield CounterMetricFamily(
            "qpu_slurm_journal_losses", "Times that the journal was found deleted or damaged.", self._losses()
        )

    def text(self) -> bytes:
        """Return all metrics in Prometheus' text format.

        Raises:
            JournalError: The leases cannot be counted.
        """
        return generate_latest(self._registry)
