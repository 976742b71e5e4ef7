# SPDX-License-Identifier: Apache-2.0
"""The admin's commands as they are installed, beside their tests in tests/unit: every option, every form."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from qpu_slurm.journal.history import TaskUse
from qpu_slurm.journal.journal import Journal
from qpu_slurm.journal.model import LeaseState, Refusal
from tests.integration.gateway_site import PROGRAM, SECONDS

if TYPE_CHECKING:
    from pathlib import Path

CONFIG = """
journal = "{directory}/journal.sqlite"
log = "{directory}/hooks.log"
[slurm]
bin = "{directory}"
[defaults]
instance = "crn:v1:bluemix:public:quantum-computing:us-east:a/1:2::"
[[qpu]]
name = "ibm_fez"
[[qpu]]
name = "ibm_torino"
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Write down two jobs that are over, each of another user, account and QPU, and one that holds a QPU."""
    path = tmp_path / "config.toml"
    path.write_text(CONFIG.format(directory=tmp_path))
    later = datetime.now(UTC) + timedelta(hours=1)
    with Journal(tmp_path / "journal.sqlite") as journal:
        for job_id, user_id, account, qpu in (
            (1, 4_000_001, "physics", "ibm_fez"),
            (2, 4_000_002, "chemistry", "ibm_torino"),
            (3, 4_000_003, "", "ibm_fez"),
        ):
            lease = journal.intend(job_id=job_id, user_id=user_id, qpu=qpu, account=account, expires_at=later)
            journal.hold(lease.id, f"s-{job_id}", later)
            if job_id < 3:
                journal.finish(lease.id, LeaseState.RELEASED)
                task = TaskUse(task_id=f"t-{job_id}", session_id=f"s-{job_id}", status="completed")
                journal.history.account(f"s-{job_id}", locked=2.0 * job_id, executed=1.0, tasks=[task])
    return path


def run(config: Path, *arguments: object, code: int = 0) -> str:
    done = subprocess.run(
        [PROGRAM, "--config", config, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS,
    )
    assert done.returncode == code, done.stderr
    return done.stdout


LIMITS = {
    "user": (["--user", "4000001"], {"1"}),
    "users": (["--user", "4000001", "--user", "4000002"], {"1", "2"}),
    "account": (["--account", "chemistry"], {"2"}),
    "qpu": (["--qpu", "ibm_fez"], {"1", "3"}),
    "since": (["--since", "1h"], {"1", "2", "3"}),
    "until": (["--until", "1d"], set()),
    "a year": (["--since", "2020-01-01", "--until", "2020-12-31T12:00"], set()),
}


@pytest.mark.parametrize(("options", "jobs"), LIMITS.values(), ids=LIMITS)
def test_a_report_can_be_limited(config: Path, options: list[str], jobs: set[str]) -> None:
    found = json.loads(run(config, "report", "--by", "job", "--json", *options))
    assert {row["job"] for row in found["rows"]} == jobs


def test_a_report_has_its_forms(config: Path, tmp_path: Path) -> None:
    by = ("report", "--by", "qpu,account")
    table = run(config, *by)
    assert table.splitlines()[0].split()[:2] == ["QPU", "account"]
    assert table.splitlines()[-1].split()[0] == "total"
    written = list(csv.DictReader(run(config, *by, "--csv").splitlines()))
    document = json.loads(run(config, *by, "--json"))
    assert [row["qpu"] for row in written] == [row["qpu"] for row in document["rows"]]
    assert written[0].keys() == document["rows"][0].keys() == {"qpu", "account"} | document["total"].keys()
    assert document["total"]["locked_seconds"] == 6.0
    for kind, begins in (("svg", b"<?xml"), ("png", b"\x89PNG")):
        run(config, *by, "--plot", tmp_path / f"plot.{kind}")
        assert (tmp_path / f"plot.{kind}").read_bytes().startswith(begins)


@pytest.mark.parametrize(
    ("arguments", "jobs"), [([], [3]), (["--all"], [1, 2, 3]), (["2"], [2]), (["2", "--all"], [2])]
)
def test_leases_are_listed(config: Path, arguments: list[str], jobs: list[int]) -> None:
    listed: list[dict[str, Any]] = json.loads(run(config, "leases", "--json", *arguments))
    assert [lease["job_id"] for lease in listed] == jobs


def test_what_a_job_was_refused_is_shown_with_the_sentence(config: Path) -> None:
    sentence = "The Open plan has no [dedicated] sessions."
    refusal = Refusal(job_id=4, user_id=4_000_004, qpus=("ibm_fez",), reason=sentence, account="physics")
    with Journal(config.parent / "journal.sqlite") as journal:
        journal.refuse(refusal)
    assert sentence in run(config, "leases", 4)
    assert f"ibm_fez: refused {sentence}" in " ".join(run(config, "timeline", 4).split())
    assert sentence in run(config, "report")
    assert sentence not in run(config, "report", "--qpu", "ibm_torino")
    assert sentence not in run(config, "report", "--until", "1h")
    document = json.loads(run(config, "report", "--json"))
    [refused] = document["refused"]
    assert refused.pop("time")
    who = {"job": 4, "user": "4000004", "account": "physics", "qpu": "ibm_fez"}
    assert refused == who | {"reason": sentence}
    # It had no session, and counts for nothing.
    assert document["total"]["jobs"] == 3


def test_a_diagnosis_is_json_and_fails_with_a_problem(config: Path) -> None:
    found = json.loads(run(config, "check", "--json", code=1))
    assert {line["level"] for line in found} >= {"ok", "problem"}
    assert all(line.keys() == {"level", "about", "text", "remedy", "diagnosis"} for line in found)


def test_plugstack_takes_what_cannot_be_guessed(config: Path) -> None:
    line = run(config, "plugstack", "--plugin", "/x/qpu_slurm.so", "--gres-partitions", "fast,slow").split()
    assert line[:2] == ["optional", "/x/qpu_slurm.so"]
    assert "gres_partitions=fast,slow" in line


def test_who_interrupts_it_is_told_by_the_exit_code(config: Path, tmp_path: Path) -> None:
    squeue = tmp_path / "squeue"
    squeue.write_text(f"#!/bin/sh\ntouch {tmp_path}/asked\nexec sleep {SECONDS}\n")
    squeue.chmod(0o755)
    with subprocess.Popen([PROGRAM, "--config", config, "reap"], env=os.environ) as reap:
        deadline = time.monotonic() + SECONDS
        while not (tmp_path / "asked").exists():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        reap.send_signal(signal.SIGINT)
        assert reap.wait(SECONDS) == 130
