# SPDX-License-Identifier: Apache-2.0
"""The metrics: bounded labels, no text of anybody's, and what docs, dashboard and rules name."""

from __future__ import annotations

import json
import re
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from qpu_slurm.config.budgets import Budget, BudgetsConfig, Period, Scope
from qpu_slurm.errors import (
    AnswerLostError,
    ConfigError,
    JournalError,
    MustWaitError,
    NoLeaseError,
    QpuFullError,
    RefusedError,
    RequestError,
)
from qpu_slurm.gateway.client_names import OTHER, Names
from qpu_slurm.gateway.metrics import LIMITS, STARTS, Metrics, Process
from qpu_slurm.gateway.starts import outcome_of
from qpu_slurm.gateway.state import State
from qpu_slurm.journal.journal import Journal
from qpu_slurm.journal.model import Lease, LeaseState
from qpu_slurm.leases.availability import Cause, QpuReport, QpuState
from qpu_slurm.leases.reaper import Reaped, Report
from tests.unit.memory_service import configure
from tests.unit.no_state import NoState

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qpu_slurm.config import Config

ROOT = Path(__file__).parents[2]
DASHBOARD = ROOT / "contrib" / "grafana" / "qpu_slurm.json"
RULES = ROOT / "contrib" / "prometheus" / "qpu_slurm.rules.yml"
WATCHING = ROOT / "docs" / "watching.md"

METRIC = re.compile(r"\b(?:qpu_slurm|process)_[a-z_]+[a-z]\b")

SECRETS = "maintenance by Ada", "ticket 4711"


class Gateway(NamedTuple):
    """What a gateway has seen."""

    config: Config
    reports: tuple[QpuReport, ...] | None
    certificate_ends: float | None = 1_800_000_000.0
    losses: tuple[str, ...] = ("It was deleted.",)


REPORTS = (
    QpuReport(qpu="ibm_fez", state=QpuState.AVAILABLE, limit=2, waiting=(7, 8), tasks=5, jobs=(3,)),
    QpuReport(qpu="ibm_torino", state=QpuState.AWAY, reason=SECRETS[1], cause=Cause.OFFLINE),
)


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with Journal(tmp_path / "journal.sqlite") as journal:
        yield journal


@pytest.fixture
def config(tmp_path: Path) -> Config:
    standing = (
        Budget(scope=Scope("physics"), period=Period.MONTH, limit=100),
        Budget(scope=Scope("class", "1000"), period=Period.DAY, limit=0),
    )
    return msgspec.structs.replace(configure(tmp_path), budgets=BudgetsConfig(standing=standing))


@pytest.fixture
def metrics(config: Config, journal: Journal) -> Metrics:
    """Return metrics that have all values that they can have."""
    metrics = Metrics(State(Gateway(config, REPORTS), journal))
    metrics.show(config)
    metrics.connections.labels("open").set(1)
    metrics.errors.labels("busy").inc()
    metrics.requests.labels("GET", "/healthz").observe(0.1)
    metrics.note_client({"User-Agent": "qpu_slurm/0.2.0"})
    metrics.note_use("ibm_paris", BudgetsConfig(prices={"ibm_paris": 1}), locked=1, executed=1)
    return metrics


def values(metrics: Metrics) -> dict[str, float]:
    found = {}
    for family in text_string_to_metric_families(metrics.text().decode()):
        for sample in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return found


def names(metrics: Metrics) -> set[str]:
    return {name.partition("{")[0] for name in values(metrics)}


# What they say.


def test_each_qpu_has_one_state_and_one_cause(metrics: Metrics) -> None:
    found = values(metrics)
    assert [found[f"qpu_slurm_qpu_state{{qpu=ibm_fez,state={state}}}"] for state in QpuState] == [1, 0, 0, 0]
    assert sum(found[f"qpu_slurm_qpu_unavailable{{cause={cause},qpu=ibm_fez}}"] for cause in Cause) == 0
    assert found["qpu_slurm_qpu_unavailable{cause=offline,qpu=ibm_torino}"] == 1
    assert found["qpu_slurm_waiting_jobs{qpu=ibm_fez}"] == 2
    assert found["qpu_slurm_service_waiting_tasks{qpu=ibm_fez}"] == 5
    assert found["qpu_slurm_jobs_limit{qpu=ibm_fez}"] == 2
    # Slurm did not say, and there is no limit.
    assert (
        not {"qpu_slurm_waiting_jobs{qpu=ibm_torino}", "qpu_slurm_jobs_limit{qpu=ibm_torino}"} & found.keys()
    )


def test_a_qpu_that_was_closed_since_the_last_check_is_closed(metrics: Metrics, journal: Journal) -> None:
    journal.closings.close("ibm_fez", SECRETS[0], user_id=1000)
    found = values(metrics)
    assert found["qpu_slurm_qpu_state{qpu=ibm_fez,state=closed}"] == 1
    assert found["qpu_slurm_qpu_unavailable{cause=closed,qpu=ibm_fez}"] == 1


