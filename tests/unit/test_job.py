# SPDX-License-Identifier: Apache-2.0
"""Reading what users write and what Slurm hands over."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from qpu_slurm.errors import SlurmError
from qpu_slurm.names import QPU_NAME
from qpu_slurm.slurm.job import Gres, HookJob, parse_gres
from qpu_slurm.system import logs

if TYPE_CHECKING:
    from pathlib import Path

QPU_NAMES = st.from_regex(QPU_NAME, fullmatch=True)
HOOK = {"SLURM_JOB_ID": "17", "SLURM_JOB_UID": "1000"}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("gres:qpu:1", (Gres("qpu", None, 1),)),
        ("gres/qpu:1", (Gres("qpu", None, 1),)),
        ("gres:qpu", (Gres("qpu", None, 1),)),
        ("gres:qpu:ibm_fez:2", (Gres("qpu", "ibm_fez", 2),)),
        ("gres/qpu:ibm_fez", (Gres("qpu", "ibm_fez", 1),)),
        ("gres/qpu:2K", (Gres("qpu", None, 2048),)),
        ("gres/qpu:ibm_fez:1m", (Gres("qpu", "ibm_fez", 1024**2),)),
        (
            "gres/qpu:ibm_fez:1,gres/gpu:2,license/matlab:1",
            (Gres("qpu", "ibm_fez", 1), Gres("gpu", None, 2)),
        ),
        ("N/A", ()),
        ("(null)", ()),
        ("", ()),
    ],
)
def test_gres_as_any_slurm_writes_them(value: str, expected: tuple[Gres, ...]) -> None:
    assert parse_gres(value) == expected


@given(
    st.lists(st.builds(Gres, st.just("qpu"), st.none() | QPU_NAMES, st.integers(0, 10**6)), max_size=5),
    st.sampled_from([":", "/"]),
)
def test_gres_are_read_as_they_were_written(gres: list[Gres], separator: str) -> None:
    written = (":".join(["qpu", *([one.type] if one.type else []), str(one.count)]) for one in gres)
    assert parse_gres(",".join(f"gres{separator}{text}" for text in written)) == tuple(gres)


@given(st.text(alphabet="gres:/qpu,1²ab() ", max_size=60) | st.text())
def test_no_text_breaks_the_reader_of_gres(value: str) -> None:
    for gres in parse_gres(value):
        assert gres.name
        assert gres.count >= 0


@given(
    job_id=st.integers(1, 2**26),
    leader=st.integers(0, 2**26),
    user_id=st.integers(0, 2**32 - 2),
    restarts=st.integers(0, 1000),
    option=st.none() | st.text(),
)
def test_a_hooks_environment(
    job_id: int, leader: int, user_id: int, restarts: int, option: str | None
) -> None:
    environ = {
        "SLURM_JOB_ID": str(job_id),
        "SLURM_JOB_UID": str(user_id),
        "SLURM_JOB_RESTART_COUNT": str(restarts),
        "SLURM_HET_JOB_ID": str(leader),
    }
    if option is not None:
        environ["SPANK_QPU_SLURM_QPU"] = option
    job = HookJob.from_environ(environ)
    assert (job.job_id, job.user_id, job.restarts) == (job_id, user_id, restarts)
    assert job.leader == (leader or job_id)
    assert job.qpu_option == (option or None)
    assert job.api_key is None


@pytest.mark.parametrize("hold", ["job", "task"])
def test_how_long_a_session_is_open_is_the_users_choice(hold: str) -> None:
    assert HookJob.from_environ(HOOK | {"SPANK_QPU_SLURM_SESSION": hold}).hold == hold


@given(st.text().filter(lambda value: value not in {"job", "task"}))
@example("Task")
@example("task\n")
@example("job,task")
@example("\udcff")
@example("task" * 250_000)
def test_what_no_plugin_of_ours_published_is_no_choice(value: str) -> None:
    assert HookJob.from_environ(HOOK | {"SPANK_QPU_SLURM_SESSION": value}).hold is None


@pytest.mark.parametrize("value", ["", "Task", "\udcff\n", "task" * 250_000])
def test_such_a_choice_is_a_line_in_the_log_of_a_bounded_length(value: str, tmp_path: Path) -> None:
    logs.configure("warning", tmp_path / "log")
    HookJob.from_environ(HOOK | {"SPANK_QPU_SLURM_SESSION": value})
    lines = (tmp_path / "log").read_text().splitlines()
    assert len(lines) == (1 if value else 0)
    assert all('"job_id":17' in line and len(line) < 400 for line in lines)


def test_what_a_plain_job_lacks_has_a_default_and_the_key_does_not_show() -> None:
    job = HookJob.from_environ(HOOK | {"SPANK_QPU_SLURM_API_KEY": "made-up-key"})
    assert (job.leader, job.restarts, job.qpu_option, job.hold) == (17, 0, None, None)
    assert job.api_key is not None
    assert job.api_key.reveal() == "made-up-key"
    assert "made-up-key" not in repr(job)


@pytest.mark.parametrize("name", ["SLURM_JOB_ID", "SLURM_JOB_UID"])
@pytest.mark.parametrize("value", [None, "", "x", "-1", "1.5", "²", "\N{ARABIC-INDIC DIGIT ONE}", " 1"])
def test_an_environment_that_is_no_hooks_is_an_error(name: str, value: str | None) -> None:
    environ = {key: number for key, number in HOOK.items() if key != name}
    if value is not None:
        environ[name] = value
    with pytest.raises(SlurmError, match=name):
        HookJob.from_environ(environ)
