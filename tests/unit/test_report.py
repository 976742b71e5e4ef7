# SPDX-License-Identifier: Apache-2.0
"""`qpu-slurm report`, out of a journal."""

from __future__ import annotations

import csv
import io
import json
import os
import pwd
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qpu_slurm import cli
from qpu_slurm.admin.report.sums import KEYS, sum_up
from qpu_slurm.journal.history import TaskUse, Use
from qpu_slurm.journal.journal import Journal
from qpu_slurm.journal.model import LeaseState

if TYPE_CHECKING:
    from pathlib import Path

CONFIG = """
journal = "{directory}/lib/journal.sqlite"
[slurm]
bin = "{directory}"
[defaults]
instance = "crn:v1:bluemix:public:quantum-computing:us-east:a/1:2::"
[[qpu]]
name = "ibm_fez"
[[qpu]]
name = "ibm_torino"
"""

LATER = datetime.now(UTC) + timedelta(hours=1)

ME = pwd.getpwuid(os.getuid()).pw_name


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "config.toml"
    path.write_text(CONFIG.format(directory=tmp_path))
    (tmp_path / "lib").mkdir()
    return path


@pytest.fixture
def journal(config: Path) -> Journal:
    """Write down four jobs of two users: what three of them used, and that nobody knows of a fourth."""
    with Journal(config.parent / "lib" / "journal.sqlite") as journal:
        use(journal, 1, user_id=os.getuid(), account="physics", locked=10.0, executed=4.0, tasks=2)
        use(journal, 2, user_id=os.getuid(), account="physics", locked=2.5, executed=2.5, tasks=1)
        use(journal, 3, user_id=4_000_000, qpu="ibm_torino", locked=27.5, executed=20.0, tasks=1)
        lost = use(journal, 4, user_id=4_000_000)
        journal.history.give_up(lost, "The service does not know the session.")
        use(journal, 5, user_id=4_000_000)
    return journal


def use(
    journal: Journal,
    job_id: int,
    *,
    user_id: int,
    qpu: str = "ibm_fez",
    account: str = "",
    locked: float | None = None,
    executed: float = 0.0,
    tasks: int = 0,
) -> str:
    lease = journal.intend(job_id=job_id, user_id=user_id, qpu=qpu, account=account, expires_at=LATER)
    session_id = f"s-{job_id}"
    journal.hold(lease.id, session_id, LATER)
    journal.finish(lease.id, LeaseState.RELEASED)
    if locked is not None:
        run = [
            TaskUse(task_id=f"t-{job_id}-{number}", session_id=session_id, status="completed")
            for number in range(tasks)
        ]
        journal.history.account(session_id, locked=locked, executed=executed, tasks=run)
    return session_id


