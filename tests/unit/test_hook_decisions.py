# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qpu_slurm.config import ComputeServiceQpu, Config, OutageConfig, QpuConfig
from qpu_slurm.errors import RequestError, SlurmError
from qpu_slurm.lifecycle.start import Wanted, requeue_delay, wanted
from qpu_slurm.qpu_option import is_wish
from qpu_slurm.slurm.admin_comment import AdminComment
from qpu_slurm.slurm.job import parse_gres

CRN = "crn:v1:bluemix:public:quantum-computing:us-east:a/1:2::"


def config(*names: str, acquire_on: str = "qpu") -> Config:
    qpus: dict[str, QpuConfig] = {name: ComputeServiceQpu(name=name, instance=CRN) for name in names}
    config = Config(path=Path("/etc/qpu_slurm/config.toml"), qpus=qpus)
    return msgspec.structs.replace(config, acquire_on=acquire_on)


BOTH = ("fez", "torino")


@pytest.mark.parametrize(
    ("option", "gres", "acquire_on", "acquire", "bind"),
    [
        (None, "", "qpu", (), ()),
        (None, "gres:gpu:2", "qpu", (), ()),
        (None, "gres:qpu:0", "qpu", (), ()),
        ("fez", "", "qpu", ("fez",), ()),
        ("fez", "gres:qpu:1", "qpu", ("fez",), ()),
        ("torino,fez", "gres/qpu:1", "qpu", ("torino", "fez"), ()),
        (None, "gres:qpu:fez:1", "qpu", ("fez",), ()),
        (None, "gres:qpu:fez:1,gres:qpu:torino:1,gres:gpu:1", "qpu", ("fez", "torino"), ()),
        (None, "gres:qpu:1,gres:qpu:torino:1", "qpu", ("torino",), ()),
        # A QPU that a gres names is meant, whatever the option says.
        ("fez", "gres:qpu:torino:1", "qpu", ("fez", "torino"), ()),
        ("fez", "gres:qpu:fez:1", "qpu", ("fez",), ()),
        # Where the admin wants a gres for it, the option alone only binds.
        ("fez,torino", "", "gres", (), ("fez", "torino")),
        ("fez,torino", "gres:qpu:1", "gres", ("fez", "torino"), ()),
        ("fez,torino", "gres:qpu:torino:1", "gres", ("torino",), ("fez",)),
        ("fez", "gres:gpu:1", "gres", (), ("fez",)),
        (None, "gres:qpu:torino:1", "gres", ("torino",), ()),
        # What is chosen later stands there as it was written, in the user's order.
        ("any", "", "qpu", ("any",), ()),
        ("any,torino,any", "gres:qpu:1", "qpu", ("any", "torino", "any"), ()),
        ("fez|torino:by=error", "gres:qpu:1", "gres", ("fez|torino:by=error",), ()),
        ("any:qubits>=100,by=error", "", "gres", (), ("any:qubits>=100,by=error",)),
        ("any,any", "gres:qpu:torino:1", "gres", ("torino",), ("any", "any")),
    ],
)
def test_which_qpus_a_job_means(
    option: str | None, gres: str, acquire_on: str, acquire: tuple[str, ...], bind: tuple[str, ...]
) -> None:
    found = wanted(option, parse_gres(gres), config(*BOTH, acquire_on=acquire_on))
    assert found == Wanted(acquire, bind)


@pytest.mark.parametrize("acquire_on", ["qpu", "gres"])
def test_a_gres_without_a_name_means_the_only_qpu(acquire_on: str) -> None:
    only = config("fez", acquire_on=acquire_on)
    assert wanted(None, parse_gres("gres:qpu:1"), only) == Wanted(("fez",))


