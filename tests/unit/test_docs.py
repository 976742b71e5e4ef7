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


def test_the_sites_menu_has_every_document() -> None:
    """And nothing else: `make site` is strict, but slower to say so."""
    listed = re.findall(r"^ +- .+: ([\w-]+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)
    pages = {path.name for path in (ROOT / "docs").glob("*.md")}
    assert sorted(listed) == sorted({*pages, "index.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"})


def commands(script: str) -> list[str]:
    """Return a script's lines, but for blank ones and comments."""
    return [line for line in script.splitlines() if line and not re.match(r"#($|[ !])", line)]


SEED = ROOT / "contrib" / "seed"


def test_the_readmes_job_is_the_one_in_contrib() -> None:
    (job,) = re.findall(r"^```sh\n(#!.*?)^```", (ROOT / "README.md").read_text(), re.DOTALL | re.MULTILINE)
    assert commands(job) == commands((SEED / "job_split_hetjob.sh").read_text())


def test_the_tutorials_job_is_the_one_in_contrib() -> None:
    text = (ROOT / "docs" / "tutorial.md").read_text()
    (job,) = re.findall(r"^```bash\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    there = commands((SEED / "job_split_hetjob.sh").read_text())
    assert [line for line in there if line in commands(job)] == commands(job)


@pytest.mark.parametrize("script", sorted(SEED.glob("*.sh")), ids=lambda path: path.name)
def test_a_script_stops_at_the_first_failure(script: Path) -> None:
    run = [line for line in commands(script.read_text()) if not line.startswith("#SBATCH")]
    assert run[0] == "set -e"


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