def report(config: Path, capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert cli.main(["--config", str(config), "report", *map(str, arguments)]) == 0
    return capsys.readouterr().out


def rows(config: Path, capsys: pytest.CaptureFixture[str], *arguments: object) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(report(config, capsys, "--json", *arguments))["rows"]
    return found


@pytest.mark.usefixtures("journal")
def test_it_sums_up_and_hides_nothing(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document = json.loads(report(config, capsys, "--json"))
    assert document["rows"] == [
        {
            "user": "4000000",
            "jobs": 3,
            "sessions": 3,
            "tasks": 1,
            "locked_seconds": 27.5,
            "executed_seconds": 20.0,
            "idle_seconds": 7.5,
            "share": 0.6875,
            "pending": 1,
            "unknown": 1,
        },
        {
            "user": ME,
            "jobs": 2,
            "sessions": 2,
            "tasks": 3,
            "locked_seconds": 12.5,
            "executed_seconds": 6.5,
            "idle_seconds": 6.0,
            "share": 0.3125,
            "pending": 0,
            "unknown": 0,
        },
    ]
    total = document["total"]
    assert (total["jobs"], total["sessions"], total["tasks"]) == (5, 5, 4)
    assert (total["locked_seconds"], total["idle_seconds"], total["share"]) == (40.0, 13.5, 1.0)
    assert (total["pending"], total["unknown"]) == (1, 1)


@pytest.mark.usefixtures("journal")
def test_the_table_ends_with_the_total(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = report(config, capsys, "--by", "qpu,job").splitlines()
    assert lines[0].split()[:3] == ["QPU", "job", "jobs"]
    assert lines[1].split()[:3] == ["ibm_torino", "3", "1"]
    assert lines[-1].split() == ["total", "5", "5", "4", "40.0", "26.5", "13.5", "100.0%", "1", "1"]


@pytest.mark.usefixtures("journal")
def test_csv_has_the_rows(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = list(csv.DictReader(io.StringIO(report(config, capsys, "--csv", "--by", "account,qpu"))))
    assert [(row["account"], row["qpu"], row["locked_seconds"]) for row in found] == [
        ("", "ibm_torino", "27.5"),
        ("physics", "ibm_fez", "12.5"),
        ("", "ibm_fez", "0.0"),
    ]
    assert (found[2]["pending"], found[2]["unknown"], found[2]["share"]) == ("1", "1", "0.0")


@pytest.mark.usefixtures("journal")
@pytest.mark.parametrize(
    ("options", "jobs"),
    [
        (["--user", ME], {"1", "2"}),
        (["--user", "4000000", "--user", ME], {"1", "2", "3", "4", "5"}),
        (["--account", "physics"], {"1", "2"}),
        (["--qpu", "ibm_torino"], {"3"}),
        (["--since", "1h"], {"1", "2", "3", "4", "5"}),
        (["--since", "2020-01-01", "--until", "2020-12-31"], set()),
        (["--until", "1d"], set()),
        (["--since", "2020-01-01T12:00"], {"1", "2", "3", "4", "5"}),
    ],
)
def test_it_can_be_limited(
    config: Path, capsys: pytest.CaptureFixture[str], options: list[str], jobs: set[str]
) -> None:
    assert {row["job"] for row in rows(config, capsys, "--by", "job", *options)} == jobs


@pytest.mark.usefixtures("journal")
@pytest.mark.parametrize(("key", "form"), [("day", "%Y-%m-%d"), ("month", "%Y-%m")])
def test_days_and_months_are_those_of_this_machine(
    config: Path, capsys: pytest.CaptureFixture[str], key: str, form: str
) -> None:
    before = datetime.now().astimezone().strftime(form)
    found = {row[key] for row in rows(config, capsys, "--by", key)}
    assert found <= {before, datetime.now().astimezone().strftime(form)}


def test_an_empty_journal_has_a_report(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Journal(config.parent / "lib" / "journal.sqlite").close()
    assert report(config, capsys).splitlines()[-1].split() == ["total", *"000", *["0.0"] * 3, "-", *"00"]


@pytest.mark.usefixtures("journal")
def test_a_plot_of_each_kind(config: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    svg, png = tmp_path / "report.svg", tmp_path / "report.png"
    report(config, capsys, "--by", "user,qpu", "--plot", svg)
    report(config, capsys, "--by", "month", "--plot", png)
    assert ET.fromstring(svg.read_text()).tag.endswith("svg")  # noqa: S314 - our own
    assert png.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--by", "phase"], "'phase' is none of user, account"),
        (["--since", "yesterday"], "'yesterday' is neither a date"),
        (["--plot", "report.pdf"], "report.pdf"),
        (["--csv", "--json"], "not allowed with"),
    ],
)
def test_options_that_make_no_sense(
    config: Path, capsys: pytest.CaptureFixture[str], options: list[str], words: str
) -> None:
    with pytest.raises(SystemExit, match="2"):
        cli.main(["--config", str(config), "report", *options])
    assert words in capsys.readouterr().err


def test_a_plot_that_cannot_be_written(
    config: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    Journal(config.parent / "lib" / "journal.sqlite").close()
    missing = tmp_path / "nowhere" / "report.svg"
    assert cli.main(["--config", str(config), "report", "--plot", str(missing)]) == 1
    assert f"cannot be written to {missing}: No such file" in capsys.readouterr().err


USES = st.lists(
    st.builds(
        Use,
        job_id=st.integers(1, 5),
        run=st.sampled_from(["", "a"]),
        user_id=st.sampled_from([0, 4_000_000]),
        account=st.sampled_from(["", "physics"]),
        qpu=st.sampled_from(["ibm_fez", "ibm_torino"]),
        opened_at=st.datetimes(datetime(2020, 1, 1), datetime(2030, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001 - hypothesis takes bounds without a zone
        locked_seconds=st.none() | st.floats(0, 1e6),
        executed_seconds=st.floats(0, 1e6),
        given_up=st.just(False),  # noqa: FBT003 - a value of a field
        tasks=st.integers(0, 9),
    )
)


@given(USES, st.lists(st.sampled_from(list(KEYS)), min_size=1, unique=True))
def test_rows_add_up_to_the_total(uses: list[Use], by: list[str]) -> None:
    sums = sum_up(uses, by)
    for name in ("sessions", "tasks", "pending", "unknown"):
        assert sum(getattr(row, name) for row in sums.rows) == getattr(sums.total, name)
    for name in ("locked_seconds", "executed_seconds", "idle_seconds"):
        assert sum(getattr(row, name) for row in sums.rows) == pytest.approx(
            getattr(sums.total, name), abs=0.1
        )
    assert len({row.key for row in sums.rows}) == len(sums.rows)
