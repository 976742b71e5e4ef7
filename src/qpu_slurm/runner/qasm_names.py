# SPDX-License-Identifier: Apache-2.0
"""What the names of an OpenQASM 3 program stand for, and what its operations do with them.

The rules are those of Qiskit's importer, qiskit-qasm3-import 0.6, since that is how the service reads such a
program: what it refuses is unread here.
"""

from __future__ import annotations

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


class UnreadError(Exception):
    """A statement is none that Qiskit's importer takes.

    Args:
        what: In a few words.
    """


class InvalidError(UnreadError):
    """A statement is no OpenQASM 3 where it stands, so nothing would execute it."""


class Names:
    """What a program's names stand for, and what was found of it up to some statement.

    Attributes:
        problems: What makes the program one that is not executed.
        warnings: What is executed, and probably not what was meant.
        unread: What was not understood, and how often.
        registers: The classical registers' widths.
        names: What each name stands for.
        included: Whether stdgates.inc is included.
        symbolic_rzz: Whether an rzz has an angle that depends on parameters.
    """

    def __init__(self) -> None:
        self.problems: dict[str, None] = {}
        self.warnings: dict[str, None] = {}
        self.unread: Counter[str] = Counter()
        self.registers: dict[str, int] = {}
        self.names: dict[str, Meaning] = {"U": Gate(3, 1)}
        self.symbolic_rzz = False
        self.included = False
        self._own_qubits = 0
        self._physical_qubits = 0

    @property
    def parameters(self) -> list[str]:
        """The parameters, in the order of their declaration."""
        return [name for name, meaning in self.names.items() if isinstance(meaning, str)]

    def note(self, error: UnreadError) -> None:
        """Write down why a statement could not be read."""
        if isinstance(error, InvalidError):
            self.problems[str(error)] = None
        else:
            self.unread[str(error)] += 1

    def declare(self, name: str, meaning: Meaning) -> None:
        """Take note of what a name stands for."""
        if name in self.names:
            raise InvalidError(f"{name}, which is declared twice")
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
            raise UnreadError("qubits of its own beside physical ones")
        first = self._own_qubits
        self.declare(name, first if count is None else range(first, first + count))
        self._own_qubits += 1 if count is None else count

    def include(self, file: str) -> None:
        """Take note of an include."""
        if file != STDGATES or self.included:
            raise UnreadError(f'include "{file}"')
        self.included = True
        for name, size in STANDARD_GATES.items():
            self.declare(name, Gate(*size))

    def physical(self, qubit: int) -> Sequence[int]:
        """Return a qubit of the QPU's."""
        if self._own_qubits:
            raise UnreadError("physical qubits beside its own")
        self._physical_qubits = max(self._physical_qubits, qubit + 1)
        return range(qubit, qubit + 1)

    def all_qubits(self) -> tuple[int, ...]:
        """Return every qubit that there is up to here."""
        return tuple(range(self._own_qubits or self._physical_qubits))

    def bits(self, name: str) -> Bits:
        """Find classical bits."""
        meaning = self.names.get(name)
        if not isinstance(meaning, Bits):
            raise InvalidError(f"{name}, which is not declared as bits")
        return meaning

    def qubits(self, name: str) -> tuple[bool, Sequence[int]]:
        """Find the qubits of a name, and whether it is a single one."""
        meaning = self.names.get(name)
        if isinstance(meaning, int):
            return True, [meaning]
        if isinstance(meaning, range | list):
            return False, meaning
        raise InvalidError(f"{name}, which is no qubit")

    def call(
        self, name: str, expressions: Sequence[str], operands: Sequence[Sequence[int]]
    ) -> Iterator[Operation]:
        """Call a gate; an operand of several qubits stands for each of them in turn."""
        gate = self.gate(name)
        values = self.evaluate(expressions)
        if gate and (len(expressions), len(operands)) != gate:
            raise InvalidError(f"{name} with {len(expressions)} angles on {len(operands)} qubits")
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
            raise InvalidError(f"{name}, which is no gate")
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
                raise UnreadError(f"the angle {expression.strip()[:40]}")
            if angle.meant is not None:
                self.warnings[openqasm.lost_remainder(expression, angle)] = None
            values.append(angle)
        return values

    def each(self, name: str, operands: Sequence[Sequence[int]]) -> Iterator[Operation]:
        """Say what an operation on operands of several qubits does."""
        lengths = {len(operand) for operand in operands} - {1}
        if len(lengths) > 1:
            raise InvalidError(f"{name} on registers of different lengths")
        for index in range(max(lengths, default=1)):
            qubits = tuple(operand[index if len(operand) > 1 else 0] for operand in operands)
            if len(set(qubits)) < len(qubits):
                raise InvalidError(f"{name} on one qubit twice")
            yield name, qubits

    def measure(self, qubits: Sequence[int], width: int) -> Iterator[Operation]:
        """Say what a measurement into so many bits does."""
        if len(qubits) == 1 < width:
            qubits = [qubits[0]] * width
        if len(qubits) != width:
            raise InvalidError("measure of a register into one of another length")
        for qubit in qubits:
            yield "measure", (qubit,)

    def _check_rzz(self, angle: angles.Angle) -> None:
        if angle.value is None:
            self.symbolic_rzz = True
        elif problem := validation.rzz_problem(angle.value):
            self.problems[problem] = None
