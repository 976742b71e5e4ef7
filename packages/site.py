# SPDX-License-Identifier: Apache-2.0
"""Hooks of MkDocs (mkdocs.yml): what makes the project's documents a site.

- README.md is the front page. It and the other documents beside docs/ become pages.
- A link to another file of the project, such as an example in contrib/, leads to a copy of it in the site.
  One to a directory leads to a list of its files.
- The documents are CommonMark, as GitHub shows it. Python-Markdown wants what is in a list indented by four
  spaces.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from markdown_it import MarkdownIt
from mkdocs.structure.files import File

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]

BESIDE = {
    "README.md": "index.md",
    **{name: name for name in ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")},
}
"""The documents beside docs/, and what their pages are called."""

_LINK = re.compile(r"(?<=\]\()([^()\s#]+)")
_MARKER = re.compile(r"( *)([-*+]|\d+[.)])( +)")
_WIDTH = 4


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the documents that are not in docs/, and the files to which documents link."""
    for name, page in BESIDE.items():
        files.append(File.generated(config, page, content=(ROOT / name).read_text()))
    for document in [*(ROOT / name for name in BESIDE), *(ROOT / "docs").glob("*.md")]:
        for link in _LINK.findall(document.read_text()):
            target = (document.parent / link).resolve()
            if _is_page(target) or "://" in link or not target.exists():
                continue  # MkDocs reports what is missing
            name = _of_other(target)
            if name not in files.src_uris:
                content = _listing(target) if target.is_dir() else target.read_bytes()
                files.append(File.generated(config, name, content=content))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001 - MkDocs'
    """Make a document's links those of the site, and its lists Python-Markdown's."""
    name = {page: name for name, page in BESIDE.items()}.get(page.file.src_uri)
    place = ROOT if name else (ROOT / "docs")
    if page.file.src_uri not in BESIDE.values() and page.file.generated_by:
        return markdown
    return indented(_LINK.sub(lambda link: _link(link[1], place), markdown))


def _link(link: str, place: Path) -> str:
    """Return where a link leads within the site; all pages lie in one directory."""
    target = (place / link).resolve()
    if "://" in link or not target.exists():
        return link
    if target.parent == ROOT and target.name in BESIDE:
        return BESIDE[target.name]
    if (ROOT / "docs") in target.parents:
        return str(target.relative_to(ROOT / "docs"))
    return _of_other(target)


def _is_page(target: Path) -> bool:
    return (ROOT / "docs") in target.parents or (target.parent == ROOT and target.name in BESIDE)


def _of_other(target: Path) -> str:
    """Return the name in the site of a file or directory that is no document."""
    name = str(target.relative_to(ROOT))
    return f"{name}/index.md" if target.is_dir() else name


def _listing(directory: Path) -> str:
    """Write a page with all files of a directory."""
    lines = [f"# {directory.relative_to(ROOT)}"]
    for path in sorted(path for path in directory.iterdir() if path.is_file()):
        fence = "````"
        lines += [
            f"## {path.name}",
            f"{fence}{path.suffix.removeprefix('.') or 'text'}",
            path.read_text(),
            fence,
        ]
    return "\n\n".join(lines)


def indented(text: str) -> str:
    """Indent what is in a list of a CommonMark document by four spaces for each level."""
    lines = text.split("\n")
    depths = [0] * len(lines)
    own = [0] * len(lines)
    firsts: dict[int, str] = {}
    for token in MarkdownIt("commonmark").enable("table").parse(text):
        if token.type != "list_item_open" or token.map is None:
            continue
        begin, end = token.map
        marker = _MARKER.match(lines[begin], own[begin])
        if marker is None:
            continue
        firsts[begin] = marker[2]
        for number in range(begin, end):
            depths[number] += 1
            own[number] = marker.end()
    written = []
    for number, line in enumerate(lines):
        depth, width = depths[number], own[number]
        rest = line[width:] if number in firsts else line[min(width, len(line) - len(line.lstrip())) :]
        if number in firsts:
            written.append(" " * _WIDTH * (depth - 1) + firsts[number].ljust(_WIDTH) + rest)
        else:
            written.append(" " * _WIDTH * depth + rest if rest else "")
    return "\n".join(written)
