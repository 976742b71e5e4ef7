# SPDX-License-Identifier: Apache-2.0
"""What an OpenQASM 3 program says at a glance: its registers, and what will not come back as written.

task_runner looks at this much of each program before it submits it. What a program executes is read by
`qasm`, which takes longer.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from qpu_slurm.tasks import angles

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

RECIPES: Final = "docs/inputs-from-other-tools.md"
"""What to do with files of other tools."""

_COMMENT: Final = re.compile(r'("[^"\n]*")|//[^\n]*|/\*.*?\*/', re.DOTALL)
_REGISTER: Final = re.compile(
    r"(?:^|(?<=[;{}]))\s*(?:output\s+)?(?:bit\s*\[\s*(?P<width>\d+)\s*\]\s*(?P<name>[^\W\d]\w*)\s*(?:;|=)"
    r"|creg\s+(?P<old>[^\W\d]\w*)\s*\[\s*(?P<size>\d+)\s*\]\s*;"
    r"|bit\s+(?P<loose>[^\W\d]\w*)\s*(?:;|=))"
)
_CONTROL_FLOW: Final = re.compile(r"(?:^|(?<=[;{}]))\s*(?:if|for|while|switch)\b")
_QUOTIENT: Final = re.compile(r"[\d)]\s*/\s*\d")
_NEAR: Final = 500
"""Characters of a statement around a quotient."""

_KEPT_NAME: Final = re.compile(r"[a-z]\w*", re.ASCII)


class Glance:
    """What is seen of a program.

    Args:
        text: The program, or its beginning.

    Attributes:
        registers: The classical registers' widths, by name.
        lost_bits: A warning for each bit or register that the result has not, or not under its name.
        lost_remainders: A warning for each angle that is not what it looks like.
        control_flow: Whether there are blocks that are executed only if, or several times.
    """

    def __init__(self, text: str) -> None:
        text = _COMMENT.sub(lambda match: match[1] or " ", text)
        self.registers: dict[str, int] = {}
        self.lost_bits: list[str] = []
        for match in _REGISTER.finditer(text):
            if match["loose"]:
                self.lost_bits.append(loose_bit(match["loose"]))
                continue
            name = match["name"] or match["old"]
            self.registers[name] = int(match["width"] or match["size"])
            if warning := renamed(name):
                self.lost_bits.append(warning)
        self.lost_remainders = list(dict.fromkeys(_lost_remainders(text)))
        self.control_flow = _CONTROL_FLOW.search(text) is not None


def loose_bit(name: str) -> str:
    """Say what becomes of a bit that is in no register."""
    return f'the bit {name!r} is in no register, so the result will not have it: write "bit[1] {name};"'


def renamed(name: str) -> str | None:
    """Say how Qiskit's importer renames a register; None if it keeps the name."""
    if _KEPT_NAME.fullmatch(name):
        return None
    other = re.sub(r"\W", "_", name, flags=re.ASCII)
    other = other if other[:1].isascii() and other[:1].islower() else f"esc_{other}"
    return (
        f"the register {name!r} will be {other!r} in the result: Qiskit's importer keeps a name that begins "
        "with a small letter and goes on with letters of a to z, digits and underscores"
    )


def lost_remainder(expression: str, angle: angles.Angle) -> str:
    """Say that an angle is not what it looks like."""
    written = "".join(expression.split())
    becomes = "" if angle.value is None else f", and the angle is {angle.value:g}"
    return (
        f"{written!r} divides integers, so Qiskit's importer drops the remainder{becomes}: "
        f"write {angle.meant!r}"
    )


def order_hint(parameters: Sequence[str], *, included: bool) -> str | None:
    """Say that values do not bind the same way for every reader; None if they do.

    Args:
        parameters: The program's parameters, in the order of their declaration.
        included: Whether it includes stdgates.inc, as all writers but Braket do.
    """
    if list(parameters) == sorted(parameters):
        return None
    most = 4
    shown = ", ".join(parameters[:most]) + (", …" if len(parameters) > most else "")
    braket = "" if included else " Amazon Braket declares inputs in another order in each run."
    return (
        f"the parameters are declared as {shown}, and readers bind values in this order, or in that of the "
        f"names.{braket} Give values by name, with qpu_slurm.write_sampler_input: see {RECIPES}"
    )


def bit_order_hint(text: str, registers: Mapping[str, int]) -> str | None:
    """Say that bits have another order for the program's writer; None if they have not."""
    if text.startswith("// Generated from Cirq") and any(width > 1 for width in registers.values()):
        return (
            "Cirq's first qubit of a measurement is its most significant bit, and the last character of "
            f"Qiskit's strings: see {RECIPES}"
        )
    return None


def _lost_remainders(text: str) -> Iterator[str]:
    for match in _QUOTIENT.finditer(text):
        begin = max(text.rfind(mark, max(0, match.start() - _NEAR), match.start()) for mark in ";{}") + 1
        end = text.find(";", match.end(), match.end() + _NEAR)
        call = text[begin:end] if begin and end > 0 else ""
        for expression in _arguments(call):
            # A name that is unknown here is a parameter, of a type that quotients of integers do not meet.
            names: dict[str, angles.Kind] = {
                name: "float"
                for name in re.findall(r"[^\W\d]\w*", expression)
                if name not in angles.CONSTANTS
            }
            angle = angles.evaluate(expression, names)
            if angle is not None and angle.meant is not None:
                yield lost_remainder(expression, angle)


def _arguments(call: str) -> Iterator[str]:
    """List what stands between a call's outermost parentheses."""
    depth, begin = 0, 0
    for index, character in enumerate(call):
        if character == "(":
            depth += 1
            begin = index + 1 if depth == 1 else begin
        elif character in {",", ")"} and depth == 1:
            yield call[begin:index]
            begin = index + 1
        depth -= character == ")"
