# SPDX-License-Identifier: Apache-2.0
"""The qubits, bits and constants that the operands of OpenQASM 3 statements stand for."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import openqasm3
from openqasm3 import ast

from qpu_slurm.runner.qasm_names import InvalidError, UnreadError
from qpu_slurm.tasks import angles

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qpu_slurm.runner.qasm_names import Names


class Operands:
    """Finds what operands stand for.

    Args:
        program: What was declared up to there.

    Attributes:
        in_gate: Whether they stand in a gate's definition, which may name no physical qubit.
    """

    def __init__(self, program: Names) -> None:
        self._program = program
        self.in_gate = False

    def integer(self, node: ast.Expression) -> int:
        """Compute a constant integer."""
        angle = angles.evaluate(text_of(node))
        if angle is None or angle.kind != "int" or angle.value is None:
            raise UnreadError(f"{text_of(node)[:40]}, which is no constant integer")
        return int(angle.value)

    def qubits(self, node: ast.Expression | ast.IndexedIdentifier) -> Sequence[int]:
        """Find the qubits that an operand stands for."""
        return self.places(node, bits=False)[1]

    def places(self, node: ast.QASMNode, *, bits: bool) -> tuple[bool, Sequence[int]]:
        """Find the qubits or bits that an operand stands for, and whether that is a single one."""
        match node:
            case ast.Identifier():
                return self._named(node.name, bits=bits)
            case ast.IndexedIdentifier():
                collection: ast.QASMNode = node.name
                indices = node.indices
            case ast.IndexExpression():
                collection, indices = node.collection, [node.index]
            case _:
                raise UnreadError(f"the operand {text_of(node)[:40]}")
        single, places = self.places(collection, bits=bits)
        for index in indices:
            if single:
                raise InvalidError(f"{text_of(node)}, which has an index too many")
            single, places = self._indexed(places, index)
        return single, places

    def _named(self, name: str, *, bits: bool) -> tuple[bool, Sequence[int]]:
        program = self._program
        if bits:
            found = program.bits(name)
            return found.loose, range(found.width)
        if re.fullmatch(r"\$\d+", name):
            if self.in_gate:
                raise InvalidError("a physical qubit in a gate's definition")
            return True, program.physical(int(name[1:]))
        return program.qubits(name)

    def _indexed(self, places: Sequence[int], index: ast.IndexElement) -> tuple[bool, Sequence[int]]:
        if isinstance(index, ast.DiscreteSet):
            return False, [self._at(places, value) for value in index.values]
        if len(index) != 1:
            raise UnreadError("an index of several dimensions")
        [only] = index
        if not isinstance(only, ast.RangeDefinition):
            return True, [self._at(places, only)]
        start, end, step = (
            None if part is None else self.integer(part) for part in (only.start, only.end, only.step)
        )
        if end is not None:  # OpenQASM 3 counts the end in
            end = end + 1 if step is None or step > 0 else end - 1
        return False, places[start:end:step]

    def _at(self, places: Sequence[int], node: ast.Expression) -> int:
        try:
            return places[self.integer(node)]
        except IndexError as error:
            raise InvalidError(f"the index {text_of(node)}, which is out of range") from error


def text_of(node: ast.QASMNode) -> str:
    """Write an expression as the program has it."""
    written: str = openqasm3.dumps(node)
    return written
