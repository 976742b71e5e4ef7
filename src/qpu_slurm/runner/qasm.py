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
from collections import Counter
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from qpu_slurm.tasks import angles, openqasm, validation

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

Operation = tuple[str, tuple[int, ...]]
"""An operation's name, as Qiskit calls it, and the qubits that it acts on."""

STDGATES: Final = "stdgates.inc"

_GATE_SIZES: Final = {
    "p phase u1 rx ry rz": (1, 1),
    "x y z h s sdg t tdg sx id": (0, 1),
    "u2": (2, 1),
    "u3": (3, 1),
    "cx CX cy cz ch swap": (0, 2),
    "cp cphase crx cry crz": (1, 2),
    "cu": (4, 2),
    "ccx cswap": (0, 3),
}
STANDARD_GATES: Final = {name: size for names, size in _GATE_SIZES.items() for name in names.split()}
"""What stdgates.inc defines: how many angles and qubits each gate takes."""

QISKIT_NAMES: Final = {"CX": "cx", "phase": "p", "cphase": "cp", "U": "u"}
"""Gates that Qiskit calls otherwise."""

_IDENTITY: Final = (
    "Qiskit's importer reads id as U(0, 0, 0), which is no operation of the QPU: leave it out, or write QPY"
)

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


class Gate(NamedTuple):
    """A gate that may be called."""

    angles: int
    qubits: int


class Bits(NamedTuple):
    """Classical bits: a register, or a loose bit."""

    width: int
    loose: bool = False


Meaning: TypeAlias = Gate | Bits | range | list[int] | int | angles.Kind
"""What a name stands for: a gate, bits, several qubits, one, or a parameter of that type."""


class Unread(Exception):
    """A statement is none that Qiskit's importer takes.

    Args:
        what: In a few words.
    """


class Invalid(Unread):
    """A statement is no OpenQASM 3 where it stands, so nothing would execute it."""


