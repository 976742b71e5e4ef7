# SPDX-License-Identifier: Apache-2.0
"""What contrib/prometheus and contrib/grafana ask is what a Prometheus finds at a gateway."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import pytest
import requests

from qpu_slurm_devkit.emulator import Emulator
from tests.integration.gateway_site import SECONDS, Site, free_port
from tests.unit.test_gateway_metrics import DASHBOARD, RULES, expressions

if TYPE_CHECKING:
    from collections.abc import Iterator

PROMETHEUS = Path("/usr/bin/prometheus")
PROMTOOL = Path("/usr/bin/promtool")

EXAMPLE = RULES.with_name("prometheus.yml")
TESTS = Path(__file__).with_name("rules_test.yml")

STARTING = 503

VARIABLES = {"$__rate_interval": "1m", "$__range": "1h", "$qpu": ".+", "$instance": ".+"}
"""As Grafana fills in a query."""

ABSENT = (
    "budget_used",
    "certificate",
    "cost",
    "errors_total",
    "jobs_limit",
    "qpu_slurm_waiting_jobs",
    "changes(",
)
"""What there is none of here: budgets, prices, TLS, errors, limits, a Slurm, a restart."""


def promtool(*arguments: object, text: str | None = None) -> subprocess.CompletedProcess[str]:
    argv = [str(PROMTOOL), *map(str, arguments)]
    return subprocess.run(argv, capture_output=True, text=True, input=text, check=False, timeout=SECONDS)


class Prometheus:
    """A server that scrapes a gateway each second.

    Args:
        directory: Where it keeps what it finds.
        target: The gateway's address.
    """

    def __init__(self, directory: Path, target: str) -> None:
        shutil.copy(RULES, directory)
        config = EXAMPLE.read_text().replace("/etc/prometheus/", f"{directory}/")
        config = config.replace("controller.cluster:8470", target).replace("scheme: https", "scheme: http")
        config = config.replace("/etc/qpu_slurm/ca.pem", "/etc/ssl/certs/ca-certificates.crt")
        self.config = directory / "prometheus.yml"
        self.config.write_text(f"global: {{scrape_interval: 1s, evaluation_interval: 1s}}\n{config}")
        self._directory = directory
        self._address = f"127.0.0.1:{free_port()}"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        argv = [
            *(str(PROMETHEUS), f"--config.file={self.config}", f"--storage.tsdb.path={self._directory}/data"),
            *(f"--web.listen-address={self._address}", "--log.level=warn"),
        ]
        with (self._directory / "log").open("wb") as log:
            self._process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(30)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def ask(self, path: str, **query: str) -> Any:  # noqa: ANN401 - Prometheus' answer
        assert self._process is not None
        assert self._process.poll() is None, (self._directory / "log").read_text()
        answer = requests.get(f"http://{self._address}/api/v1/{path}", params=query, timeout=SECONDS)
        if answer.status_code == STARTING:
            raise requests.ConnectionError("Prometheus starts")
        assert answer.ok, answer.text
        return answer.json()["data"]

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Return what a query finds now."""
        found: list[dict[str, Any]] = self.ask("query", query=expression)["result"]
        return found

    def value(self, expression: str) -> float | None:
        """Return the value of a query that finds one thing; None if it finds nothing."""
        found = self.query(expression)
        return float(found[0]["value"][1]) if found else None

    def wait_for(self, expression: str, value: float) -> None:
        deadline = time.monotonic() + SECONDS
        while True:
            try:
                found = self.value(expression)
            except requests.ConnectionError:
                found = None
            if found == value:
                return
            assert time.monotonic() < deadline, (expression, found, (self._directory / "log").read_text())
            time.sleep(0.2)


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Site, Prometheus]]:
    """Return a gateway through which a job has run, and its Prometheus."""
    with Emulator() as emulator, Site(emulator, gateway='reap_every = "1s"') as site:
        site.start()
        hooks = site.hooks()
        (lease,) = hooks.acquire(site.request("ibm_fez"))
        site.journal.closings.close("torino", "Ada looks at it", user_id=0)
        with Prometheus(
            tmp_path_factory.mktemp("prometheus"), site.url.removeprefix("http://")
        ) as prometheus:
            with site.job(lease) as job:
                prometheus.wait_for('qpu_slurm_leases{qpu="ibm_fez",state="held"}', 1)
                job.submit()
                emulator.wait_for(lambda emulator: emulator.tasks()[0].done_at)
            hooks.release(lease.job_id, "Done.")
            prometheus.wait_for('qpu_slurm_leases{qpu="ibm_fez",state="held"}', 0)
            prometheus.wait_for('qpu_slurm_locked_seconds_total{qpu="ibm_fez"} > bool 0', 1)
            yield site, prometheus


