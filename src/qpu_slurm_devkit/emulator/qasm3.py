# SPDX-License-Identifier: Apache-2.0
"""OpenQASM 3, read with Qiskit's importer. What that cannot read is blamed on the emulator."""

from __future__ import annotations

import re
from importlib import metadata
from typing import TYPE_CHECKING, Final

import openqasm3
import qiskit_qasm3_import
from openqasm3 import ast

from qpu_slurm_devkit.emulator.errors import InvalidInputError

if TYPE_CHECKING:
    from qiskit import QuantumCircuit


_UNDEFINED: Final = re.compile("is not defined|undefined symbol")
"""What the importer says of a program that names what it has not declared."""


def read(text: str) -> tuple[QuantumCircuit, list[str]]:
    """Read a program.

    Args:
        text: The program.

    Returns:
        The circuit, and its parameters' names in the order in which values are given.

    Raises:
        InvalidInputError: It is not OpenQASM 3, or the emulator's importer does not know what it says.
    """
    try:
        program = openqasm3.parse(text)
    except Exception as error:
        raise InvalidInputError(f"A circuit is not valid OpenQASM 3: {_syntax_error(error, text)}") from error
    try:
        circuit = qiskit_qasm3_import.convert(program)
    except Exception as error:
        if _UNDEFINED.search(str(error)):
            raise InvalidInputError(f"A circuit is not valid OpenQASM 3: {error}") from error
        version = metadata.version("qiskit-qasm3-import")
        raise InvalidInputError(
            "The emulator cannot read a circuit, which the service itself may take: "
            f"qiskit-qasm3-import {version} says: {error}"
        ) from error
    # The circuit sorts its parameters by name. The declarations are in the writer's order.
    declared = [
        statement.identifier.name
        for statement in program.statements
        if isinstance(statement, ast.IODeclaration) and statement.io_identifier is ast.IOKeyword.input
    ]
    used = {parameter.name for parameter in circuit.parameters}
    return circuit, [name for name in declared if name in used]


def _syntax_error(error: BaseException, text: str) -> str:
    """Say where the parser stopped: its own exception has no text, but its cause knows the token."""
    cause = error.__cause__
    tokens = (getattr(part, "offendingToken", None) for part in (cause, *getattr(cause, "args", ())))
    token = next((token for token in tokens if token is not None), None)
    if token is None:
        return str(error) or type(error).__name__
    line = text.splitlines()[token.line - 1].strip() if token.line <= len(text.splitlines()) else ""
    return f"line {token.line}, column {token.column + 1}: unexpected {token.text!r} in {line!r}"
