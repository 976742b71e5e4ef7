# SPDX-License-Identifier: Apache-2.0
"""The documentation as a site: every document is there, and nothing of it comes from elsewhere."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from markdown_it import MarkdownIt
from packages.site import BESIDE, indented

ROOT = Path(__file__).parents[2]

DOCUMENTS = {path.name for path in (ROOT / "docs").glob("*.md")} | set(BESIDE.values())

LOADED = re.compile(
    r'<(?:script|img|iframe)[^>]* src="([^"]+)"|<link[^>]*rel="stylesheet"[^>]*href="([^"]+)"'
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a site that was built without a warning: MkDocs has followed all links to pages and headings."""
    directory = tmp_path_factory.mktemp("site")
    argv = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(directory)]
    environ = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(
        argv, cwd=ROOT, env=environ, capture_output=True, text=True, check=False, timeout=300
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    return directory


def test_every_document_is_reachable_from_the_front_page(site: Path) -> None:
    linked = set(re.findall(r'href="([^"#:]+)', (site / "index.html").read_text()))
    assert {name.replace(".md", ".html") for name in DOCUMENTS - {"index.md"}} <= linked


def test_a_link_to_an_example_leads_to_a_copy(site: Path) -> None:
    copy = site / "contrib" / "prometheus" / "qpu_slurm.rules.yml"
    assert copy.read_bytes() == (ROOT / "contrib" / "prometheus" / "qpu_slurm.rules.yml").read_bytes()
    assert "map_optimize.py" in (site / "contrib" / "seed" / "index.html").read_text()


def test_nothing_is_loaded_from_another_host(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > len(DOCUMENTS)
    loaded = {source for page in pages for found in LOADED.findall(page.read_text()) for source in found}
    assert [source for source in loaded if "//" in source] == []
    assert any("bundle" in source for source in loaded)


def test_the_search_knows_every_document(site: Path) -> None:
    index = json.loads((site / "search" / "search_index.json").read_text())
    found = {entry["location"].partition("#")[0] for entry in index["docs"]}
    assert {name.replace(".md", ".html") for name in DOCUMENTS} <= found


def test_what_is_in_a_list_is_indented_by_its_depth() -> None:
    text = (
        "- one\n  two\n\n  ```sh\n  a\n    b\n  ```\n\n1. first\n   - inner\n     more\n\nEnd.\n\n    code\n"
    )
    assert indented(text) == (
        "-   one\n    two\n\n    ```sh\n    a\n      b\n    ```\n\n"
        "1.  first\n    -   inner\n        more\n\nEnd.\n\n    code\n"
    )


@pytest.mark.parametrize("document", sorted((ROOT / "docs").glob("*.md")), ids=lambda path: path.name)
def test_indenting_changes_no_document(document: Path) -> None:
    """As CommonMark, a document says the same before and after."""
    text = document.read_text()
    commonmark = MarkdownIt("commonmark").enable("table")
    assert commonmark.render(indented(text)) == commonmark.render(text)