def test_no_text_of_admins_and_services_is_exported(metrics: Metrics, journal: Journal) -> None:
    journal.closings.close("ibm_fez", SECRETS[0], user_id=1000)
    text = metrics.text().decode()
    assert not [secret for secret in SECRETS if secret in text]


def test_budgets_are_counted_and_no_user_is_named(metrics: Metrics) -> None:
    found = {name: value for name, value in values(metrics).items() if "budget" in name}
    assert found == {
        "qpu_slurm_budgets{state=ok}": 1,
        "qpu_slurm_budgets{state=near}": 0,
        "qpu_slurm_budgets{state=spent}": 1,
        "qpu_slurm_budget_used_ratio{account=physics,period=month,qpu=*}": 0,
    }


def test_before_the_first_check_nothing_is_known_of_a_qpu(config: Config, journal: Journal) -> None:
    found = values(Metrics(State(Gateway(config, None, None), journal)))
    assert found["qpu_slurm_qpu_unavailable{cause=not_checked,qpu=ibm_fez}"] == 1
    assert "qpu_slurm_certificate_end_timestamp_seconds" not in found


def test_the_size_of_the_journal_is_that_of_its_files(
    metrics: Metrics, config: Config, journal: Journal
) -> None:
    config.journal.write_bytes(b"x" * 1000)
    config.journal.with_name(config.journal.name + "-wal").write_bytes(b"x" * 100)
    assert values(metrics)["qpu_slurm_journal_bytes"] == 1100
    assert journal.count() == {}


def test_use_is_counted_and_its_idle_part_is_never_negative(metrics: Metrics) -> None:
    for locked, executed in ((10, 4), (0, 1)):
        metrics.note_use("ibm_fez", BudgetsConfig(), locked=locked, executed=executed)
    found = values(metrics)
    used = [found[f"qpu_slurm_{what}_seconds_total{{qpu=ibm_fez}}"] for what in ("locked", "qpu", "idle")]
    assert used == [10, 5, 6]


@pytest.mark.parametrize(("counts", "cost"), [("locked", 25.0), ("executed", 10.0)])
def test_use_costs_what_the_configuration_says(
    metrics: Metrics, counts: Literal["locked", "executed"], cost: float
) -> None:
    budgets = BudgetsConfig(counts=counts, prices={"ibm_torino": 2.5})
    metrics.note_use("ibm_torino", budgets, locked=10, executed=4)
    metrics.note_use("ibm_fez", budgets, locked=10, executed=4)
    found = values(metrics)
    assert found["qpu_slurm_cost_total{qpu=ibm_torino}"] == cost
    # Which has no price: nothing is no amount of money.
    assert "qpu_slurm_cost_total{qpu=ibm_fez}" not in found


def test_the_process_is_described_where_proc_has_processes_only(tmp_path: Path) -> None:
    """As under contrib/systemd's unit."""
    (tmp_path / "self").symlink_to("/proc/self")
    found = {
        family.name: family.samples[0].value
        for family in Process(proc=str(tmp_path), registry=None).collect()
    }
    assert found["process_resident_memory_bytes"] > 1e6
    assert found["process_cpu_seconds"] > 0
    assert time.time() - 86_400 < found["process_start_time_seconds"] <= time.time() + 1


# The reaper.


def lease(state: LeaseState, qpu: str = "ibm_fez") -> Lease:
    return Lease(
        id=1,
        job_id=7,
        user_id=1000,
        qpu=qpu,
        state=state,
        session_id="s",
        created_at=datetime.now(UTC),
        acquired_at=None,
        expires_at=None,
        ended_at=None,
        reason="",
    )


def test_a_session_whose_job_is_over_shows_until_the_reaper_has_ended_it(metrics: Metrics) -> None:
    stuck = lease(LeaseState.RELEASING)
    metrics.note_run(
        Report(leases=1, reaped=(Reaped(lease=stuck, why="x", trouble="y"),), unended=(stuck,)), ["ibm_fez"]
    )
    found = values(metrics)
    assert found["qpu_slurm_sessions_without_job{qpu=ibm_fez}"] == 1
    assert found["qpu_slurm_reaper_runs_total{outcome=incomplete}"] == 1
    assert found["qpu_slurm_reaped_leases_total{qpu=ibm_fez}"] == 0
    ended = lease(LeaseState.RELEASED)
    metrics.note_run(Report(leases=1, reaped=(Reaped(lease=ended, why="x"),)), ["ibm_fez"])
    found = values(metrics)
    assert found["qpu_slurm_sessions_without_job{qpu=ibm_fez}"] == 0
    assert found["qpu_slurm_reaped_leases_total{qpu=ibm_fez}"] == 1


