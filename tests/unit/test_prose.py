# SPDX-License-Identifier: Apache-2.0
"""The documents keep to the rules for prose in CONTRIBUTING.md, as far as a program can see."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]

MEASURED = {"docs/performance.md", "docs/reliability.md"}
"""Written by programs, a row for each thing that was measured or played."""

DOCUMENTS = sorted(
    str(path.relative_to(ROOT))
    for path in [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "contrib").rglob("*.md")]
    if str(path.relative_to(ROOT)) not in MEASURED
)

LONGEST_LINE = 120
LONGEST_ROW = 160
LONGEST_CELL = 20
"""In words."""

WRITTEN_BY_TESTS = {"docs/compatibility.md"}
"""Its heads of columns name a client's call and the way it goes."""

PUZZLING = re.compile(
    r"(?i:\bto be had\b|\banew\b|\bnobody\b|\bsomebody\b|\b(?:by|for|to|from) who\b)"
    r"|(?:^|\. )Who\b(?![^.]*\?)"
)
"""Idioms that readers stumble over: `anew` for again, `somebody` for a process, `who` for the one who."""


class Line(NamedTuple):
    number: int
    text: str


def lines(text: str) -> Iterator[Line]:
    """Return a document's lines, but for its examples: code blocks and indented code."""
    example = False
    for number, line in enumerate(text.splitlines(), 1):
        if line.lstrip().startswith("```"):
            example = not example
        elif not example and not line.startswith("    "):
            yield Line(number, line)


def prose(text: str) -> Iterator[Line]:
    """Return the lines that are neither examples nor rows of tables."""
    return (line for line in lines(text) if not line.text.startswith("|"))


def cells(text: str) -> Iterator[Line]:
    """Return the cells of all tables, without the addresses of links."""
    for line in lines(text):
        if line.text.startswith("|"):
            row = re.sub(r"\]\([^)]*\)", "]", line.text)
            yield from (Line(line.number, cell.strip()) for cell in re.split(r"(?<!\\)\|", row))


def puzzling(text: str) -> list[Line]:
    """Return the lines that have an idiom to avoid; names of users and files stand in backquotes."""
    return [line for line in lines(text) if PUZZLING.search(re.sub(r"`[^`]*`", "", line.text))]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_lines_fit_on_a_screen(document: str) -> None:
    text = (ROOT / document).read_text()
    assert [line for line in prose(text) if len(line.text) > LONGEST_LINE] == []


@pytest.mark.parametrize("document", sorted({*DOCUMENTS} - WRITTEN_BY_TESTS))
def test_rows_fit_on_a_screen(document: str) -> None:
    rows = (line for line in lines((ROOT / document).read_text()) if line.text.startswith("|"))
    assert [row for row in rows if len(row.text) > LONGEST_ROW] == []


@pytest.mark.parametrize("document", DOCUMENTS)
def test_cells_have_a_few_words(document: str) -> None:
    text = (ROOT / document).read_text()
    assert [cell for cell in cells(text) if len(cell.text.split()) > LONGEST_CELL] == []


@pytest.mark.parametrize("document", DOCUMENTS)
def test_no_idiom_puzzles_a_reader(document: str) -> None:
    assert puzzling((ROOT / document).read_text()) == []


@pytest.mark.parametrize(
    "line",
    [
        "The QPU is not to be had.",
        "Print the line anew.",
        "| a | somebody else closed it |",
        "Who waits for it starts again.",
        "It is for who audits a cluster.",
    ],
)
def test_an_idiom_is_found(line: str) -> None:
    assert puzzling(line) == [Line(1, line)]


@pytest.mark.parametrize(
    "line", ["The user `nobody` cannot log in.", "    nobody 4711", "```\nanew\n```", "The user who submits."]
)
def test_examples_and_names_are_no_idioms(line: str) -> None:
    assert puzzling(line) == []
