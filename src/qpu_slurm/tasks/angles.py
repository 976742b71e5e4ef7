# SPDX-License-Identifier: Apache-2.0
"""The value of an OpenQASM 3 angle, computed as Qiskit's importer computes it.

The importer divides two integers as integers: `1/2*pi` is 0. OpenQASM 3 says the same of its integers, and
most writers of such an angle mean a half. So an angle carries what it should have been written as.
"""

from __future__ import annotations

import ast
import math
import re
from functools import lru_cache
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

Kind = Literal["int", "float", "angle"]
"""The types of OpenQASM 3 that an angle is computed of."""

CONSTANTS: Final = {
    "pi": math.pi,
    "π": math.pi,
    "tau": math.tau,
    "τ": math.tau,
    "euler": math.e,
    "ℇ": math.e,
}
"""The language's own constants."""

_CHARACTERS: Final = re.compile(r"[\w\s.+\-*/()πτℇ]+")
_LONGEST: Final = 1000


class Angle(NamedTuple):
    """An angle.

    Attributes:
        kind: Its type.
        value: In radians; None if it depends on a parameter.
        meant: What was probably meant, if a quotient of integers in it has lost its remainder: the whole
            expression as it should be written.
    """

    kind: Kind
    value: float | None
    meant: str | None = None


class _UnsupportedError(Exception):
    """The importer does not compute such an expression."""


def evaluate(text: str, parameters: Mapping[str, Kind] | None = None) -> Angle | None:
    """Compute an angle.

    Args:
        text: The expression, as the program has it.
        parameters: The types of the program's parameters.

    Returns:
        The angle; None if Qiskit's importer does not compute it.
    """
    if not parameters:
        return _constant(text)
    return _evaluate(text, parameters)


@lru_cache(maxsize=4096)
def _constant(text: str) -> Angle | None:
    return _evaluate(text, {})


def _evaluate(text: str, parameters: Mapping[str, Kind]) -> Angle | None:
    text = " ".join(text.split())
    # Within these characters, an OpenQASM 3 expression reads as one of Python's, or not at all.
    if len(text) > _LONGEST or not _CHARACTERS.fullmatch(text):
        return None
    try:
        tree = ast.parse(text, mode="eval").body
        evaluator = _Evaluator(parameters)
        kind, value, _ = evaluator.of(tree)
    except (_UnsupportedError, SyntaxError, ValueError, ArithmeticError, RecursionError, MemoryError):
        return None
    meant = None
    if evaluator.lossy:
        for quotient in evaluator.lossy:
            quotient.left = _as_float(quotient.left)
        meant = ast.unparse(tree).replace(" ", "")
    return Angle(kind, value, meant)


def _as_float(numerator: ast.expr) -> ast.expr:
    """Rewrite a quotient's numerator so that it is no integer."""
    if isinstance(numerator, ast.Constant) and isinstance(numerator.value, int):
        return ast.Constant(float(numerator.value))
    return ast.BinOp(ast.Constant(1.0), ast.Mult(), numerator)


class _Evaluator:
    """Computes an expression, and collects the quotients of integers that lose a remainder."""

    def __init__(self, parameters: Mapping[str, Kind]) -> None:
        self._parameters = parameters
        self.lossy: list[ast.BinOp] = []

    def of(self, node: ast.expr) -> tuple[Kind, float | None, bool]:
        """Return the type, the value, and whether it is a constant."""
        match node:
            case ast.Constant(value=bool()):
                raise _UnsupportedError
            case ast.Constant(value=int() as number):
                return "int", number, True
            case ast.Constant(value=float() as number):
                return "float", number, True
            case ast.Name(id=name) if name in self._parameters:
                return self._parameters[name], None, False
            case ast.Name(id=name) if name in CONSTANTS:
                return "float", CONSTANTS[name], True
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                kind, value, constant = self.of(operand)
                return kind, None if value is None else -value, constant
            case ast.BinOp():
                return self._binary(node)
        raise _UnsupportedError

    def _binary(self, node: ast.BinOp) -> tuple[Kind, float | None, bool]:
        left_kind, left, left_constant = self.of(node.left)
        right_kind, right, right_constant = self.of(node.right)
        constant = left_constant and right_constant
        kind = _joined(left_kind, right_kind, node.op)
        if isinstance(node.op, ast.Div) and kind == "int" and left is not None and right is not None:
            if left % right:
                self.lossy.append(node)
            return kind, left // right, constant
        if left is None or right is None:
            return kind, None, constant
        match node.op:
            case ast.Add():
                return kind, left + right, constant
            case ast.Sub():
                return kind, left - right, constant
            case ast.Mult():
                return kind, left * right, constant
        return kind, left / right, constant


def _joined(left: Kind, right: Kind, operator: ast.operator) -> Kind:
    """Return the type of an operation's result, by the importer's rules."""
    numbers = "angle" not in (left, right)
    match operator:
        case ast.Add() | ast.Sub():
            allowed = numbers or "int" not in (left, right)
        case ast.Mult():
            allowed = numbers or left != right
        case ast.Div():
            allowed = numbers or left == "angle"
            if left == right == "angle":
                return "int"
        case _:
            allowed = False
    if not allowed:
        raise _UnsupportedError
    if not numbers:
        return "angle"
    return "int" if left == right == "int" else "float"
