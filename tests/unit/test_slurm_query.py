# SPDX-License-Identifier: Apache-2.0
"""Reading squeue's table, and choosing whom to ask; tests/cluster asks a real Slurm."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qpu_slurm.config import SlurmConfig
from qpu_slurm.errors import SlurmError
from qpu_slurm.slurm._command_line import FIELDS, parse, parse_time_left
from qpu_slurm.slurm._pyslurm import record
from qpu_slurm.slurm.job import Gres, JobRecord
from qpu_slurm.slurm.query import connect

if TYPE_CHECKING:
    from pathlib import Path

SUBMITTED = datetime(2026, 11, 24, 23, 33, 19, tzinfo=UTC)
PLAIN = {
    "JobID": "7",
    "HetJobID": "N/A",
    "ArrayJobID": "7",
    "ArrayTaskID": "N/A",
    "UserID": "1000",
    "State": "RUNNING",
    "BatchFlag": "1",
    "TimeLeft": "59:59",
    "TimeLimit": "1:00:00",
    "SubmitTime": "1795563199",
    "Account": "physics",
    "Partition": "quantum",
    "QOS": "high",
    "Reason": "None",
    "Licenses": "(null)",
    "tres-per-node": "N/A",
    "admin_comment": "(null)",
}


def _printed(**values: str) -> bytes:
    """Print a job as squeue does: each value padded or cut to its field's bytes."""
    row = {**PLAIN, **{name.replace("_per_", "-per-"): value for name, value in values.items()}}
    return b"".join(row[name].encode()[:width].ljust(width) for name, width in FIELDS.items()) + b"\n"


def test_a_job() -> None:
    printed = _printed(tres_per_node="gres:qpu:ibm_fez:1", admin_comment='{"a": 1}')
    assert list(parse(printed)) == [
        JobRecord(
            job_id=7,
            het_job_id=None,
            user_id=1000,
            state="RUNNING",
            batch=True,
            gres=(Gres("qpu", "ibm_fez", 1),),
            time_left=3599,
            submitted_at=SUBMITTED,
            account="physics",
            partition="quantum",
            qos="high",
            admin_comment='{"a": 1}',
        )
    ]


@pytest.mark.parametrize(
    ("printed", "names"),
    [
        ("ibm_fez", ("ibm_fez",)),
        ("ibm_fez:1,ibm-torino:2", ("ibm_fez", "ibm-torino")),
        ("ibm_fez@server:1|ibm_fez*2; ,", ("ibm_fez",)),
        (",".join(["ibm_fez:1"] * 101), ("ibm_fez",)),
        ("(null)", ()),
    ],
)
def test_licenses(printed: str, names: tuple[str, ...]) -> None:
    (job,) = parse(_printed(Licenses=printed))
    assert job.licenses == names


def test_a_run_of_a_job_is_known_by_when_it_was_submitted() -> None:
    first, again = parse(_printed() + _printed(SubmitTime="1795563200"))
    assert (first.run, again.run) == ("1795563199", "1795563200")


@pytest.mark.parametrize(
    ("number", "index", "name"),
    [
        ("8", "2", "7_2"),
        # The last one to start has the array's own number, which stands for every element.
        ("7", "3", "7_3"),
        ("7", "3%2", "7_3"),
        # These have not started yet.
        ("7", "3-5%2", "7"),
        ("7", "3,5", "7"),
        ("7", "1,3,5,7,9,11,13,15,17,19,...", "7"),
        ("7", "N/A", "7"),
    ],
)
def test_what_slurm_calls_one_element_of_an_array(number: str, index: str, name: str) -> None:
    (job,) = parse(_printed(JobID=number, ArrayTaskID=index))
    assert job.own_name == name


def test_a_component_and_a_job_without_a_script() -> None:
    jobs = list(parse(_printed(JobID="8", HetJobID="7") + _printed(BatchFlag="0")))
    assert [(job.job_id, job.leader, job.batch) for job in jobs] == [(8, 7, True), (7, 7, False)]


@given(
    st.lists(
        st.tuples(st.integers(1, 2**26), st.text(max_size=1100), st.text(max_size=4100)),
        min_size=1,
        max_size=4,
    )
)
def test_no_value_can_look_like_another_field_or_job(rows: list[tuple[int, str, str]]) -> None:
    printed = b"".join(
        _printed(JobID=str(job_id), tres_per_node=gres, admin_comment=comment)
        for job_id, gres, comment in rows
    )
    jobs = list(parse(printed))
    assert [job.job_id for job in jobs] == [job_id for job_id, _, _ in rows]
    assert all(job.user_id == 1000 and job.state == "RUNNING" for job in jobs)
    for job, (_, _, comment) in zip(jobs, rows, strict=True):
        if len(comment.encode()) <= FIELDS["admin_comment"] and comment != "(null)":
            assert job.admin_comment == comment.rstrip()


