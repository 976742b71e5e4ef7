# SPDX-License-Identifier: Apache-2.0
"""The outline of a big input: the same document, with everything that is not looked at taken out.

An input of 100 MB is a few circuits or a few arrays of numbers, and what is checked of them is how they
begin. So the text is read through once, in pieces, and every byte of it is checked to be JSON in UTF-8; what
is kept is the structure down to the circuits, and of each string the first `HEAD` characters. The outline is
an input like any other, and is checked as a small one is.

Where nothing is kept, runs of values are matched by one regular expression: its engine passes over 100 MB in
half a second, where Python would take a minute.
"""

from __future__ import annotations

import codecs
import re
from functools import cache
from itertools import chain, repeat
from typing import TYPE_CHECKING, Final

import msgspec

from qpu_slurm.tasks.limits import HEAD

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    _Part = Callable[[], bytes]

_LONGEST_NUMBER: Final = 1 << 16
_ESCAPE_BYTES: Final = len(r"\u0000")
_CLOSING: Final = {b"{": b"}", b"[": b"]"}

# RFC 8259. What `++`, `*+` and `(?>…)` took is never given back, so time is linear in the text. Possessive
# groups, `(?:…)*+`, are not used: Python matches them wrongly before 3.11.5.
_SPACE: Final = r"[ \t\n\r]*+"
_ESCAPE: Final = r'\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})'
_PLAIN: Final = r'[^"\\\x00-\x1f]*+'
_CHARACTERS: Final = rf"(?>{_PLAIN}(?:{_ESCAPE}{_PLAIN})*)"
_SCALAR: Final = r"(?>-?(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?(?:[eE][+-]?[0-9]++)?|true|false|null)"
# A string is cut in no character and in no pair of surrogates.
_HEAD: Final = (
    r'"(?>(?:[\x20!#-\[\]-\x7f]|[\xc0-\xff][\x80-\xbf]*+'
    r"|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
    rf"|{_ESCAPE}){{0,{HEAD}}})"
)
_RUN_DEPTH: Final = 3
"""How deep the values of a run may be; the expression grows fourfold with each level."""


class NotJsonError(ValueError):
    """A text is not JSON; the message says what is wrong and where, in msgspec's words."""


class Outline:
    """The outline of an input.

    Args:
        pieces: The input's text, in pieces.

    Attributes:
        text: The outline's text.
        parameters: The first byte of the input's `parameters`, and the first one behind them.

    Raises:
        NotJsonError: It is not one JSON document.
        RecursionError: It is nested too deeply.
        UnicodeDecodeError: It is not UTF-8.
    """

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._text = _Text(pieces)
        self.parameters = (0, 0)
        inner = {"parameters": self._parameters, "qpu_slurm": self._leaves}
        self.text = self._object(inner) if self._text.peek() else b""
        self._text.end()

    # From the document down to its circuits; what has another shape there stands for itself.

    def _parameters(self) -> bytes:
        self._text.peek()
        start = self._text.position
        outline = self._object({"pubs": self._pubs})
        self.parameters = start, self._text.position
        return outline

    def _pubs(self) -> bytes:
        return self._array(repeat(self._pub))

    def _pub(self) -> bytes:
        return self._array(chain((self._leaves,), repeat(self._text.value)))

    def _leaves(self) -> bytes:
        return self._object({})

    def _object(self, inner: Mapping[str, _Part]) -> bytes:
        if self._text.peek() != b"{":
            return self._text.value()
        value = self._text.value
        members = (
            key + b":" + inner.get(msgspec.json.decode(key, type=str), value)()
            for key in self._text.members()
        )
        return b"{" + b",".join(members) + b"}"

    def _array(self, inner: Iterator[_Part]) -> bytes:
        if self._text.peek() != b"[":
            return self._text.value()
        return b"[" + b",".join(next(inner)() for _ in self._text.members()) + b"]"


