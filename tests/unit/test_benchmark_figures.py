# SPDX-License-Identifier: Apache-2.0
"""What `make bench` writes down."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from benchmarks import figures
from benchmarks.figures import Figure
from benchmarks.processes import Pairs

if TYPE_CHECKING:
    from pathlib import Path

FOUND = [
    Figure(key="a.low", what="one", value=0.5, at_most=0.6, unit="s", details={"runs": 3}),
    Figure(key="a.high", what="two", value=0.5, at_least=0.8, note="why"),
    Figure(key="a.shown", what="three", value=2),
    Figure(key="a.missing", what="four", value=None, at_most=1),
]


@pytest.mark.parametrize(
    ("figure", "aim", "met"),
    [
        (FOUND[0], "≤ 0.6 s", True),
        (FOUND[1], "≥ 0.8", False),
        (FOUND[2], "", None),
        (FOUND[3], "≤ 1", False),
    ],
    ids=lambda value: getattr(value, "key", None),
)
def test_a_figure_knows_whether_it_is_what_it_should_be(
    figure: Figure, aim: str, *, met: bool | None
) -> None:
    assert (figure.aim, figure.met) == (aim, met)


def test_the_json_has_the_figures_by_key_and_what_stands_behind_them(tmp_path: Path) -> None:
    figures.write_json(FOUND, tmp_path / "build" / "bench.json")

    document = json.loads((tmp_path / "build" / "bench.json").read_text())
    assert {key: document[key] for key in document if key.startswith("a.")} == {
        "a.low": 0.5,
        "a.high": 0.5,
        "a.shown": 2,
        "a.missing": None,
    }
    assert document["details"]["a.low"]["runs"] == 3
    assert document["about"]["packages"]["qrmi"]


def test_the_document_says_what_is_not_met_and_why() -> None:
    text = figures.markdown(FOUND)

    assert "| `a.high` | two | 0.5 | ≥ 0.8 | no |" in text
    assert "| `a.missing` | four | not measured | ≤ 1 | no |" in text
    assert "- `a.high`: why" in text


def test_pairs_are_compared_one_by_one() -> None:
    assert Pairs([1, 10, 3], [2, 5, 3]).ratio == 1
    assert Pairs([1, 10, 3], [2, 5, 3]).medians == (3, 3)
