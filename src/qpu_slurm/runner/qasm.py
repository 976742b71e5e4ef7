# SPDX-License-Identifier: Apache-2.0
"""Which operations an OpenQASM 3 program executes on which qubits, without Qiskit.

A circuit that was transpiled for a QPU is a flat list of declarations, gates and measurements, often
megabytes of it. Such statements are matched by one regular expression each, 10 MB in seconds. Everything
else (blocks, definitions, aliases, modifiers) is parsed by OpenQASM's reference parser, which takes a
minute for a megabyte, and is imported only if there is something for it; see `qasm_blocks`.

What is executed is what Qiskit's importer makes of the program, since that is how the service reads it. A
statement that the importer does not take is counted as unread, never passed over.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from qpu_slurm.runner.qasm_names import Bits, InvalidError, Names, UnreadError
from qpu_slurm.tasks import openqasm

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from qpu_slurm.runner.qasm_names import Operation

MOST_PARSED: Final = 1 << 18
"""Characters of blocks and definitions that are read: the parser takes a quarter of a minute for them."""

_SKIPPED: Final = r"(?:\s++|//[^\n]*+|/\*.*?\*/)*+"
_OPERAND: Final = r"(?:\$\d++|[A-Za-z_]\w*+(?:\s*\[\s*\d++\s*\])?)"
_OPERANDS: Final = rf"{_OPERAND}(?:\s*,\s*{_OPERAND})*"
_FLAT: Final = re.compile(
    rf"""{_SKIPPED}(?:
    (?P<call>[A-Za-z_]\w*+)\s*(?:\((?P<angles>[^();{{}}"]*+(?:\([^();{{}}"]*+\)[^();{{}}"]*+)*+)\))?\s*(?P<on>{_OPERANDS})\s*;
  | (?:(?P<bit>[A-Za-z_]\w*+)\s*(?:\[\s*(?P<index>\d++)\s*\])?\s*=\s*)measure\s*(?P<measured>{_OPERAND})\s*;
  | delay\s*\[\s*[\d.]++\s*(?:ns|us|µs|ms|s|dt)\s*\]\s*(?P<delayed>{_OPERANDS})\s*;
  | (?P<declared>bit|qubit)\s*\[\s*(?P<size>\d++)\s*\]\s*(?P<name>[A-Za-z_]\w*+)\s*;
  | input\s+(?P<type>float|angle)\s*(?:\[\s*\d+\s*\])?\s*(?P<parameter>[A-Za-z_]\w*+)\s*;
  | include\s*"(?P<include>[^"\n]*)"\s*;
  | OPENQASM\s+3(?:\.\d+)?\s*;
  )""",
    re.VERBOSE | re.DOTALL,
)
_SPACE: Final = re.compile(_SKIPPED, re.DOTALL)
_WORDS: Final = frozenset(
    """
    OPENQASM include defcalgrammar def cal defcal gate extern box let break continue if else end return for
    while in switch case default nop pragma input output const readonly mutable qreg qubit creg bool bit int
    uint float angle complex array void duration stretch gphase inv pow ctrl negctrl durationof delay
    """.split()  # noqa: SIM905 - a table of words
)
"""The language's words: what begins with one of them is no call of a gate, though it may look like one."""

_TOKEN: Final = re.compile(
    r'(?P<comment>//[^\n]*|/\*.*?\*/)|(?P<line>(?:\#?pragma\b|@)[^\n]*)|(?P<string>"[^"\n]*")'
    r"|(?P<word>\w+)|(?P<mark>[(){}\[\];=,])",
    re.DOTALL,
)
_ELSE: Final = re.compile(_SKIPPED + r"else\b", re.DOTALL)
_OPERAND_PARTS: Final = re.compile(r"\$(\d+)|([A-Za-z_]\w*)\s*(?:\[\s*(\d+)\s*\])?")


class Program(Names):
    """An OpenQASM 3 program; what is found of it is complete when its operations have been gone through.

    Args:
        text: The program.
    """

    def __init__(self, text: str) -> None:
        super().__init__()
        self._text = text
        self._parsed_characters = 0

    def operations(self) -> Iterator[Operation]:
        """Go through the operations, those in blocks included."""
        text, at = self._text, 0
        while True:
            match = _FLAT.match(text, at)
            if match and (match["call"] is None or match["call"] not in _WORDS):
                at = match.end()
                try:
                    yield from self._flat(match)
                except UnreadError as error:
                    self.note(error)
                continue
            begin = _skip(text, at)
            if begin == len(text):
                break
            # Statements that stand together are parsed together.
            at = _end(text, begin)
            while not ((match := _FLAT.match(text, at)) and match["call"] not in _WORDS):
                following = _skip(text, at)
                if following == len(text):
                    break
                at = _end(text, following)
            yield from self._parsed(begin, at)
        for hint in (
            openqasm.order_hint(self.parameters, included=self.included),
            openqasm.bit_order_hint(text, self.registers),
        ):
            if hint:
                self.warnings[hint] = None

    # Flat statements.

    def _flat(self, match: re.Match[str]) -> Iterator[Operation]:
        if name := match["call"]:
            yield from self._call(
                name, match["angles"], [self._operand(text) for text in match["on"].split(",")]
            )
        elif measured := match["measured"]:
            width = self._width(match["bit"], match["index"])
            yield from self.measure(self._operand(measured), width)
        elif delayed := match["delayed"]:
            for text in delayed.split(","):
                yield from self.each("delay", [self._operand(text)])
        else:
            self._declaration(match)

    def _call(self, name: str, expressions: str | None, operands: list[Sequence[int]]) -> Iterator[Operation]:
        """Read what looks like a gate's call."""
        if name == "barrier":
            qubits = tuple(qubit for operand in operands for qubit in operand)
            if len(set(qubits)) < len(qubits):
                raise InvalidError("barrier on one qubit twice")
            yield name, qubits
        elif name == "reset":
            yield from self.each(name, operands)
        elif name == "measure":
            raise UnreadError("measure without a bit for its result")
        else:
            yield from self.call(name, expressions.split(",") if expressions else [], operands)

    def _declaration(self, match: re.Match[str]) -> None:
        if match["declared"] == "bit":
            self.declare(match["name"], Bits(int(match["size"])))
        elif match["declared"]:
            self.declare_qubits(match["name"], int(match["size"]))
        elif parameter := match["parameter"]:
            self.declare(parameter, "float" if match["type"] == "float" else "angle")
        elif match["include"] is not None:
            self.include(match["include"])

    def _width(self, name: str, index: str | None) -> int:
        """Return how many bits a measurement goes into."""
        bits = self.bits(name)
        if index is None:
            return bits.width
        if bits.loose or int(index) >= bits.width:
            raise InvalidError(f"{name}[{index}], which is no bit of the register")
        return 1

    def _operand(self, text: str) -> Sequence[int]:
        """Find an operand's qubits."""
        parts = _OPERAND_PARTS.fullmatch(text.strip())
        if parts is None:
            raise UnreadError(text.strip())
        if parts[1]:
            return self.physical(int(parts[1]))
        single, register = self.qubits(parts[2])
        if parts[3] is None:
            return register
        index = int(parts[3])
        if single or index >= len(register):
            raise InvalidError(f"{parts[2]}[{index}], which is no qubit of the register")
        return register[index : index + 1]

    # Everything else.

    def _parsed(self, begin: int, end: int) -> Iterator[Operation]:
        """Read statements with the parser, as long as that is a matter of seconds."""
        self._parsed_characters += end - begin
        if self._parsed_characters > MOST_PARSED:
            self.unread[f"blocks and definitions behind the first {MOST_PARSED >> 10} KiB of them"] += 1
            return
        try:
            from qpu_slurm.runner import qasm_blocks  # noqa: PLC0415 - a second, for the parser
        except ImportError:
            self.unread["blocks and definitions, for which the package openqasm3 is missing"] += 1
            return
        yield from qasm_blocks.operations(self, self._text, begin, end)


def _skip(text: str, at: int) -> int:
    """Pass over white space and comments."""
    match = _SPACE.match(text, at)
    return match.end() if match else at


def _end(text: str, at: int) -> int:
    """Find where a statement ends that may have blocks."""
    depth = 0
    literal: list[bool] = []  # of each brace that is open: whether it is a set or an array, no block
    before = ""
    for token in _TOKEN.finditer(text, at):
        if token["comment"] or token["line"]:
            if token["line"] and not token["line"].startswith("@") and depth == 0:
                return token.end()
            continue
        mark = token["mark"] or ""
        if mark in {"(", "["}:
            depth += 1
        elif mark in {")", "]"}:
            depth -= 1
        elif mark == "{":
            depth += 1
            literal.append(before in {"=", "in", ",", "["} or (before == "{" and literal[-1]))
        elif mark == "}":
            depth -= 1
            was_literal = literal.pop() if literal else False
            if depth <= 0 and not was_literal and not _ELSE.match(text, token.end()):
                return token.end()
        elif mark == ";" and depth <= 0 and not _ELSE.match(text, token.end()):
            return token.end()
        before = token[0]
    return len(text)
