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
    from collections.abc import Iterator

_COMMENT: Final = re.compile(r'("[^"\n]*")|//[^\n]*|/\*.*?\*/', re.DOTALL)
_REGISTER: Final = re.compile(
    r"(?:^|(?<=[;{}]))\s*(?:output\s+)?(?:bit\s*\[\s*(?P<width>\d+)\s*\]\s*(?P<name>[^\W\d]\w*)\s*(?:;|=)"
    r"|creg\s+(?P<old>[^\W\d]\w*)\s*\[\s*(?P<size>\d+)\s*\]\s*;"
    r"|bit\s+(?P<loose>[^\W\d]\w*)\s*(?:;|=))"
)
_CONTROL_FLOW: Final = re.compile(r"(?:^|(?<=[;{}]))\s*(?:if|for|while|switch)\b")
_QUOTIENT: Final = re.compile(r"\(([^();]*\d\s*/\s*\d[^();]*|[^;{}]*\)\s*/\s*\d[^;{}]*)\)\s*[$A-Za-z_]")
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
        "with "
        "a small letter and goes on with letters of a to z, digits and underscores"
    )


def lost_remainder(expression: str, angle: angles.Angle) -> str:
    """Say that an angle is not what it looks like."""
    written = "".join(expression.split())
    becomes = "" if angle.value is None else f", and the angle is {angle.value:g}"
    return (
        f"{written!r} divides integers, so Qiskit's importer drops the remainder{becomes}: "
        f"write {angle.meant!r}"
    )


def _lost_remainders(text: str) -> Iterator[str]:
    for match in _QUOTIENT.finditer(text):
        for expression in match[1].split(","):
            # A name that is unknown here is a parameter, of a type that quotients of integers do not meet.
            names: dict[str, angles.Kind] = {
                name: "float"
                for name in re.findall(r"[^\W\d]\w*", expression)
                if name not in angles.CONSTANTS
            }
            angle = angles.evaluate(expression, names)
            if angle is not None and angle.meant is not None:
                yield lost_remainder(expression, angle)
