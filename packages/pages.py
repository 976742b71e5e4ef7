# SPDX-License-Identifier: Apache-2.0
"""One man page: argparse-manpage writes a command's, and markdown-it reads a document for us to write it."""

from __future__ import annotations

import re
import textwrap
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from argparse_manpage.compat import get_reproducible_date
from argparse_manpage.manpage import Manpage
from markdown_it import MarkdownIt
from markdown_it.token import Token

from qpu_slurm.system.version import __version__

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Sequence

MANUAL: Final = "qpu_slurm"

_WIDTH: Final = 78
"""Of a line of a page's source, which checkers complain about if it is wider."""

_LICENSE: Final = '.\\" SPDX-License-Identifier: Apache-2.0\n'

_EPILOGS: Final = {"examples:": "examples", "exit codes:": "exit status"}
"""The sections for what `--help` ends with, by its first line."""


def of_command(parser: argparse.ArgumentParser, summary: str, see: Sequence[str]) -> str:
    """Return the page of a command.

    Args:
        parser: What reads the command's arguments.
        summary: What the command does, in a few words.
        see: Other pages.
    """
    epilog, parser.epilog = parser.epilog, None
    page = Manpage(parser, {"project_name": MANUAL, "version": __version__, "manual_title": MANUAL})
    page.prog = parser.prog.replace(" ", "-")
    page.description = summary[:1].lower() + summary[1:]
    page.add_section("synopsis", "=", _synopsis(parser))
    if epilog:
        title, _, text = epilog.partition("\n")
        page.add_section(_EPILOGS[title], "=", "\n".join([".nf", *map(_literal, text.splitlines()), ".fi"]))
    page.add_section("see also", "=", _see(see))
    # argparse-manpage escapes the date, which readers of pages then do not take for one.
    text = re.sub(r"^\.TH .*", lambda head: head[0].replace("\\-", "-"), str(page), count=1)
    return _LICENSE + _folded(text)


def of_document(text: str, name: str, summary: str, see: Sequence[str]) -> str:
    """Return the page of a document, in section 5.

    A table becomes a list with a row's first cell as its tag: a terminal is too narrow for tables.

    Args:
        text: The document, in Markdown.
        name: The page's name.
        summary: What the page describes, in a few words.
        see: Other pages.
    """
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    head = [
        f'.TH {name.upper()} 5 "{get_reproducible_date()}" "{MANUAL} {__version__}" "{MANUAL}"',
        ".SH NAME",
        f"{name} \\- {_escaped(summary)}",
        ".SH DESCRIPTION",
    ]
    return _LICENSE + _folded(
        "\n".join([*head, *_Document().lines(tokens), ".SH SEE ALSO", _see(see)]) + "\n"
    )


def _synopsis(parser: argparse.ArgumentParser) -> str:
    """Return how the command is called, each way on a line of its own."""
    usage = parser.format_usage().removeprefix("usage: ")
    ways = [" ".join(way.split()) for way in re.split(rf"\n\s+(?={re.escape(parser.prog)} )", usage)]
    name = _escaped(parser.prog)
    return "\n.br\n".join(_escaped(way).replace(name, f"\\fB{name}\\fR", 1) for way in ways)


def _folded(text: str) -> str:
    """Break the long lines of a page, but for requests and examples."""
    lines, example = [], False
    for line in text.splitlines():
        example = (example or line == ".nf") and line != ".fi"
        if example or line.startswith(".") or len(line) <= _WIDTH:
            lines.append(line)
        else:
            lines.append(_line(textwrap.fill(line, _WIDTH, break_long_words=False, break_on_hyphens=False)))
    return "\n".join(lines) + "\n"


def _see(pages: Sequence[str]) -> str:
    """Return references to pages, such as `sbatch(1)`."""
    split = (page.partition("(") for page in pages)
    return ",\n".join(f"\\fB{_escaped(name)}\\fR({section}" for name, _, section in split)


class _Document:
    """Translates a document's blocks, in their order: each kind of token has a method."""

    def __init__(self) -> None:
        self._depth = 0
        self._header: list[str] = []
        self._row: list[str] = []

    def lines(self, tokens: Sequence[Token]) -> Iterator[str]:
        """Return the lines of the page."""
        for before, token in pairwise([Token("", "", 0), *tokens]):
            translate = getattr(self, f"_{token.type}", None)
            if translate is not None:
                yield from translate(token, before)

    def _heading_open(self, token: Token, _: Token) -> Iterator[str]:
        if token.tag != "h1":
            yield ".SH" if token.tag == "h2" else ".SS"

    def _paragraph_open(self, _: Token, before: Token) -> Iterator[str]:
        if before.type not in {"list_item_open", "heading_close"}:
            yield ".IP" if self._depth else ".PP"

    def _bullet_list_open(self, *_: Token) -> Iterator[str]:
        if self._depth:
            yield ".RS"
        self._depth += 1

    def _bullet_list_close(self, *_: Token) -> Iterator[str]:
        self._depth -= 1
        if self._depth:
            yield ".RE"

    def _list_item_open(self, *_: Token) -> Iterator[str]:
        yield ".IP \\(bu 2"

    def _fence(self, token: Token, before: Token) -> Iterator[str]:
        if before.type != "heading_close":
            yield ".PP"
        yield from (".RS 4", ".nf", *map(_literal, token.content.splitlines()), ".fi", ".RE")

    _code_block = _fence

    def _inline(self, token: Token, before: Token) -> Iterator[str]:
        if before.type in {"th_open", "td_open"}:
            self._row.append(_text(token))
        elif before.tag != "h1":
            yield _line(_text(token))

    def _thead_close(self, *_: Token) -> Iterator[str]:
        self._header, self._row = self._row, []
        yield from ()

    def _tr_close(self, *_: Token) -> Iterator[str]:
        """End a row: its first cell is the tag, its last the text; the others have their columns' names."""
        if not self._header:  # this was the header
            return
        tag, *between, text = self._row
        yield from (".TP", _line(tag), _line(text))
        for name, value in zip(self._header[1:-1], between, strict=True):
            yield from (".br", f"{name}: {value}")
        self._row = []

    def _table_close(self, *_: Token) -> Iterator[str]:
        self._header = []
        yield from ()


def _text(token: Token) -> str:
    """Translate a text with its emphases; of a link there remains the text."""
    parts = []
    for child in token.children or []:
        match child.type:
            case "text":
                parts.append(_escaped(child.content))
            case "code_inline":
                parts.append(f"\\fB{_escaped(child.content)}\\fR")
            case "softbreak" | "hardbreak":
                parts.append("\n")
            case "strong_open" | "em_open":
                parts.append("\\fI")
            case "strong_close" | "em_close":
                parts.append("\\fR")
            case _:
                pass
    text = "".join(parts)
    # Code that is bold as a whole, `**`key`**`, is code.
    return re.sub(r"\\fI\\fB(.*?)\\fR\\fR", r"\\fB\1\\fR", text)


def _escaped(text: str) -> str:
    """Keep characters from what roff makes of them."""
    return text.replace("\\", "\\e").replace("-", "\\-").replace("…", "\\[u2026]").replace("`", "\\(ga")


def _line(text: str) -> str:
    """Return lines of text, none of which is taken for a request."""
    return re.sub(r"^(?=[.'])", r"\\&", text, flags=re.MULTILINE)


def _literal(text: str) -> str:
    """Return a line of an example."""
    return _line(_escaped(text))
