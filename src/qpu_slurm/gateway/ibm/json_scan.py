# SPDX-License-Identifier: Apache-2.0
"""Scans the top level of a JSON object that streams by in pieces, without holding it in memory.

The gateway has to know the keys of a body before the quantum service reads it, and a body may have a hundred
megabytes. The scanner finds where each value of the top level begins and ends. It records the keys, and a few
requested values.

It is strict at the top level: two parsers that read a text differently would make the check useless. No key
may appear twice, not even in another case, which some parsers ignore. Strings have no control characters, and
between values there are only JSON's own characters. Inside a nested value, the scanner only counts brackets.
The service finds out whether their kinds match. If they do not, no parser accepts the text.

The time is proportional to the number of bytes, whatever they are and however they are cut. Nested values are
skipped in blocks. A few passes over a block, each in C, leave only its quotes and brackets. Only a block in
which a value ends or fails is searched.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

MAX_DEPTH = 100
"""How deep a value may be nested. Arrays of 64 dimensions, NumPy's limit, fit into any input."""

_LONGEST_CHARACTER = 4
"""Bytes of a character in UTF-8."""

_MAX_KEYS = 12
_MAX_TEXT = 1024

_BLOCK = 1024
"""Size of a block, in bytes. A block may be read twice to find the end of a value."""

_FEW = 16
"""Number of bytes below which it is cheaper to read each character by itself."""

_BLANK = re.compile(rb"[ \t\r\n]*+")
_SCALAR = re.compile(rb"[0-9A-Za-z+.-]*+")
_TEXT = re.compile(rb'[^"\x00-\x1f]*+')
_BETWEEN = re.compile(rb"[ \t\r\n,:0-9A-Za-z+.-]*+")

_QUOTE = ord('"')
_OPENING = {ord("{"): ord("}"), ord("["): ord("]")}
_CLOSING = frozenset(_OPENING.values())
_SPACE = 0x20
_DELETE = 0x7F

_MARK = b"\xef\xbb\xbf"
_BYTE_ORDER_MARK = "it begins with a byte order mark: write it in UTF-8 without one"
_UTF_16 = "it is not UTF-8 but seems to be UTF-16: write it in UTF-8"

# A block is reduced to marks: one for each byte that matters.
_LINE_END, _FORBIDDEN, _ONLY_IN_TEXT = b"\n", b"\0", b"!"
_BLANK_CONTROL = b"\t\r\n"
_ANYWHERE = b" ,:+-.0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


def _mark(byte: int) -> bytes:
    sign = bytes([byte])
    if sign in b'"[]{}':
        return sign
    if sign in _BLANK_CONTROL:
        return _LINE_END
    return _FORBIDDEN if byte < _SPACE else _ONLY_IN_TEXT


_MARKS = b"".join(_mark(byte) for byte in range(256))
_BITS = bytes(ord("1") if sign in b"[{" else ord("0") for sign in range(256))


def _after(depth: int, brackets: int) -> int:
    """Return the depth after eight brackets; 0 if they end the value or exceed the limit."""
    for bit in reversed(range(8)):
        depth += 1 if brackets >> bit & 1 else -1
        if not 0 < depth <= MAX_DEPTH:
            return 0
    return depth


_AFTER = tuple(bytes(_after(depth, brackets) for brackets in range(256)) for depth in range(MAX_DEPTH + 1))
"""By depth, then by the next eight brackets, one bit each."""


class MalformedError(ValueError):
    """The text is not a JSON object, or an ambiguous one."""


