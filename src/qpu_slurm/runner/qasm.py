# SPDX-License-Identifier: Apache-2.0
"""Which operations an OpenQASM 3 program uses on which qubits, without Qiskit.

Circuits that were transpiled for a QPU are flat lists of gates on physical qubits (`$0`), which can be read
without understanding the language. What goes beyond that is counted, and said not to have been looked at.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

Operation = tuple[str, tuple[int, ...]]
"""An operation's name, and the qubits that it acts on."""

_COMMENT: Final = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)
_PART: Final = re.compile(r"([^;{}]*)([;{}]?)")
_REGISTER: Final = re.compile(r"qubit\s*(?:\[\s*(\d+)\s*\])?\s*([A-Za-z_]\w*)")
_MEASURE: Final = re.compile(r"\bmeasure\s+(.+)", re.DOTALL)
_RESET: Final = re.compile(r"reset\s+(.+)", re.DOTALL)
_TIMING: Final = re.compile(r"(?:barrier|delay\s*\[[^]]*\])(?:\s+.*)?", re.DOTALL)
_CONTROL: Final = re.compile(r"(if|for|while|switch)\b")
_GATE: Final = re.compile(
    r"((?:(?:ctrl|negctrl|inv|pow)\s*(?:\([^)]*\))?\s*@\s*)*[A-Za-z_]\w*)\s*(.*)", re.DOTALL
)
_QUBIT: Final = re.compile(r"\$(\d+)|([A-Za-z_]\w*)\s*(?:\[\s*(\d+)\s*\])?")
_CLASSICAL: Final = re.compile(
    r"(?:OPENQASM|include|const|input|output|bit|u?int|float|angle|bool|duration|stretch|complex|array|case"
    r"|default|break|continue|end|else|return)\b|[A-Za-z_]\w*(?:\s*\[[^]]*\])?\s*(?:[-+*/%&|^]|<<|>>)?=(?!=)"
)
_DEFINITION: Final = re.compile(r"(?:gate|def|cal|defcal|box|extern|defcalgrammar)\b")
_PRAGMA: Final = re.compile(r"^[ \t]*(?:#?pragma|@).*$", re.MULTILINE)

_CONTROL_NAMES: Final = {"if": "if_else", "for": "for_loop", "while": "while_loop", "switch": "switch_case"}


class Program:
    """What can be seen of an OpenQASM 3 program.

    Args:
        text: The program.

    Attributes:
        unread: How many statements were not understood.
    """

    def __init__(self, text: str) -> None:
        self.unread = 0
        self._text = _PRAGMA.sub("", _COMMENT.sub(" ", text))
        self._registers: dict[str, range] = {}

    def operations(self) -> Iterator[Operation]:
        """Go through the operations, those in blocks included."""
        inside = 0  # braces of a definition, the body of which runs only where it is called
        for match in _PART.finditer(self._text):
            statement, end = match[1].strip(), match[2]
            if inside:
                inside += {"{": 1, "}": -1}.get(end, 0)
            elif end == "{" and _DEFINITION.match(statement):
                inside = 1
            elif statement:
                yield from self._statement(statement)

    def _statement(self, text: str) -> Iterator[Operation]:
        if register := _REGISTER.fullmatch(text):
            first = sum(map(len, self._registers.values()))
            self._registers[register[2]] = range(first, first + int(register[1] or 1))
        elif control := _CONTROL.match(text):
            yield _CONTROL_NAMES[control[1]], ()
            if control[1] == "if" and (body := _after_condition(text)):
                yield from self._statement(body)
        elif found := _MEASURE.search(text):
            # Behind an arrow stands where an older writer wants the bit.
            yield from self._on_each("measure", found[1].partition("->")[0])
        elif found := _RESET.fullmatch(text):
            yield from self._on_each("reset", found[1])
        elif _TIMING.fullmatch(text) or _CLASSICAL.match(text):
            pass
        elif gate := _GATE.fullmatch(text):
            yield from self._gate(" ".join(gate[1].split()), gate[2])
        else:
            self.unread += 1

    def _on_each(self, name: str, operand: str) -> Iterator[Operation]:
        qubits = self._qubits(operand)
        if qubits is None:
            self.unread += 1
        for qubit in qubits or ():
            yield name, (qubit,)

    def _gate(self, name: str, rest: str) -> Iterator[Operation]:
        """Read a gate's call; an operand that is a whole register stands for each of its qubits in turn."""
        operands = [self._qubits(operand) for operand in _behind_arguments(rest).split(",")]
        groups = [operand for operand in operands if operand]
        lengths = {len(group) for group in groups} - {1}
        if len(groups) < len(operands) or len(lengths) > 1:
            self.unread += 1
            return
        for index in range(max(lengths, default=1)):
            yield name, tuple(group[index if len(group) > 1 else 0] for group in groups)

    def _qubits(self, operand: str) -> range | None:
        """Find an operand's qubits; None if it is nothing that we know."""
        match = _QUBIT.fullmatch(operand.strip())
        if match is None:
            return None
        if match[1]:
            return range(int(match[1]), int(match[1]) + 1)
        register = self._registers.get(match[2])
        if register is None or match[3] is None:
            return register
        index = int(match[3])
        return register[index : index + 1] if index < len(register) else None


def _behind_arguments(text: str) -> str:
    """Pass over a gate's angles: `(pi/2, f(x)) $0` is ` $0`."""
    if not text.startswith("("):
        return text
    return text[_closing(text) :]


def _after_condition(text: str) -> str:
    """Return the statement that an `if` without braces is about."""
    begin = text.find("(")
    return "" if begin < 0 else text[begin + _closing(text[begin:]) :].strip()


def _closing(text: str) -> int:
    """Find where what begins with a parenthesis is behind its other one."""
    depth = 0
    for index, character in enumerate(text):
        depth += {"(": 1, ")": -1}.get(character, 0)
        if depth == 0:
            return index + 1
    return len(text)
