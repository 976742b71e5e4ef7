# SPDX-License-Identifier: Apache-2.0
"""What the documentation points at is there: links, headings in them, and files that it names."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "contrib").rglob("*.md")])

LINK = re.compile(r"\]\(([^()\s]+)\)")
FENCE = re.compile(r"^ *```.*?^ *```$", re.DOTALL | re.MULTILINE)

NAMED = re.compile(r"(?<![\w./-])(?:src|docs|contrib|tests|tools|plugin|benchmarks)/[\w./*-]*\w")
"""A file of the project, as a text or an example names it."""


def anchors(document: Path) -> set[str]:
    """Return what a document's headings are linked by."""
    titles = re.findall(r"^#+ (.*)$", FENCE.sub("", document.read_text()), re.MULTILINE)
    plain = (re.sub(r"[^\w\- ]", "", title.strip().lower()) for title in titles)
    return {title.replace(" ", "-") for title in plain}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_somewhere(document: Path) -> None:
    astray = []
    for link in LINK.findall(FENCE.sub("", document.read_text())):
        path, _, anchor = link.partition("#")
        if "://" in path:
            continue
        target = (document.parent / path).resolve() if path else document
        if not target.exists() or (anchor and anchor not in anchors(target)):
            astray.append(link)
    assert not astray


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_file_that_is_named_is_there(document: Path) -> None:
    missing = {name for name in NAMED.findall(document.read_text()) if not any(ROOT.glob(name))}
    assert not missing


def test_the_readme_leads_to_every_document() -> None:
    linked = set(LINK.findall((ROOT / "README.md").read_text()))
    assert linked >= {f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")}


def test_every_target_that_is_named_is_in_the_makefile() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for document in DOCUMENTS:
        named = set(re.findall(r"`make ([a-z][a-z-]*)", document.read_text()))
        assert named <= targets, document


def test_every_room_is_on_the_map() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    [rooms] = re.findall(r"^src/qpu_slurm/\n((?:  .*\n)+)", text, re.MULTILINE)
    on_the_map = set(re.findall(r"(?<![/\w])[a-z_]+(?:\.py|/)", rooms.replace("docs/", "")))
    package = ROOT / "src" / "qpu_slurm"
    there = {f"{path.name}/" for path in package.iterdir() if (path / "__init__.py").exists()}
    there |= {path.name for path in package.glob("*.py") if path.name != "__init__.py"}
    assert on_the_map == there
