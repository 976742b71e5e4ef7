# SPDX-License-Identifier: Apache-2.0
"""An input's circuits, as far as `--dry-run` has to know them, in either of their forms.

OpenQASM 3 is read without Qiskit. QPY is Qiskit's own, and is read with the Qiskit of task_runner's Python,
if there is one. A circuit may load and still break Qiskit when it is gone through, since QPY holds what an
older or newer Qiskit could express: then it is not checked, and its reason is reported.
"""

from __future__ import annotations

import ast
import io
import struct
import warnings
import zlib
from base64 import b64decode
from math import prod
from typing import TYPE_CHECKING, Any, Final

import msgspec

from qpu_slurm.runner.qasm import Program
from qpu_slurm.tasks import validation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from msgspec import Raw

    from qpu_slurm.runner.qasm_names import Operation

_WITHOUT_QUBITS: Final = frozenset({"break_loop", "continue_loop", "store"})
"""What Qiskit puts on all qubits of a block, and does nothing to them."""

_BLOCKS: Final = frozenset({"if_else", "for_loop", "while_loop", "switch_case"})
_MOST_SETS: Final = 10_000
"""Sets of parameter values for which angles are computed."""


class Findings:
    """What is found of a circuit; complete when its operations have been gone through.

    Attributes:
        width: How many qubits it has; None if that is left open.
        registers: The classical registers' names and widths.
        problems: What makes it refused.
        warnings: What is executed, and probably not what was meant.
        unchecked: What could not be read.
    """

    def __init__(self) -> None:
        self.width: int | None = None
        self.registers: list[tuple[str, int]] = []
        self.problems: list[str] = []
        self.warnings: list[str] = []
        self.unchecked: list[str] = []

    def operations(self, circuit: Raw, values: Raw) -> Iterator[Operation]:
        """Go through a circuit's operations.

        Args:
            circuit: The circuit, as the input has it.
            values: Its parameters' values.
        """
        if bytes(memoryview(circuit)[:1]) == b'"':
            yield from self._qasm(msgspec.json.decode(circuit, type=str))
            return
        try:
            yield from self._qpy(msgspec.json.decode(circuit)["__value__"], values)
        except ImportError:
            self.unchecked.append(
                "the circuit, which is QPY: that needs Qiskit, which task_runner's Python has not"
            )
        except BaseException as error:
            # What QPY of another Qiskit raises may be anything, a panic of Qiskit's Rust included, which is
            # no Exception. The service's Qiskit may still know it.
            if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
                raise
            self.unchecked.append(f"the circuit: this Qiskit cannot read it ({_first_line(error)})")

    def _qasm(self, text: str) -> Iterator[Operation]:
        program = Program(text)
        yield from program.operations()
        self.registers = list(program.registers.items())
        self.problems += program.problems
        self.warnings += program.warnings
        if program.symbolic_rzz:
            self.unchecked.append("the angles of rzz, which depend on parameters")
        if count := sum(program.unread.values()):
            shown = 3
            what = ", ".join(list(program.unread)[:shown]) + (", …" if len(program.unread) > shown else "")
            self.unchecked.append(
                f"{count} statement{'' if count == 1 else 's'} that Qiskit's importer does not take: {what}"
            )

    def _qpy(self, value: str, values: Raw) -> Iterator[Operation]:
        from qiskit import qpy  # noqa: PLC0415 - half a second, and only if it is there

        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            circuit = qpy.load(io.BytesIO(zlib.decompress(b64decode(value))))[0]
        self.warnings += dict.fromkeys(_first_line(warning.message) for warning in caught)
        self.width = circuit.num_qubits
        self.registers = [(register.name, register.size) for register in circuit.cregs]
        symbolic: dict[Any, None] = {}
        yield from self.walk(circuit, symbolic)
        if symbolic:
            self._check_angles(circuit, list(symbolic), values)

    def walk(self, circuit: Any, symbolic: dict[Any, None] | None = None) -> Iterator[Operation]:  # noqa: ANN401 - Qiskit's
        """Go through the operations of a circuit of Qiskit's.

        Args:
            circuit: The circuit.
            symbolic: Takes the angles of rzz that depend on parameters.
        """
        yield from self._walk(circuit, list(range(circuit.num_qubits)), {} if symbolic is None else symbolic)

    def _walk(self, circuit: Any, qubits: list[int], symbolic: dict[Any, None]) -> Iterator[Operation]:  # noqa: ANN401 - Qiskit's
        """Go through a circuit of Qiskit's, or a block within one, on certain qubits."""
        for instruction in circuit.data:
            operation = instruction.operation
            name = operation.name
            acts_on = [qubits[circuit.find_bit(qubit).index] for qubit in instruction.qubits]
            blocks = getattr(operation, "blocks", ())
            if name == "rzz":
                angle = operation.params[0]
                if getattr(angle, "parameters", None):
                    symbolic[angle] = None
                elif problem := validation.rzz_problem(float(angle)):
                    self.problems.append(problem)
            yield name, () if blocks or name in _WITHOUT_QUBITS else tuple(acts_on)
            for block in blocks:
                yield from self._walk(block, acts_on, symbolic)

    def _check_angles(self, circuit: Any, angles: list[Any], values: Raw) -> None:  # noqa: ANN401 - likewise
        """Compute the angles of rzz for every set of parameter values."""
        import numpy as np  # noqa: PLC0415 - it comes with Qiskit

        given = msgspec.json.decode(values)
        if isinstance(given, dict):
            given = np.load(io.BytesIO(zlib.decompress(b64decode(given["__value__"]))), allow_pickle=False)
        rows = np.asarray(given, dtype=float).reshape(-1, max(1, circuit.num_parameters))
        if len(rows) > _MOST_SETS:
            self.unchecked.append(f"the angles of rzz: there are {len(rows)} sets of parameter values")
            return
        for angle in angles:
            places = [circuit.parameters.data.index(parameter) for parameter in angle.parameters]
            for row in rows:
                bound = angle.bind(
                    {parameter: row[place] for parameter, place in zip(angle.parameters, places, strict=True)}
                )
                if problem := validation.rzz_problem(float(bound)):
                    self.problems.append(f"{problem}; this one comes of {angle}")
                    break


def has_control_flow(operations: dict[str, int]) -> bool:
    """Whether operations are executed only if, or several times."""
    return not _BLOCKS.isdisjoint(operations)


def sets(values: Raw) -> int | None:
    """Count a pub's sets of parameter values; None if that cannot be told."""
    try:
        given = msgspec.json.decode(values)
        if isinstance(given, dict):
            if given.get("__type__") != "ndarray":
                return None
            shape = _npy_shape(zlib.decompress(b64decode(given["__value__"])))
        else:
            shape = []
            while isinstance(given, list):
                shape.append(len(given))
                given = given[0] if given else None
        return prod(shape[:-1])
    except (ValueError, KeyError, TypeError, SyntaxError, zlib.error, struct.error):
        return None


def _npy_shape(data: bytes) -> list[int]:
    """Read an array's shape from the head of NumPy's file format."""
    wide = data[6] > 1  # since version 2, the header's length has four bytes
    length = struct.unpack_from("<I" if wide else "<H", data, 8)[0]
    begin = 12 if wide else 10
    return list(ast.literal_eval(data[begin : begin + length].decode("latin1").strip())["shape"])


def _first_line(error: BaseException | str) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:200]