class Scanner:
    """Scans one JSON object.

    Args:
        wanted: The keys whose values are recorded, which have to be short.

    Attributes:
        keys: The top level's keys so far, in order.
        values: The values of wanted keys so far; None for a value that is not a string.
        spans: Where the value of each key begins and ends, in bytes from the start, once it has ended.
    """

    def __init__(self, wanted: Collection[str]) -> None:
        self.keys: list[str] = []
        self.values: dict[str, str | None] = {}
        self.spans: dict[str, tuple[int, int]] = {}
        self._before = 0
        self._began = 0
        self._wanted = frozenset(wanted)
        self._folded: set[str] = set()
        self._piece = b""
        self._plain = b""
        self._text = bytearray()
        self._escaped = False
        self._depth = 0
        self._in_text = False
        self._last = 0
        self._state: Callable[[int], int] = self._start

    @property
    def ended(self) -> bool:
        """Whether the object has ended: only blanks may follow."""
        return self._state == self._end

    def feed(self, piece: bytes) -> None:
        """Scan the next piece.

        Raises:
            MalformedError: It cannot be part of an unambiguous object.
        """
        if not piece:
            return
        self._piece, self._plain = piece, self._without_escapes(piece)
        position = 0
        while position < len(piece):
            state = self._state
            position = state(position)
            if self._state != state:
                self._note_span(state, self._before + position)
        self._before += len(piece)
        self._piece = self._plain = b""

    def finish(self) -> None:
        """End the text.

        Raises:
            MalformedError: The object has not ended.
        """
        if not self.ended:
            raise MalformedError("it ends before the object does")

    def _without_escapes(self, piece: bytes) -> bytes:
        """Return a piece with escaped quotes and backslashes replaced, so that each quote counts.

        Its length stays. The replacement is allowed only where a backslash is.
        """
        if self._escaped and piece[0] in b'"\\':
            piece = _ONLY_IN_TEXT + piece[1:]
        if b"\\" in piece:
            piece = piece.replace(rb"\\", _ONLY_IN_TEXT * 2).replace(rb"\"", _ONLY_IN_TEXT * 2)
        self._escaped = piece.endswith(b"\\")
        return piece

    # One method for each state of the scan. It reads what belongs there, and returns the position behind it.
    # At the end of a piece, it is called again with the next one.

    def _start(self, position: int) -> int:
        if self._piece[position : position + 1] in {b"\xfe", b"\xff"}:
            raise MalformedError(_UTF_16)
        if _MARK.startswith(self._piece[position : position + len(_MARK)]):
            raise MalformedError(_BYTE_ORDER_MARK)
        return self._sign(position, {b"{": self._first_key}, "an object")

    def _first_key(self, position: int) -> int:
        return self._sign(position, {b'"': self._key, b"}": self._end}, "a key")

    def _next_key(self, position: int) -> int:
        return self._sign(position, {b'"': self._key}, "a key")

    def _key(self, position: int) -> int:
        position, text = self._collect(position)
        if text is not None:
            self._note_key(text)
            self._state = self._colon
        return position

    def _colon(self, position: int) -> int:
        return self._sign(position, {b":": self._value}, "a colon")

    def _value(self, position: int) -> int:
        position = self._end_of(_BLANK, position)
        if position == len(self._plain):
            return position
        first = self._plain[position]
        wanted = self.keys[-1] in self._wanted
        if first == _QUOTE:
            self._state = self._wanted_text if wanted else self._other_text
            return position + 1
        if wanted:
            self.values[self.keys[-1]] = None
        if first in _OPENING:
            self._last = _OPENING[first]
            self._depth = 1
            self._state = self._nested
            return position + 1
        if self._end_of(_SCALAR, position) == position:
            raise MalformedError(f"expected a value, found {self._shown(position)}")
        self._state = self._scalar
        return position

    def _wanted_text(self, position: int) -> int:
        position, text = self._collect(position)
        if text is not None:
            self.values[self.keys[-1]] = text
            self._state = self._after_value
        return position

    def _other_text(self, position: int) -> int:
        position, closed = self._pass_text(position, len(self._plain))
        if closed:
            self._state = self._after_value
        return position

    def _scalar(self, position: int) -> int:
        position = self._end_of(_SCALAR, position)
        if position < len(self._plain):
            self._state = self._after_value
        return position

    def _nested(self, position: int) -> int:
        end = min(position + _BLOCK, len(self._plain))
        if self._pass_block(position, end):
            return end
        while end - position > _FEW:
            middle = (position + end) // 2
            if self._pass_block(position, middle):
                position = middle
            else:
                end = middle
        return self._pass_signs(position, end)

    def _after_value(self, position: int) -> int:
        return self._sign(position, {b",": self._next_key, b"}": self._end}, "a comma or the end")

    def _end(self, position: int) -> int:
        return self._sign(position, {}, "nothing more")

    # Their parts.

    def _sign(self, position: int, following: dict[bytes, Callable[[int], int]], expected: str) -> int:
        """Read one of the characters that are allowed here, and enter the state that follows it."""
        position = self._end_of(_BLANK, position)
        if position == len(self._plain):
            return position
        state = following.get(self._plain[position : position + 1])
        if state is None:
            if following and not self._piece[position]:  # every second byte of English in UTF-16
                raise MalformedError(_UTF_16)
            raise MalformedError(f"expected {expected}, found {self._shown(position)}")
        self._state = state
        return position + 1

    def _pass_block(self, position: int, end: int) -> bool:
        """Skip a block of a nested value; return False, skipping none, if the value ends or fails in it."""
        # Two quotes with no mark between them cancel out. That removes most strings.
        marks = self._plain[position:end].translate(_MARKS, _ANYWHERE).replace(b'""', b"")
        parts = marks.split(b'"')
        outside = b"".join(parts[self._in_text :: 2])
        line_end_in_text = marks.count(_LINE_END) > outside.count(_LINE_END)
        if line_end_in_text or _ONLY_IN_TEXT in outside or _FORBIDDEN in marks:
            return False
        bits = outside.translate(_BITS, _LINE_END)
        if bits:
            # Eight at a time. The padding counts as opening brackets, so it does not end the value.
            missing = -len(bits) % 8
            depth = self._depth
            for brackets in int(bits + b"1" * missing, 2).to_bytes((len(bits) + missing) // 8):
                depth = _AFTER[depth][brackets]
                if not depth:
                    return False
            self._depth = depth - missing
        self._in_text ^= len(parts) % 2 == 0
        return True

    def _pass_signs(self, position: int, end: int) -> int:
        """Skip a part of a nested value character by character, up to the end of the value."""
        while position < end:
            if self._in_text:
                position, closed = self._pass_text(position, end)
                self._in_text = not closed
                continue
            position = self._end_of(_BETWEEN, position, end)
            if position == end:
                break
            sign = self._plain[position]
            position += 1
            if sign == _QUOTE:
                self._in_text = True
            elif sign in _OPENING:
                if self._depth >= MAX_DEPTH:
                    raise MalformedError(f"it is nested more than {MAX_DEPTH} deep")
                self._depth += 1
            elif sign in _CLOSING and (self._depth > 1 or sign == self._last):
                self._depth -= 1
                if not self._depth:
                    self._state = self._after_value
                    break
            else:
                raise MalformedError(f"{self._shown(position - 1)} has no place in {self.keys[-1]!r}")
        return position

    def _pass_text(self, position: int, end: int) -> tuple[int, bool]:
        """Skip the rest of a string; return the position behind it, and whether the string ended."""
        position = self._end_of(_TEXT, position, end)
        if position == end:
            return position, False
        if self._plain[position] == _QUOTE:
            return position + 1, True
        raise MalformedError(f"{self._shown(position)} has no place in a string")

    def _collect(self, position: int) -> tuple[int, str | None]:
        """Collect the rest of a string; return the position behind it, and the string if it ended."""
        end, closed = self._pass_text(position, len(self._plain))
        self._text += self._piece[position : end - closed]
        if len(self._text) > _MAX_TEXT:
            raise MalformedError(f"{_quoted(bytes(self._text[:32]))}… is too long")
        if not closed:
            return end, None
        raw = bytes(self._text)
        self._text.clear()
        try:
            text = json.loads(b'"%b"' % raw)
            text.encode()  # half a surrogate pair is not text
        except ValueError:
            raise MalformedError(f"{_quoted(raw[:64])} is no text") from None
        return end, str(text)

    def _note_key(self, key: str) -> None:
        folded = key.casefold()
        if folded in self._folded:
            raise MalformedError(f"the key {key[:64]!r} comes twice")
        if len(self.keys) >= _MAX_KEYS:
            raise MalformedError(f"it has more than {_MAX_KEYS} keys")
        self._folded.add(folded)
        self.keys.append(key)

    def _note_span(self, state: Callable[[int], int], position: int) -> None:
        """Note that a value has begun or ended, as a state was left."""
        if state == self._value:
            self._began = position if self._state == self._scalar else position - 1
        elif self._state == self._after_value:
            self.spans[self.keys[-1]] = (self._began, position)

    def _end_of(self, pattern: re.Pattern[bytes], position: int, end: int | None = None) -> int:
        """Return the end of a pattern's match; all patterns here also match the empty string."""
        found = pattern.match(self._plain, position, len(self._plain) if end is None else end)
        return found.end() if found else position

    def _shown(self, position: int) -> str:
        """Return a printable character in quotes; the number of any other one, or of one that is cut."""
        byte = self._piece[position]
        character = self._piece[position : position + _LONGEST_CHARACTER].decode(errors="ignore")[:1]
        if byte < _SPACE or byte == _DELETE:
            return f"the control character 0x{byte:02X}"
        if not character.isprintable() or not character or character.encode()[0] != byte:
            return f"the byte 0x{byte:02X}"
        return _quoted(character.encode())


def _quoted(text: bytes) -> str:
    """Return text from a request in quotes; what is not UTF-8, or cut, is replaced."""
    return f"'{text.decode(errors='replace')}'"
