# SPDX-License-Identifier: Apache-2.0
"""`qpu-slurm timeline`: what is drawn of what is known, and how."""

from __future__ import annotations

import json
import os
import re
import sys
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qpu_slurm import cli
from qpu_slurm.admin.timeline import chart, text
from qpu_slurm.admin.timeline.chart import Kind
from qpu_slurm.journal.history import LeaseHistory, Lock, SessionHistory, SessionUse, Step, TaskUse
from qpu_slurm.journal.journal import Journal
from qpu_slurm.journal.model import Hold, Lease, LeaseState
from qpu_slurm.leases.job_history import JobHistory
from qpu_slurm.slurm.times import JobTimes
from tests.unit.test_report import CONFIG

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

ZERO = datetime(2026, 11, 24, 12, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return ZERO + timedelta(seconds=seconds)


def session(**changes: object) -> SessionHistory:
    """Return a session of ten seconds with a task of four, after which the QPU was locked for two more."""
    past = SessionHistory(
        session=SessionUse(
            session_id="s",
            lease_id=1,
            opened_at=at(2),
            ended_at=at(12),
            locked_seconds=6.0,
            executed_seconds=4.0,
        ),
        locks=(Lock(session_id="s", began_at=at(5), ended_at=at(11)),),
        tasks=(
            TaskUse(
                task_id="t",
                session_id="s",
                status="completed",
                created_at=at(4),
                started_at=at(5),
                ended_at=at(9),
                seconds=4.0,
            ),
        ),
    )
    return msgspec.structs.replace(past, **changes)


def history(
    *sessions: SessionHistory, job_id: int = 7, ended: bool = True, name: str = "split"
) -> JobHistory:
    lease = Lease(
        id=1,
        job_id=job_id,
        user_id=1000,
        qpu="ibm_fez",
        state=LeaseState.RELEASED,
        hold=Hold.JOB,
        submitted_at=ZERO,
        session_id="s",
        created_at=at(2),
        acquired_at=at(2),
        expires_at=at(100),
        ended_at=at(13) if ended else None,
        reason="",
    )
    slurm = JobTimes(
        job_id=job_id, user_id=1000, name=name, submitted_at=ZERO, started_at=at(1), ended_at=at(14)
    )
    steps = (
        Step(job_id=7, run="", step="batch", name="batch", started_at=at(2), ended_at=at(13)),
        Step(job_id=7, run="", step="0", name="python", started_at=at(2), ended_at=at(3)),
        Step(job_id=7, run="", step="1", name="task_runner", started_at=at(3), ended_at=at(9)),
    )
    leases = (LeaseHistory(lease=lease, sessions=sessions),)
    return JobHistory(job_id=job_id, slurm=slurm, leases=leases, steps=steps)


def bars(workflow: chart.Workflow) -> dict[str, list[tuple[Kind, float, float]]]:
    [job] = workflow.jobs
    return {row.label: [(bar.kind, bar.begin, bar.end) for bar in row.bars] for row in job.rows}


def test_a_jobs_rows() -> None:
    workflow = chart.workflow([history(session())])
    assert bars(workflow) == {
        "job": [(Kind.WAITING, 0, 2), (Kind.JOB, 2, 13)],
        "step 0: python": [(Kind.STEP, 2, 3)],
        "step 1: task_runner": [(Kind.STEP, 3, 9)],
        "ibm_fez: session": [(Kind.SESSION, 2, 12)],
        "ibm_fez: task": [(Kind.WAITING, 4, 5), (Kind.EXECUTING, 5, 9)],
        # What executes lies upon what is locked.
        "ibm_fez: locked": [(Kind.IDLE, 5, 11), (Kind.EXECUTING, 5, 9)],
    }
    assert workflow.summary == "13.0 s in all; QPU locked 6.0 s: executing 4.0 s, idle 2.0 s"


def test_a_session_that_was_closed_early_is_open_until_its_task_ends() -> None:
    past = session()
    closed = msgspec.structs.replace(past.session, ended_at=at(5))
    workflow = chart.workflow([history(msgspec.structs.replace(past, session=closed))])
    assert bars(workflow)["ibm_fez: session"] == [(Kind.SESSION, 2, 11)]


def test_a_session_that_was_recorded_late_is_open_from_its_first_task_on() -> None:
    past = session()
    found = msgspec.structs.replace(past.session, opened_at=at(12))
    workflow = chart.workflow([history(msgspec.structs.replace(past, session=found))])
    assert bars(workflow)["ibm_fez: session"] == [(Kind.SESSION, 4, 12)]


def test_where_only_the_length_is_told_the_lock_begins_with_the_first_task() -> None:
    workflow = chart.workflow([history(session(locks=()))])
    assert bars(workflow)["ibm_fez: locked"][0] == (Kind.IDLE, 5, 11)


@pytest.mark.parametrize(
    ("changes", "note"),
    [
        ({"unknown": "It is forgotten."}, "unknown: It is forgotten."),
        ({}, "not told yet"),
        ({"ended_at": None}, "known when the session is over"),
    ],
)
def test_what_is_not_known_is_said_and_not_drawn(changes: dict[str, object], note: str) -> None:
    use = msgspec.structs.replace(session().session, locked_seconds=None, executed_seconds=None, **changes)
    workflow = chart.workflow([history(session(session=use, locks=(), tasks=()))])
    row = workflow.jobs[0].rows[-1]
    assert (row.label, row.bars, row.note) == ("ibm_fez: locked", (), note)
    assert workflow.summary.endswith("; 1 session not known")
    assert note in text.draw([workflow])


def test_jobs_that_run_go_on() -> None:
    workflow = chart.workflow([history(ended=False)])
    job = workflow.jobs[0].rows[0]
    assert [bar.going_on for bar in job.bars] == [False, True]
    assert "▸" in text.draw([workflow])


def test_a_job_without_a_qpu_is_what_slurm_knows_of_it() -> None:
    alone = msgspec.structs.replace(history(), leases=(), steps=())
    assert bars(chart.workflow([alone])) == {"job": [(Kind.WAITING, 0, 1), (Kind.JOB, 1, 14)]}


def test_a_step_of_whose_end_nobody_told_ends_with_its_job() -> None:
    past = history(session())
    steps = tuple(msgspec.structs.replace(step, ended_at=None) for step in past.steps)
    workflow = chart.workflow([msgspec.structs.replace(past, steps=steps)])
    [bar] = workflow.jobs[0].rows[1].bars
    assert (bar.kind, bar.begin, bar.end, bar.going_on) == (Kind.STEP, 2, 13, True)


# On a terminal.


def width_of(drawing: str) -> int:
    return max(len(line) for line in drawing.splitlines()[:-1])  # the legend is as long as it is


@pytest.fixture
def workflows() -> list[chart.Workflow]:
    return [
        chart.workflow([history(session())], "One job"),
        chart.workflow([history(session(), job_id=8), history(job_id=9)], "Two jobs"),
    ]


def test_each_kind_has_a_sign_and_stands_in_the_legend(workflows: Sequence[chart.Workflow]) -> None:
    drawing = text.draw(workflows)
    *_, legend = drawing.splitlines()
    for kind, sign in text.SIGNS.items():
        assert sign.unicode in drawing
        assert f"{2 * sign.unicode} {kind}" in legend
    assert drawing.splitlines()[0] == "One job"
    assert drawing.count("seconds ") == 2


def test_it_can_do_without_unicode(
    workflows: Sequence[chart.Workflow], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with (tmp_path / "out").open("w", encoding="ascii") as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        drawing = text.draw(workflows)
    assert drawing.isascii()
    assert all(2 * sign.ascii in drawing for sign in text.SIGNS.values())


@pytest.mark.parametrize("columns", [60, 80, 200])
def test_it_is_as_wide_as_the_terminal(
    workflows: Sequence[chart.Workflow], columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    drawing = text.draw(workflows)
    assert "\x1b[" in drawing  # it has colours
    assert columns - 8 <= width_of(re.sub("\x1b\\[[0-9;]*m", "", drawing)) <= columns


def test_names_are_no_orders_to_a_terminal() -> None:
    drawing = text.draw([chart.workflow([history(name="evil\x1b[2J[bold]")], "\x1b]0;x\x07")])
    assert "\x1b" not in drawing
    assert "evil?[2J[bold]" in drawing


@given(st.floats(0, 1e7), st.integers(1, 40))
def test_ticks_are_few_and_round(seconds: float, most: int) -> None:
    step = text.tick_seconds(seconds, most)
    assert seconds / step <= most * 1.01
    assert f"{step:.6e}"[0] in "125"


# The command.


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "config.toml"
    path.write_text(CONFIG.format(directory=tmp_path))
    (tmp_path / "lib").mkdir()
    with Journal(tmp_path / "lib" / "journal.sqlite") as journal:
        for job_id in (7, 8):
            lease = journal.intend(job_id=job_id, user_id=os.getuid(), qpu="ibm_fez", expires_at=at(100))
            journal.history.step_started(job_id, "0", "python", datetime.now(UTC))
            journal.hold(lease.id, f"s-{job_id}", at(100))
            journal.finish(lease.id, LeaseState.RELEASED)
            journal.history.account(f"s-{job_id}", locked=2.5, executed=2.0, tasks=[])
    return path


def timeline(config: Path, *arguments: object) -> int:
    return cli.main(["--config", str(config), "timeline", *map(str, arguments)])


def test_the_command_draws_what_the_journal_has(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert timeline(config, 7, "8", "--label", "First") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "First"
    assert "Job 8" in lines
    assert [line.split()[:3] for line in lines].count(["step", "0:", "python"]) == 2
    assert sum(line.startswith("  ibm_fez: locked") for line in lines) == 2


def test_the_command_gives_the_bars_to_programs(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert timeline(config, "7,8", "--json") == 0
    [workflow] = json.loads(capsys.readouterr().out)
    assert workflow["label"] == "Jobs 7, 8"
    assert [job["job_id"] for job in workflow["jobs"]] == [7, 8]
    assert (workflow["locked_seconds"], workflow["executed_seconds"]) == (5.0, 4.0)


def test_the_command_draws_pictures(config: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    svg, png = tmp_path / "out.svg", tmp_path / "out.png"
    assert timeline(config, 7, "--svg", svg, "--png", png, "--label", "50 $ of <QPU> & 名") == 0
    assert capsys.readouterr().out == ""
    assert ET.fromstring(svg.read_text()).tag.endswith("svg")  # noqa: S314 - our own
    assert png.read_bytes().startswith(b"\x89PNG")
    again = tmp_path / "again.svg"
    assert timeline(config, 7, "--svg", again, "--label", "50 $ of <QPU> & 名") == 0
    assert again.read_bytes() == svg.read_bytes()


def test_a_picture_without_its_library(
    config: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert timeline(config, 7, "--svg", tmp_path / "out.svg") == 1
    assert "pip install '.[plot]'." in capsys.readouterr().err
    assert timeline(config, 7) == 0


def test_a_job_that_nobody_knows(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert timeline(config, 99) == 1
    assert capsys.readouterr().err == "qpu-slurm: Neither the journal nor Slurm knows job 99.\n"


@pytest.mark.parametrize(
    "arguments", [[], ["seven"], ["7,"], ["0"], ["7", "--svg", "out.gif"], ["7", "--png", "out"], ["٣"]]
)
def test_arguments_that_make_no_sense(
    config: Path, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        timeline(config, *arguments)
    assert "usage: qpu-slurm timeline" in capsys.readouterr().err