def test_prometheus_finds_what_has_happened(watched: tuple[Site, Prometheus]) -> None:
    _, prometheus = watched
    assert prometheus.value('up{job="qpu_slurm"}') == 1
    assert prometheus.value('qpu_slurm_qpu_state{qpu="torino",state="closed"}') == 1
    assert prometheus.value('qpu_slurm_qpu_unavailable{qpu="torino",cause="closed"}') == 1
    assert prometheus.value('qpu_slurm_start_seconds_count{outcome="granted"}') == 1
    assert prometheus.value('qpu_slurm_tasks_total{qpu="ibm_fez"}') == 1
    assert prometheus.value('sum(qpu_slurm_client_requests_total{client="qpu_slurm"}) > bool 0') == 1
    locked, executed, idle = (
        prometheus.value(f'qpu_slurm_{name}_seconds_total{{qpu="ibm_fez"}}')
        for name in ("locked", "qpu", "idle")
    )
    assert locked is not None
    assert executed is not None
    assert idle == pytest.approx(max(locked - executed, 0))


def test_every_query_of_the_dashboard_is_answered(watched: tuple[Site, Prometheus]) -> None:
    _, prometheus = watched
    queries = set(expressions(json.loads(DASHBOARD.read_text())))
    assert len(queries) > 30
    empty = []
    for query in sorted(queries):
        filled = query
        for variable, value in VARIABLES.items():
            filled = filled.replace(variable, value)
        if filled.startswith("label_values("):
            metric, _, label = filled.removeprefix("label_values(").rstrip(")").partition(", ")
            found = prometheus.query(f"count by ({label}) ({metric})")
        else:
            found = prometheus.query(filled)
        if not found and not any(word in query for word in ABSENT):
            empty.append(query)
    assert empty == []


def test_the_rules_are_evaluated_and_nothing_fires(watched: tuple[Site, Prometheus]) -> None:
    """A gateway that has just been started, and is well; a restart is reported only if it is seen."""
    _, prometheus = watched
    (group,) = prometheus.ask("rules")["groups"]
    names = [rule["name"] for rule in group["rules"]]
    assert "QpuAway" in names
    prometheus.wait_for("min(scrape_samples_scraped) > bool 0", 1)
    (group,) = prometheus.ask("rules")["groups"]
    assert [rule["name"] for rule in group["rules"] if rule.get("lastError")] == []
    assert prometheus.ask("alerts")["alerts"] == []


def test_promtool_finds_no_fault_in_the_metrics(watched: tuple[Site, Prometheus]) -> None:
    site, prometheus = watched
    text = requests.get(f"{site.url}/metrics", timeout=SECONDS).text
    done = promtool("check", "metrics", text=text)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    done = promtool("check", "config", prometheus.config)
    assert done.returncode == 0, done.stdout + done.stderr


def test_alerts_fire_when_they_should() -> None:
    done = promtool("test", "rules", TESTS)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_is_tested() -> None:
    alerts = [line.split(": ")[1] for line in RULES.read_text().splitlines() if "- alert: " in line]
    tested = {line.split(": ")[1] for line in TESTS.read_text().splitlines() if "alertname: " in line}
    assert set(alerts) == tested