class _Text:
    """A JSON text that is gone through once; what was passed over is forgotten.

    Args:
        pieces: It, in pieces.
    """

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._window = b""
        self._at = 0
        self._forgotten = 0

    @property
    def position(self) -> int:
        """How many bytes have been passed over."""
        return self._forgotten + self._at

    def peek(self) -> bytes:
        """Pass over white space, and return the byte behind it: none at the end."""
        while True:
            self._pass(_SPACE)
            if self._at < len(self._window) or not self._more():
                return self._window[self._at : self._at + 1]

    def end(self) -> None:
        """Make sure that nothing follows."""
        if self.peek():
            raise self._problem("trailing characters")

    def members(self, *, runs: bool = False) -> Iterator[bytes]:
        """Pass over an object or an array; the values are passed over by who is given their keys.

        Args:
            runs: Whether values may be passed over here: then some are, and are not given.

        Yields:
            A member's key as it is written; of an array, nothing.
        """
        opening = self.peek()
        closing = _CLOSING[opening]
        self._at += 1
        if self.peek() == closing:
            self._at += 1
            return
        while True:
            if runs:
                self._pass(_run(opening))
            yield self._key() if opening == b"{" else b""
            if self.peek() == closing:
                self._at += 1
                return
            self._expect(b",", f"expected ',' or '{closing.decode()}'")

    def value(self) -> bytes:
        """Pass over a value; return what stands for it: itself, a string's head, an empty container."""
        first = self.peek()
        if first == b'"':
            return self._string()
        if first in _CLOSING:
            for _ in self.members(runs=True):
                self.value()
            return first + _CLOSING[first]
        # A number may go on behind the window.
        while len(self._window) - self._at < _LONGEST_NUMBER and self._more():
            pass
        return self._pass(_SCALAR) or self._fail()

    def _key(self) -> bytes:
        if self.peek() != b'"':
            raise self._problem("object keys must be strings")
        key = self._string()
        self.peek()
        self._expect(b":", "expected ':'")
        return key

    def _string(self) -> bytes:
        """Pass over a string; return it, or its head."""
        while len(self._window) - self._at < 2 * HEAD * _ESCAPE_BYTES and self._more():
            pass
        head = self._pass(_HEAD)
        while True:
            self._pass(_CHARACTERS)
            # What cannot be passed over may be an escape that the window cuts in two.
            if len(self._window) - self._at >= _ESCAPE_BYTES or not self._more():
                break
        self._expect(b'"', "invalid character")
        return head + b'"'

    def _pass(self, pattern: str) -> bytes:
        """Pass over what matches in the window, and return it."""
        match = _compiled(pattern).match(self._window, self._at)
        if match is None:
            return b""
        self._at = match.end()
        return match[0]

    def _expect(self, byte: bytes, otherwise: str) -> None:
        """Pass over one byte."""
        if self._window[self._at : self._at + 1] != byte:
            raise self._problem(otherwise)
        self._at += 1

    def _fail(self) -> bytes:
        raise self._problem("invalid character")

    def _problem(self, what: str) -> NotJsonError:
        if self._at == len(self._window):
            return NotJsonError("input data was truncated")
        return NotJsonError(f"{what} (byte {self.position})")

    def _more(self) -> bool:
        """Put another piece into the window, and forget what was passed over; False at the end."""
        piece = next(self._pieces, b"")
        self._decoder.decode(piece, final=not piece)
        self._window = self._window[self._at :] + piece
        self._forgotten += self._at
        self._at = 0
        return bool(piece)


@cache
def _compiled(pattern: str) -> re.Pattern[bytes]:
    """Compile an expression, those of runs among them, when a text is big enough to need it."""
    return re.compile(pattern.encode("latin-1"))


@cache
def _run(opening: bytes) -> str:
    """Write the expression for members of a container, each with the comma behind it."""
    member = _value(_RUN_DEPTH)
    return rf"(?:{_member(member) if opening == b'{' else member},)*"


def _value(depth: int) -> str:
    """Write the expression for a value of at most some depth, white space included."""
    kinds = [rf'"{_CHARACTERS}"', _SCALAR]
    if depth:
        element = _value(depth - 1)
        member = _member(element)
        kinds += [rf"\[{element}(?:,{element})*\]", rf"\{{{member}(?:,{member})*\}}"]
        kinds += [rf"\[{_SPACE}\]", rf"\{{{_SPACE}\}}"]
    return rf"{_SPACE}(?>{'|'.join(kinds)}){_SPACE}"


def _member(value: str) -> str:
    """Write the expression for a member of an object."""
    return rf'{_SPACE}"{_CHARACTERS}"{_SPACE}:{value}'