def test_a_gres_that_was_cut_off_is_not_guessed_at() -> None:
    (job,) = parse(_printed(tres_per_node=",".join(["gres:qpu:ibm_torino:1"] * 60)))
    assert set(job.gres) == {Gres("qpu", "ibm_torino", 1)}


@pytest.mark.parametrize(
    "printed",
    [
        _printed()[:-1],
        _printed()[1:],
        _printed() + b"\n",
        # What a squeue prints that does not know one of the fields.
        _printed()[: -1 - FIELDS["admin_comment"]] + b"\n",
        _printed(JobID="x"),
        _printed(UserID=""),
        _printed(TimeLeft="soon"),
        # What a squeue prints that takes no account of SLURM_TIME_FORMAT.
        _printed(SubmitTime="2026-11-24T23:33:19"),
    ],
)
def test_anything_else_is_an_error(printed: bytes) -> None:
    with pytest.raises(SlurmError, match="squeue printed"):
        list(parse(printed))


@pytest.mark.parametrize(
    ("text", "limit", "seconds"),
    [
        ("0:00", "5:00", 0),
        ("5:00", "5:00", 300),
        ("1:00:01", "2:00:00", 3601),
        ("364-23:59:59", "365-00:00:00", 365 * 86400 - 1),
        ("364-23:59:59", "INVALID", 365 * 86400 - 1),
        ("UNLIMITED", "UNLIMITED", None),
        ("NOT_SET", "NOT_SET", None),
        ("INVALID", "5:00", 0),
        ("INVALID", "INVALID", None),
    ],
)
def test_time_left(text: str, limit: str, seconds: int | None) -> None:
    assert parse_time_left(text, limit) == seconds


@given(st.integers(0, 10**8))
def test_time_left_is_read_as_slurm_writes_it(seconds: int) -> None:
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        text = f"{days}-{hours:02}:{minutes:02}:{rest:02}"
    elif hours:
        text = f"{hours}:{minutes:02}:{rest:02}"
    else:
        text = f"{minutes}:{rest:02}"
    assert parse_time_left(text, text) == seconds


PYSLURM = {
    "id": 7,
    "heterogeneous_id": None,
    "array_id": None,
    "user_id": 1000,
    "state": "RUNNING",
    "is_batch_job": True,
    "licenses": ["ibm_fez:1", "matlab@server:2"],
    "time_limit": 10,
    "run_time": 90,
    "submit_time": 1795563199,
    "account": None,
    "partition": "quantum",
    "qos": None,
    "state_reason": "Licenses",
    "admin_comment": None,
}


@pytest.mark.parametrize(
    ("time_limit", "run_time", "time_left"),
    [(10, 90, 510), (10, None, 600), (10, 700, 0), (None, 90, None), (400 * 24 * 60, 90, None)],
)
def test_a_job_as_pyslurm_shows_it(
    time_limit: int | None, run_time: int | None, time_left: int | None
) -> None:
    job = SimpleNamespace(
        **PYSLURM | {"id": 8, "heterogeneous_id": 7, "time_limit": time_limit, "run_time": run_time}
    )
    assert record(job) == JobRecord(
        job_id=8,
        het_job_id=7,
        user_id=1000,
        state="RUNNING",
        batch=True,
        gres=(),
        licenses=("ibm_fez", "matlab"),
        time_left=time_left,
        submitted_at=SUBMITTED,
        partition="quantum",
        reason="Licenses",
        admin_comment="",
    )


@pytest.mark.parametrize(
    ("task", "waiting", "name"),
    [
        (3, None, "7_3"),
        (None, None, "7_0"),
        (None, "3", "7_3"),
        (None, "3-5", "7"),
    ],
)
def test_what_slurm_calls_an_element_that_pyslurm_shows(
    task: int | None, waiting: str | None, name: str
) -> None:
    job = SimpleNamespace(**PYSLURM | {"array_id": 7, "array_task_id": task, "array_tasks_waiting": waiting})
    assert record(job).own_name == name


def test_the_commands_are_asked_where_pyslurm_cannot_be_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A pyslurm whose libslurm is gone, as after an upgrade of Slurm.
    (tmp_path / "pyslurm.py").write_text(
        "raise ImportError('libslurm.so.43: cannot open shared object file')"
    )
    (tmp_path / "slurm.conf").touch()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "pyslurm", raising=False)
    monkeypatch.setenv("SLURM_CONF", "/nowhere")
    with pytest.raises(SlurmError, match="squeue"):
        connect(SlurmConfig(conf=tmp_path / "slurm.conf", bin=tmp_path)).jobs()
