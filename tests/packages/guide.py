# SPDX-License-Identifier: Apache-2.0
"""The command blocks of docs/install.md, each with the hosts that its first line names.

A block begins with a comment such as `# controller`, `# c1, c2` or `# c1, a user`; in a file's text, the path
follows: `# controller: /etc/qpu_slurm/config.toml`.
"""

from __future__ import annotations

import re
import textwrap
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

_FENCE: Final = re.compile(r"^( *)```(\w+)\n(.*?)^\1```$", re.DOTALL | re.MULTILINE)
_WHERE: Final = re.compile(r"# (?P<hosts>[\w ]+(?:, [\w ]+)*?)(?P<user>, a user)?(?:: (?P<path>/\S+))?")


class Block(NamedTuple):
    """A fenced block of the guide.

    Attributes:
        section: The heading that it stands below.
        hosts: Where it runs, or where the file is; () if its first line does not say.
        user: Whether an ordinary user runs it, not root.
        path: The file whose text it is; None for commands.
        text: The text below the first line.
    """

    section: str
    hosts: tuple[str, ...]
    user: bool
    path: str | None
    text: str


def blocks_of(document: Path) -> list[Block]:
    """Return a document's blocks, in order."""
    return list(_blocks(document.read_text()))


def _blocks(text: str) -> Iterator[Block]:
    for match in _FENCE.finditer(text):
        headings = re.findall(r"^#{2,3} (.*)$", _FENCE.sub("", text[: match.start()]), re.MULTILINE)
        first, _, rest = textwrap.dedent(match[3]).partition("\n")
        where = _WHERE.fullmatch(first)
        hosts = tuple(where["hosts"].split(", ")) if where else ()
        user = bool(where and where["user"])
        yield Block(headings[-1], hosts, user, where["path"] if where else None, rest)


class StopWatch:
    """How long the machines needed for each section, in seconds."""

    def __init__(self) -> None:
        self._sections: dict[str, float] = {}

    def add(self, section: str, seconds: float) -> None:
        """Count what a section's block has taken."""
        self._sections[section] = self._sections.get(section, 0) + seconds

    @property
    def sections(self) -> Mapping[str, float]:
        """The sections so far, in the guide's order."""
        return self._sections

    def __str__(self) -> str:
        """Return a table."""
        lines = [f"{seconds:7.1f} s  {section}" for section, seconds in self._sections.items()]
        return "\n".join([*lines, f"{sum(self._sections.values()):7.1f} s  in all"])