@pytest.mark.parametrize(
    ("option", "gres", "says"),
    [
        (None, "gres:qpu:1", r"Add --qpu=NAME; known: fez, torino"),
        ("kyiv", "", r"'kyiv'.* fez, torino"),
        ("fez,kyiv", "gres:qpu:1", r"'kyiv'.* fez, torino"),
        (None, "gres:qpu:kyiv:1", r"'kyiv'.* fez, torino"),
        ("fez,,torino", "", "not the name of a QPU"),
        ("fez;reboot", "", "not the name of a QPU"),
        ("fez,fez", "", "twice"),
        ("fez|kyiv", "", r"'kyiv'.* fez, torino"),
        ("any:qbits>=100", "", "'qbits' is not an attribute"),
    ],
)
def test_what_cannot_be_meant_is_a_mistake_in_words(option: str | None, gres: str, says: str) -> None:
    with pytest.raises(RequestError, match=says):
        wanted(option, parse_gres(gres), config(*BOTH))


@given(st.none() | st.text(), st.text())
def test_whatever_is_asked_only_known_qpus_are_meant(option: str | None, gres: str) -> None:
    with suppress(RequestError):
        found = wanted(option, parse_gres(gres), config(*BOTH))
        named = {text for text in found.acquire + found.bind if not is_wish(text)}
        assert named <= set(BOTH)


def test_the_delay_doubles_up_to_a_limit() -> None:
    outage = OutageConfig(delay=60, max_delay=1800)
    assert [requeue_delay(outage, 16, tries) for tries in range(7)] == [60, 120, 240, 480, 960, 1800, 1800]
    assert requeue_delay(outage, 16, 1_000_000) == 1800


def test_jobs_that_are_requeued_at_once_do_not_come_back_at_once() -> None:
    delays = {requeue_delay(OutageConfig(), job_id, 3) for job_id in range(100)}
    assert len(delays) == 16
    assert min(delays) == 480
    assert max(delays) <= 528


SESSIONS = {"fez": "s-1", "torino": None}


@pytest.mark.parametrize(
    ("before", "others"),
    [
        ("", {}),
        ("a note", {"comment": "a note"}),
        ("[1]", {"comment": "[1]"}),
        ('{"billing": 7}', {"billing": 7}),
        ('{"billing": 7, "qpu_slurm": {"error": "of the last run"}}', {"billing": 7}),
        ("{" * 100_000, {"comment": "{" * 100_000}),
    ],
)
def test_a_comment_keeps_what_others_wrote(before: str, others: dict[str, object]) -> None:
    after = AdminComment(sessions=SESSIONS).into_comment(before)
    assert json.loads(after) == {**others, "qpu_slurm": {"sessions": SESSIONS}}
    again = AdminComment(error="no").into_comment(after)
    assert json.loads(again) == {**others, "qpu_slurm": {"error": "no"}}


@given(
    st.text(),
    st.builds(
        AdminComment,
        sessions=st.dictionaries(st.text(), st.none() | st.text()),
        error=st.text(max_size=600),
    ),
)
def test_what_is_handed_over_arrives_on_one_line(before: str, handover: AdminComment) -> None:
    comment = handover.into_comment(before)
    assert not any(c in comment for c in "\n\r\t\0")
    arrived = AdminComment.from_comment(comment)
    assert arrived.sessions == handover.sessions
    assert arrived.error == " ".join(handover.error.split())[:500]


@pytest.mark.parametrize("comment", ["", "(null)", "a note", "[]", "{}", '{"other": 1}'])
def test_a_job_without_a_word_of_ours_has_nothing(comment: str) -> None:
    assert AdminComment.from_comment(comment) == AdminComment()


@pytest.mark.parametrize(
    "own", ["1", "[]", '{"sessions": ["fez"]}', '{"sessions": {"fez": 7}}', '{"error": {}}']
)
def test_a_word_that_is_not_ours_is_refused(own: str) -> None:
    with pytest.raises(SlurmError, match="AdminComment"):
        AdminComment.from_comment(f'{{"qpu_slurm": {own}}}')


def test_a_hook_that_takes_too_long_ends() -> None:
    program = (
        "import time\n"
        "from qpu_slurm.hooks.controller import _bounded\n"
        "with _bounded(0.1):\n"
        "    time.sleep(60)\n"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=30, check=False)
    assert run.returncode == 1
    assert b"too long" in run.stdout
