# SPDX-License-Identifier: Apache-2.0
"""The grammar of `--qpu`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from qpu_slurm.errors import RequestError
from qpu_slurm.names import MAX_QPUS, QPU_NAME
from qpu_slurm.qpu_option import (
    ALIASES,
    ATTRIBUTES,
    MAX_LENGTH,
    Kind,
    Term,
    Wish,
    is_wish,
    parse,
    text_of,
    wish_of,
)

if TYPE_CHECKING:
    from random import Random

PLUGIN = Path(__file__).parents[2] / "plugin"


@pytest.mark.parametrize(
    ("value", "items"),
    [
        ("ibm_fez", ("ibm_fez",)),
        ("ibm_fez,ibm_torino", ("ibm_fez", "ibm_torino")),
        ("any", (Wish("any"),)),
        ("any,any", (Wish("any"), Wish("any"))),
        ("ibm_fez|ibm_torino", (Wish("ibm_fez|ibm_torino", ("ibm_fez", "ibm_torino")),)),
        ("any:qubits>=100", (Wish("any:qubits>=100", (), (Term("qubits", ">=", 100.0),)),)),
        (
            "any:num_qubits>=100,processor=Heron",
            (
                Wish(
                    "any:num_qubits>=100,processor=Heron",
                    (),
                    (Term("qubits", ">=", 100.0), Term("processor", "=", "heron")),
                ),
            ),
        ),
        ("any:by=error", (Wish("any:by=error", by="error"),)),
        (
            "a|b:by=wait,error<5e-3",
            (Wish("a|b:by=wait,error<5e-3", ("a", "b"), (Term("error", "<", 0.005),)),),
        ),
        # What has an operator is a term; what has none is the next QPU.
        (
            "ibm_fez,any:qubits>=100,simulator=false,a|b,c",
            (
                "ibm_fez",
                Wish(
                    "any:qubits>=100,simulator=false",
                    (),
                    (Term("qubits", ">=", 100.0), Term("simulator", "=", value=False)),
                ),
                Wish("a|b", ("a", "b")),
                "c",
            ),
        ),
        ("any:name=ibm_*", (Wish("any:name=ibm_*", (), (Term("name", "=", "ibm_*"),)),)),
        ("any:type!=iqm-server", (Wish("any:type!=iqm-server", (), (Term("type", "!=", "iqm-server"),)),)),
    ],
)
def test_what_a_value_means(value: str, items: tuple[str | Wish, ...]) -> None:
    assert parse(value) == items


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("", "'' is not the name of a QPU"),
        ("ibm-fez", "'ibm-fez' is not the name"),
        ("ibm_fez,,ibm_torino", "'' is not the name"),
        ("ibm_fez,ibm_fez", "names a QPU twice"),
        ("a|a", "'a|a' names a QPU twice"),
        ("a|", "'' is not the name of a QPU. Alternatives are names"),
        ("a|any", "'any' is not the name of a QPU. Alternatives"),
        ("any:", "'' is not a constraint. Write ATTRIBUTE, one of"),
        ("any:qubits", "'qubits' is not a constraint"),
        ("any:qubits>=", "'qubits>=' is not a constraint"),
        ("any:qubits==100", "'qubits==100' is not a constraint"),
        ("any:qubits>=many", "'qubits>=many': the value is not a number"),
        ("any:qbits>=100", "'qbits' is not an attribute. Known are: qubits, processor,"),
        ("any:processor>heron", "processor is compared with = or != only"),
        ("any:simulator=maybe", "the value is not true or false"),
        ("any:by=luck", "write by=wait or by=error"),
        ("any:by=wait,by=error", "by= is there twice"),
        ("any:status=online", "only a QPU that is online is chosen"),
        ("qubits>=100", "'qubits>=100' is not the name of a QPU. Write --qpu=NAME, .* any, or any:qubits"),
        ("any,qubits>=100", "'qubits>=100' follows 'any' without a colon. Write any:qubits>=100"),
        ("ibm_fez:qubits>=100", "'ibm_fez' is one QPU, so there is nothing to choose"),
        ("garnet:mock", "'garnet:mock' is not the name"),
        ("any;reboot", "'any;reboot' is not the name"),
        ("any:qubits>=1\n", "is not a constraint"),
        ("any:qubits>=1e", "the value is not a number"),
        (",".join(["any"] * (MAX_QPUS + 1)), "more than 16 QPUs"),
        ("any:" + ",".join(["qubits>=1"] * 200), f"more than {MAX_LENGTH} characters"),
    ],
)
def test_a_value_that_means_nothing_is_a_sentence(value: str, says: str) -> None:
    with pytest.raises(RequestError, match=says) as caught:
        parse(value)
    assert str(caught.value).startswith("--qpu")
    assert len(str(caught.value)) < 400
    assert "\n" not in str(caught.value)


NAMES = st.from_regex(r"[A-Za-z][A-Za-z0-9_]{0,9}", fullmatch=True).filter(lambda name: name != "any")
POOLS = st.just("any") | st.lists(NAMES, min_size=2, max_size=4, unique=True).map("|".join)


@st.composite
def terms(draw: st.DrawFn) -> str:
    attribute = draw(st.sampled_from([*ATTRIBUTES, *ALIASES]))
    kind = ATTRIBUTES[ALIASES.get(attribute, attribute)]
    if kind is Kind.NUMBER:
        operator = draw(st.sampled_from(["=", "!=", ">=", "<=", ">", "<"]))
        return f"{attribute}{operator}{draw(st.integers(0, 10**9) | st.sampled_from(['0.001', '5e-3']))}"
    operator = draw(st.sampled_from(["=", "!="]))
    values = ["true", "false"] if kind is Kind.FLAG else ["heron", "heron-r2", "ibm_*", "iqm-server"]
    return f"{attribute}{operator}{draw(st.sampled_from(values))}"


@st.composite
def wishes(draw: st.DrawFn) -> str:
    parts = draw(st.lists(terms(), max_size=3))
    order = draw(st.sampled_from([[], ["by=wait"], ["by=error"]]))
    written = ",".join([*parts, *order])
    return draw(POOLS) + (f":{written}" if written else "")


@given(st.lists(NAMES, max_size=4, unique=True), st.lists(wishes(), max_size=4), st.randoms())
def test_every_item_is_read_as_it_was_written(names: list[str], wanted: list[str], random: Random) -> None:
    items = [*names, *wanted] or ["any"]
    random.shuffle(items)
    found = parse(",".join(items))
    assert [text_of(item) for item in found] == items
    for text, item in zip(items, found, strict=True):
        assert is_wish(text) is isinstance(item, Wish)
        # One item by itself means the same: requests carry it as text.
        assert (wish_of(text) or text) == item
        if isinstance(item, Wish):
            assert set(item.names) <= set(text.partition(":")[0].split("|"))


@given(st.text(max_size=80) | st.from_regex(r"[a-z|:,<>=!.*_ 0-9-]{0,60}"))
@example("ibm_fez, ibm_torino")
@example("ibm_fez\n")
@example("ibm_fez\0")
@example("ibm_f\u00e9z")
@example("1bm_fez")
@example("../ibm_fez")
@example("any:qubits>=\u0661")
@example("any:name=\x1b[2J")
def test_whatever_is_written_it_means_something_or_is_a_sentence(value: str) -> None:
    sentence = ""
    try:
        items = parse(value)
    except RequestError as mistake:
        sentence = str(mistake)
    assert sentence.isprintable()
    assert len(sentence) < 400
    if not sentence:
        assert ",".join(map(text_of, items)) == value
        names = [item for item in items if isinstance(item, str)]
        assert all(QPU_NAME.fullmatch(name) for name in names)
        assert len(set(names)) == len(names)
        assert 0 < len(items) <= MAX_QPUS


def test_the_plugin_knows_the_same_attributes() -> None:
    source = (PLUGIN / "option.c").read_text()
    (listed,) = re.findall(r"attributes\[\] = \{(.*?)\};", source, re.DOTALL)
    assert re.findall(r'"(\w+)"', listed) == [*ATTRIBUTES, *ALIASES, "by"]
    assert f"OPTION_LENGTH = {MAX_LENGTH}" in (PLUGIN / "option.h").read_text()
