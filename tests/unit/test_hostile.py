# SPDX-License-Identifier: Apache-2.0
"""Input made to break parsers: whatever comes, it is read, or refused with an error of ours."""

from __future__ import annotations

import string
from contextlib import suppress
from datetime import UTC
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from qpu_slurm.errors import RequestError, SlurmError
from qpu_slurm.journal import rows
from qpu_slurm.lifecycle.start import wanted
from qpu_slurm.names import QPU_NAME
from qpu_slurm.providers.ibm import answers
from qpu_slurm.slurm._command_line import FIELDS, parse
from qpu_slurm.slurm.admin_comment import AdminComment
from qpu_slurm.slurm.job import HookJob, parse_gres
from tests.unit.memory_service import configure

if TYPE_CHECKING:
    from pathlib import Path

    from qpu_slurm.config import Config

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
NASTY = (
    st.text()
    | st.sampled_from(
        ["", "\0", "\x1b[2J", "a\nb", "$(reboot)", "`id`", "../../etc/passwd", "-1", "0x7", "٣", "1e9"]
    )
    | st.text(alphabet=string.digits, min_size=1, max_size=40)
    | st.text(alphabet="gres:/qpu,=;'\"\\ \n", max_size=40)
)
SHAPES = (
    answers.Token,
    answers.BackendStatus,
    answers.SessionDocument,
    answers.Workloads,
    answers.Job,
    answers.Jobs,
)


@given(st.binary(max_size=3000))
def test_no_output_of_squeue_breaks_its_reader(output: bytes) -> None:
    with suppress(SlurmError):
        assert list(parse(output)) == []


@given(st.fixed_dictionaries(dict.fromkeys(FIELDS, NASTY)), st.data())
def test_no_value_of_squeue_breaks_its_reader(values: dict[str, str], data: st.DataObject) -> None:
    # Most of them are numbers: else nothing would get beyond the first of them.
    for name in ("JobID", "UserID", "SubmitTime"):
        if data.draw(st.booleans()):
            values[name] = str(data.draw(st.integers(0, 10**19)))
    if data.draw(st.booleans()):
        values["TimeLeft"] = values["TimeLimit"] = "UNLIMITED"
    printed = b"".join(values[name].encode()[:width].ljust(width) for name, width in FIELDS.items()) + b"\n"
    with suppress(SlurmError):
        [job] = parse(printed)
        assert job.run.isdigit()
        assert job.leader >= 0
        assert all(name and not set(name) & set(",;|:*@ ") for name in job.licenses)
        with suppress(SlurmError):
            AdminComment.from_comment(job.admin_comment)


@pytest.fixture(scope="module")
def qpus(tmp_path_factory: pytest.TempPathFactory) -> Config:
    directory: Path = tmp_path_factory.mktemp("config")
    return configure(directory)


@given(
    environ=st.dictionaries(
        st.sampled_from(
            [
                "SLURM_JOB_ID",
                "SLURM_HET_JOB_ID",
                "SLURM_JOB_UID",
                "SLURM_JOB_RESTART_COUNT",
                "SPANK_QPU_SLURM_QPU",
                "SPANK_QPU_SLURM_SESSION",
                "SPANK_QPU_SLURM_API_KEY",
            ]
        ),
        NASTY,
    ),
    gres=NASTY,
)
def test_no_environment_breaks_a_hook(qpus: Config, environ: dict[str, str], gres: str) -> None:
    try:
        job = HookJob.from_environ({"SLURM_JOB_ID": "7", "SLURM_JOB_UID": "1000"} | environ)
    except (SlurmError, RequestError):
        return
    said = ""
    try:
        names = wanted(job.qpu_option, parse_gres(gres), qpus)
        assert all(QPU_NAME.fullmatch(name) for name in (*names.acquire, *names.bind))
    except RequestError as error:
        said = str(error)
    # What goes to a terminal has nothing in it that could take that over.
    assert said.isprintable()


@given(JSON)
@example({"tries": -1})
@example({"tries": 10**30})
@example({"sessions": {"ibm_fez": ["s"]}})
@example({"qpus": "ibm_fez"})
def test_no_comment_breaks_what_is_handed_over(own: Any) -> None:  # noqa: ANN401 - any JSON
    comment = msgspec.json.encode({"qpu_slurm": own}).decode()
    with suppress(SlurmError):
        handover = AdminComment.from_comment(comment)
        assert handover.tries >= 0
        assert all(isinstance(name, str) for name in handover.qpus)
    # What was there before is in nobody's way.
    assert AdminComment.from_comment(AdminComment(waiting="no", tries=1).into_comment(comment)).tries == 1


@given(JSON, st.sampled_from(SHAPES))
def test_no_answer_of_the_service_breaks_its_reader(document: Any, shape: type) -> None:  # noqa: ANN401 - any JSON
    with suppress(msgspec.MsgspecError):
        msgspec.json.decode(msgspec.json.encode(document), type=shape)


@given(
    st.text()
    | st.datetimes().map(str)
    | st.sampled_from(["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"])
)
def test_no_time_of_the_service_breaks_the_journal(text: str) -> None:
    time = answers.time_of(text)
    if time is not None:
        assert time.tzinfo is not None
        assert rows.text(time).endswith("Z")
        assert time.astimezone(UTC) == time


@given(st.text())
def test_what_the_service_says_is_one_printable_line(text: str) -> None:
    said = answers.quote(text)
    assert said.isprintable()
    assert len(said) <= 401
