# SPDX-License-Identifier: Apache-2.0
"""Reads the top level of a JSON object as it passes by in pieces, and holds none of it.

What the quantum service will find in a body has to be known before it finds it, and a body may have a
hundred megabytes. So the scanner follows the text just far enough to tell where each value of the top level
begins and ends, notes the keys, and the few values that are asked for. It is strict, since two readers that
understand a text differently are how a check is passed by: no key twice (nor in another case, which some
readers take for the same), no control character in a string, nothing but JSON's own signs outside of one.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

_MAX_KEYS = 64
_MAX_TEXT = 1024
_MAX_DEPTH = 1000

_MUCH = 1 << 12
_MUCH_DEPTH = 64
"""From how many bytes on, and down to which depth, it pays to look at a nested value as a whole."""

_BLANK = re.compile(rb"[ \t\r\n]*+")
_SCALAR = re.compile(rb"[0-9A-Za-z+.-]*+")
# Possessive signs only behind single characters: before 3.11.5, Python errs where a possessive group fails.
_IN_TEXT = rb'[^"\\\x00-\x1f]*+(?:\\[^\x00-\x1f][^"\\\x00-\x1f]*+)*'
_TEXT = re.compile(_IN_TEXT)
_WHOLE_TEXT = re.compile(rb'"' + _IN_TEXT + rb'"')
# Whole strings among what may stand between them, without brackets and with them.
_BETWEEN_BRACKETS = re.compile(rb'(?:[ \t\r\n,:0-9A-Za-z+.-]++|"' + _IN_TEXT + rb'")*')
_INSIDE = re.compile(rb'(?:[ \t\r\n,:0-9A-Za-z+.{}\[\]-]++|"' + _IN_TEXT + rb'")*')
_NO_BRACKET = bytes(set(range(128)) - set(b"{}[]"))
_UNPAIRED = re.compile(rb"([\]}]*+)([\[{]*+)")

_QUOTE, _ESCAPE = b'"\\'
_OPENING = {ord("{"): ord("}"), ord("["): ord("]")}
_CLOSING = frozenset(_OPENING.values())
_SPACE = 0x20


class Malformed(ValueError):
    """The text is no JSON object, or one that could be understood in two ways."""


class Scanner:
    """Follows one JSON object.

    Args:
        wanted: The keys whose values are noted; a value has to be short.

    Attributes:
        keys: The top level's keys so far, in order.
        values: The wanted keys' values so far; None for one that is no string.
    """

    def __init__(self, wanted: Collection[str]) -> None:
        self.keys: list[str] = []
        self.values: dict[str, str | None] = {}
        self._wanted = frozenset(wanted)
        self._folded: set[str] = set()
        self._text = bytearray()
        self._escaped = False
        self._open = bytearray()
        self._state: Callable[[bytes, int], int] = self._start

    @property
    def ended(self) -> bool:
        """Whether the object has ended: nothing but blanks may follow."""
        return self._state == self._end

    def feed(self, piece: bytes) -> None:
        """Follow the next piece.

        Raises:
            Malformed: It cannot be part of an object that is understood in one way only.
        """
        position = 0
        while position < len(piece):
            position = self._state(piece, position)

    def finish(self) -> None:
        """Note that the text has ended.

        Raises:
            Malformed: The object has not.
        """
        if not self.ended:
            raise Malformed("it ends before the object does")

    # One method for each place that the text can be at; each takes what belongs there, and returns where it
    # went on. At the end of a piece it is called again with the next.

    def _start(self, piece: bytes, position: int) -> int:
        return self._sign(piece, position, {b"{": self._first_key}, "an object")

    def _first_key(self, piece: bytes, position: int) -> int:
        return self._sign(piece, position, {b'"': self._key, b"}": self._end}, "a key")

    def _next_key(self, piece: bytes, position: int) -> int:
        return self._sign(piece, position, {b'"': self._key}, "a key")

    def _key(self, piece: bytes, position: int) -> int:
        position, text = self._collect(piece, position)
        if text is not None:
            self._note_key(text)
            self._state = self._colon
        return position

    def _colon(self, piece: bytes, position: int) -> int:
        return self._sign(piece, position, {b":": self._value}, "a colon")

    def _value(self, piece: bytes, position: int) -> int:
        position = _skip_blank(piece, position)
        if position == len(piece):
            return position
        first = piece[position]
        wanted = self.keys[-1] in self._wanted
        if first == _QUOTE:
            self._state = self._wanted_text if wanted else self._other_text
            return position + 1
        if wanted:
            self.values[self.keys[-1]] = None
        if first in _OPENING:
            self._open.append(_OPENING[first])
            self._state = self._nested
            return position + 1
        if _end_of(_SCALAR, piece, position) == position:
            raise Malformed(f"expected a value, found {_shown(piece, position)}")
        self._state = self._scalar
        return position

    def _wanted_text(self, piece: bytes, position: int) -> int:
        position, text = self._collect(piece, position)
        if text is not None:
            self.values[self.keys[-1]] = text
            self._state = self._after_value
        return position

    def _other_text(self, piece: bytes, position: int) -> int:
        position, closed = self._pass_text(piece, position)
        if closed:
            self._state = self._after_value
        return position

    def _scalar(self, piece: bytes, position: int) -> int:
        position = _end_of(_SCALAR, piece, position)
        if position < len(piece):
            self._state = self._after_value
        return position

    def _nested(self, piece: bytes, position: int) -> int:
        if len(piece) - position > _MUCH:
            position = self._pass_much(piece, position)
        position = _end_of(_BETWEEN_BRACKETS, piece, position)
        if position == len(piece):
            return position
        sign = piece[position]
        if sign == _QUOTE:
            # Its end is not in this piece, or there is something wrong with it.
            self._state = self._nested_text
        elif sign in _OPENING:
            if len(self._open) >= _MAX_DEPTH:
                raise Malformed(f"it is nested more than {_MAX_DEPTH} deep")
            self._open.append(_OPENING[sign])
        elif sign in _CLOSING and sign == self._open[-1]:
            del self._open[-1]
            if not self._open:
                self._state = self._after_value
        else:
            raise Malformed(f"{_shown(piece, position)} has no place in {self.keys[-1]!r}")
        return position + 1

    def _pass_much(self, piece: bytes, position: int) -> int:
        """Pass over what does not end the value, without a look at each bracket; say where that ends.

        Pairs of brackets that hold nothing are taken out until there are none. If only the ends of what was
        open before are left, and beginnings of what is open after it, the value did not end anywhere in it.
        """
        end = _end_of(_INSIDE, piece, position)
        left = _WHOLE_TEXT.sub(b"", piece[position:end]).translate(None, _NO_BRACKET)
        for _ in range(_MUCH_DEPTH):
            before = len(left)
            left = left.replace(b"[]", b"").replace(b"{}", b"")
            if len(left) == before:
                break
        unpaired = _UNPAIRED.fullmatch(left)
        if unpaired is None:
            return position
        closing, opening = unpaired.groups()
        kept = len(self._open) - len(closing)
        if kept < 1 or kept + len(opening) + _MUCH_DEPTH > _MAX_DEPTH or self._open[kept:] != closing[::-1]:
            return position
        self._open[kept:] = bytes(_OPENING[sign] for sign in opening)
        return end

    def _nested_text(self, piece: bytes, position: int) -> int:
        position, closed = self._pass_text(piece, position)
        if closed:
            self._state = self._nested
        return position

    def _after_value(self, piece: bytes, position: int) -> int:
        return self._sign(piece, position, {b",": self._next_key, b"}": self._end}, "a comma or the end")

    def _end(self, piece: bytes, position: int) -> int:
        return self._sign(piece, position, {}, "nothing more")

    # What they are made of.

    def _sign(
        self, piece: bytes, position: int, following: dict[bytes, Callable[[bytes, int], int]], expected: str
    ) -> int:
        """Take one of the signs that may stand here, and go on to what follows it."""
        position = _skip_blank(piece, position)
        if position == len(piece):
            return position
        state = following.get(piece[position : position + 1])
        if state is None:
            raise Malformed(f"expected {expected}, found {_shown(piece, position)}")
        self._state = state
        return position + 1

    def _pass_text(self, piece: bytes, position: int) -> tuple[int, bool]:
        """Pass over what is left of a string; say where that ends, and whether the string does."""
        if self._escaped:
            self._escaped = False
            if piece[position] < _SPACE:
                raise Malformed(f"{_shown(piece, position)} has no place in a string")
            position += 1
        end = _end_of(_TEXT, piece, position)
        if end == len(piece):
            return end, False
        if piece[end] == _QUOTE:
            return end + 1, True
        if piece[end] == _ESCAPE and end + 1 == len(piece):
            self._escaped = True
            return end + 1, False
        raise Malformed(f"{_shown(piece, end)} has no place in a string")

    def _collect(self, piece: bytes, position: int) -> tuple[int, str | None]:
        """Gather what is left of a string; say where that ends, and what the string is if it does."""
        end, closed = self._pass_text(piece, position)
        self._text += piece[position : end - closed]
        if len(self._text) > _MAX_TEXT:
            raise Malformed(f"{bytes(self._text[:32])!r}… is too long")
        if not closed:
            return end, None
        raw = bytes(self._text)
        self._text.clear()
        try:
            text = json.loads(b'"%b"' % raw)
            text.encode()  # half a surrogate pair is no text
        except ValueError:
            raise Malformed(f"{raw[:64]!r} is no text") from None
        return end, str(text)

    def _note_key(self, key: str) -> None:
        folded = key.casefold()
        if folded in self._folded:
            raise Malformed(f"the key {key[:64]!r} comes twice")
        if len(self.keys) >= _MAX_KEYS:
            raise Malformed(f"it has more than {_MAX_KEYS} keys")
        self._folded.add(folded)
        self.keys.append(key)


def _skip_blank(piece: bytes, position: int) -> int:
    return _end_of(_BLANK, piece, position)


def _end_of(pattern: re.Pattern[bytes], piece: bytes, position: int) -> int:
    """Return where what a pattern takes ends; all of ours match nothing, too."""
    found = pattern.match(piece, position)
    return found.end() if found else position


def _shown(piece: bytes, position: int) -> str:
    return repr(piece[position : position + 1])
