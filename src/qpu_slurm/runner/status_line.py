# SPDX-License-Identifier: Apache-2.0
"""A line at the bottom of a terminal that is written anew in its place."""

from __future__ import annotations

import os
from typing import IO, Final, Self

_CLEAR: Final = "\r\x1b[K"
_NO_CURSOR: Final = ("", "dumb")
_WIDTH: Final = 80


class StatusLine:
    """Adds to what is written to a terminal what keeps a line of ours at its bottom.

    Args:
        width: The terminal's columns when nobody can tell.
        fd: The terminal's file descriptor.
    """

    def __init__(self, fd: int, width: int = _WIDTH) -> None:
        self._fd = fd
        self._width = width
        self._text = ""

    @classmethod
    def of(cls, stream: IO[str] | None) -> Self | None:
        """Return a line for a stream; None where it is no terminal, or one that cannot go back in a line."""
        try:
            terminal = stream is not None and stream.isatty() and os.environ.get("TERM", "") not in _NO_CURSOR
        except ValueError:  # it is closed
            return None
        return cls(stream.fileno()) if terminal and stream is not None else None

    def show(self, text: str) -> str:
        """Return what to write so that the line shows a text; an empty one takes it away."""
        if text == self._text:
            return ""
        self._text = text
        return _CLEAR + text[: self._columns() - 1]

    def above(self, message: str) -> str:
        """Return what to write so that a message, which ends its line, appears above the line."""
        shown = bool(self._text)
        return f"{_CLEAR if shown else ''}{message}{self._text[: self._columns() - 1]}"

    def _columns(self) -> int:
        try:
            return os.get_terminal_size(self._fd).columns or self._width
        except OSError:
            return self._width