def test_a_run_without_slurm_is_no_look_at_its_jobs(metrics: Metrics) -> None:
    metrics.note_run(Report(leases=0, trouble="squeue does not answer"), [])
    metrics.note_run(None, [])
    found = values(metrics)
    assert found["qpu_slurm_reaper_last_run_timestamp_seconds"] == 0
    assert found["qpu_slurm_reaper_runs_total{outcome=failed}"] == 1
    metrics.note_run(Report(leases=0), [])
    assert values(metrics)["qpu_slurm_reaper_last_run_timestamp_seconds"] > 0


# Bounded labels.


@pytest.mark.parametrize(
    ("headers", "client"),
    [
        (
            {"X-Qx-Client-Application": "qiskit-version-2/qiskit_ibm_runtime-0.51.0,qiskit-2.6.2*/qiskit"},
            ("qiskit-ibm-runtime", "0.51.0"),
        ),
        ({"X-Qx-Client-Application": "qpu_slurm/0.2.0.dev0"}, ("qpu_slurm", "0.2.0")),
        ({"User-Agent": "qpu-slurm-client/0.2.0.dev0"}, ("qpu-slurm-client", "0.2.0")),
        ({"User-Agent": "python-requests/2.32.5"}, (OTHER, OTHER)),
        ({}, (OTHER, OTHER)),
    ],
)
def test_clients_are_named_by_what_they_send(headers: dict[str, str], client: tuple[str, str]) -> None:
    assert Names().of(headers) == client


@given(st.lists(st.text()), st.lists(st.tuples(*[st.integers(0, 10**6)] * 3), max_size=80))
def test_whatever_clients_send_they_are_few(texts: list[str], releases: list[tuple[int, int, int]]) -> None:
    clients = Names()
    sent = [*texts, *(f"qpu_slurm/{a}.{b}.{c}" for a, b, c in releases)]
    found = {clients.of({"User-Agent": text}) for text in sent}
    assert len(found) <= 32 + 2
    assert all(re.fullmatch(r"[\d.]{1,14}|other", release) for _, release in found)


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (QpuFullError("x"), "full"),
        (MustWaitError("x"), "postponed"),
        (AnswerLostError("x"), "postponed"),
        (JournalError("x"), "postponed"),
        (RequestError("x"), "refused"),
        (RefusedError("x"), "refused"),
        (ConfigError("x"), "refused"),
        (NoLeaseError("x"), "dropped"),
        (KeyboardInterrupt(), "dropped"),
    ],
)
def test_every_start_has_one_of_the_outcomes(error: BaseException, outcome: str) -> None:
    assert outcome_of(error) == outcome
    assert outcome in STARTS


def test_every_limit_has_a_name_that_is_exported() -> None:
    """A counter that is not there before its limit is reached gives no alert when it is."""
    source = "".join(path.read_text() for path in (ROOT / "src/qpu_slurm/gateway").rglob("*.py"))
    named = re.findall(r'(?:limit=|why = |limits\.labels\()"([a-z_]+)"', source)
    named += re.findall(r'(?:AtOnce|PerMinute|busy)\([^)]*"([a-z_]+)"\s*,?\s*\)', source)
    assert set(named) == set(LIMITS)
    assert f'qpu_slurm_limits_reached_total{{limit="{LIMITS[0]}"}} 0.0' in Metrics(NoState()).text().decode()


# Documents.


def test_docs_list_every_metric_and_no_other(metrics: Metrics) -> None:
    exported = {re.sub("_(bucket|count|sum|created)$", "", name) for name in names(metrics)}
    exported = {name for name in exported if name.startswith("qpu_slurm_")}
    listed = re.findall(r"^\| `(qpu_slurm_\w+)", WATCHING.read_text(), re.MULTILINE)
    assert sorted(listed) == sorted(exported)


@pytest.mark.parametrize("file", [DASHBOARD, RULES], ids=["dashboard", "rules"])
def test_dashboard_and_rules_name_only_what_is_exported(file: Path, metrics: Metrics) -> None:
    text = file.read_text()
    if file is DASHBOARD:
        text = "\n".join(expressions(json.loads(text)))
    else:
        text = "\n".join(re.findall(r"expr: ?(?:>-?)?\s*((?:.+\n)(?: {10,}.+\n)*)", text))
    named = set(METRIC.findall(text))
    assert len(named) > 8
    assert named <= names(metrics)


def expressions(part: object) -> Iterator[str]:
    """Find all queries of a dashboard."""
    if isinstance(part, dict):
        for key, value in part.items():
            if key in {"expr", "definition"}:
                yield value
            else:
                yield from expressions(value)
    elif isinstance(part, list):
        for each in part:
            yield from expressions(each)