class Program:
    """What can be seen of an OpenQASM 3 program; complete when its operations have been gone through.

    Args:
        text: The program.

    Attributes:
        problems: What makes the program one that is not executed.
        warnings: What is executed, and probably not what was meant.
        unread: What was not understood, and how often.
        registers: The classical registers' widths.
        names: What each name stands for.
        symbolic_rzz: Whether an rzz has an angle that depends on parameters.
    """

    def __init__(self, text: str) -> None:
        self.problems: dict[str, None] = {}
        self.warnings: dict[str, None] = {}
        self.unread: Counter[str] = Counter()
        self.registers: dict[str, int] = {}
        self.names: dict[str, Meaning] = {"U": Gate(3, 1)}
        self.symbolic_rzz = False
        self.text = text
        self._included = False
        self._own_qubits = 0
        self._physical_qubits = 0

    def operations(self) -> Iterator[Operation]:
        """Go through the operations, those in blocks included."""
        text, at = self.text, 0
        while True:
            match = _FLAT.match(text, at)
            if match and (match["call"] is None or match["call"] not in _WORDS):
                at = match.end()
                try:
                    yield from self._flat(match)
                except Unread as error:
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

    # What the flat statements and the parsed ones have in common.

    def note(self, error: Unread) -> None:
        """Write down why a statement could not be read."""
        if isinstance(error, Invalid):
            self.problems[str(error)] = None
        else:
            self.unread[str(error)] += 1

    def declare(self, name: str, meaning: Meaning) -> None:
        """Take note of what a name stands for."""
        if name in self.names:
            raise Invalid(f"{name}, which is declared twice")
        self.names[name] = meaning
        if not isinstance(meaning, Bits):
            return
        if meaning.loose:
            self.warnings[openqasm.loose_bit(name)] = None
            return
        self.registers[name] = meaning.width
        if renamed := openqasm.renamed(name):
            self.warnings[renamed] = None

    def declare_qubits(self, name: str, count: int | None) -> None:
        """Take note of a register of the program's own, or of a single qubit."""
        if self._physical_qubits:
            raise Unread("qubits of its own beside physical ones")
        first = self._own_qubits
        self.declare(name, first if count is None else range(first, first + count))
        self._own_qubits += 1 if count is None else count

    def include(self, file: str) -> None:
        """Take note of an include."""
        if file != STDGATES or self._included:
            raise Unread(f'include "{file}"')
        self._included = True
        for name, size in STANDARD_GATES.items():
            self.declare(name, Gate(*size))

    def physical(self, qubit: int) -> Sequence[int]:
        """Return a qubit of the QPU's."""
        if self._own_qubits:
            raise Unread("physical qubits beside its own")
        self._physical_qubits = max(self._physical_qubits, qubit + 1)
        return range(qubit, qubit + 1)

    def all_qubits(self) -> tuple[int, ...]:
        """Return every qubit that there is up to here."""
        return tuple(range(self._own_qubits or self._physical_qubits))

    def bits(self, name: str) -> Bits:
        """Find classical bits."""
        meaning = self.names.get(name)
        if not isinstance(meaning, Bits):
            raise Invalid(f"{name}, which is not declared as bits")
        return meaning

    def qubits(self, name: str) -> tuple[bool, Sequence[int]]:
        """Find the qubits of a name, and whether it is a single one."""
        meaning = self.names.get(name)
        if isinstance(meaning, int):
            return True, [meaning]
        if isinstance(meaning, range | list):
            return False, meaning
        raise Invalid(f"{name}, which is no qubit")

    def call(
        self, name: str, expressions: Sequence[str], operands: Sequence[Sequence[int]]
    ) -> Iterator[Operation]:
        """Call a gate; an operand of several qubits stands for each of them in turn."""
        gate = self.gate(name)
        values = self.evaluate(expressions)
        if gate and (len(expressions), len(operands)) != gate:
            raise Invalid(f"{name} with {len(expressions)} angles on {len(operands)} qubits")
        if name == "id" and gate:
            self.warnings[_IDENTITY] = None
        if name == "rzz" and values:
            self._check_rzz(values[0])
        yield from self.each(QISKIT_NAMES.get(name, name), operands)

    def gate(self, name: str) -> Gate | None:
        """Find a gate; one that is not defined is a problem, and None."""
        gate = self.names.get(name)
        if isinstance(gate, Gate):
            return gate
        if gate is not None:
            raise Invalid(f"{name}, which is no gate")
        advice = f'add include "{STDGATES}"; behind the version' if name in STANDARD_GATES else "define it"
        self.problems[f"gate {name!r} is not defined: {advice}"] = None
        return None

    def evaluate(self, expressions: Sequence[str]) -> list[angles.Angle]:
        """Compute angles, and warn of those that are not what they look like."""
        parameters = (
            {name: kind for name, kind in self.names.items() if isinstance(kind, str)} if expressions else {}
        )
        values = []
        for expression in expressions:
            angle = angles.evaluate(expression, parameters)
            if angle is None:
                raise Unread(f"the angle {expression.strip()[:40]}")
            if angle.meant is not None:
                self.warnings[openqasm.lost_remainder(expression, angle)] = None
            values.append(angle)
        return values

    def each(self, name: str, operands: Sequence[Sequence[int]]) -> Iterator[Operation]:
        """Say what an operation on operands of several qubits does."""
        lengths = {len(operand) for operand in operands} - {1}
        if len(lengths) > 1:
            raise Invalid(f"{name} on registers of different lengths")
        for index in range(max(lengths, default=1)):
            qubits = tuple(operand[index if len(operand) > 1 else 0] for operand in operands)
            if len(set(qubits)) < len(qubits):
                raise Invalid(f"{name} on one qubit twice")
            yield name, qubits

    def measure(self, qubits: Sequence[int], width: int) -> Iterator[Operation]:
        """Say what a measurement into so many bits does."""
        if len(qubits) == 1 < width:
            qubits = [qubits[0]] * width
        if len(qubits) != width:
            raise Invalid("measure of a register into one of another length")
        for qubit in qubits:
            yield "measure", (qubit,)

    def _check_rzz(self, angle: angles.Angle) -> None:
        if angle.value is None:
            self.symbolic_rzz = True
        elif problem := validation.rzz_problem(angle.value):
            self.problems[problem] = None

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
                raise Invalid("barrier on one qubit twice")
            yield name, qubits
        elif name == "reset":
            yield from self.each(name, operands)
        elif name == "measure":
            raise Unread("measure without a bit for its result")
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
            raise Invalid(f"{name}[{index}], which is no bit of the register")
        return 1

    def _operand(self, text: str) -> Sequence[int]:
        """Find an operand's qubits."""
        parts = _OPERAND_PARTS.fullmatch(text.strip())
        if parts is None:
            raise Unread(text.strip())
        if parts[1]:
            return self.physical(int(parts[1]))
        single, register = self.qubits(parts[2])
        if parts[3] is None:
            return register
        index = int(parts[3])
        if single or index >= len(register):
            raise Invalid(f"{parts[2]}[{index}], which is no qubit of the register")
        return register[index : index + 1]

    # Everything else.

    def _parsed(self, begin: int, end: int) -> Iterator[Operation]:
        try:
            from qpu_slurm.runner import qasm_blocks  # noqa: PLC0415 - a second, for the parser
        except ImportError:
            self.unread["blocks and definitions, for which the package openqasm3 is missing"] += 1
            return
        yield from qasm_blocks.operations(self, begin, end)


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
