# SPDX-License-Identifier: Apache-2.0
"""What an OpenQASM 3 program does beyond flat statements, read with OpenQASM's reference parser.

The rules are those of Qiskit's importer, qiskit-qasm3-import 0.6: what it refuses is unread here. The body
of a block is executed where the block stands, and is counted once, as in a circuit of Qiskit's.
"""

from __future__ import annotations

import contextlib
import io
import re
from typing import TYPE_CHECKING, Any, Final

from qpu_slurm.tasks import angles
from qpu_slurm.runner.qasm import QISKIT_NAMES, Bits, Gate, Invalid, Unread

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from openqasm3 import ast

    from qpu_slurm.runner.qasm import Operation, Program

LONGEST: Final = 1 << 18
"""Characters of statements that go beyond flat ones: the parser takes a quarter of a minute for them."""

_INVERSE: Final = {
    **{name: name for name in "x y z h id cx cy cz ch swap ccx cswap".split()},
    **{name: name for name in "rx ry rz p u1 u2 u3 u cp crx cry crz cu".split()},
    "s": "sdg", "sdg": "s", "t": "tdg", "tdg": "t", "sx": "sxdg", "sxdg": "sx", "cs": "csdg", "csdg": "cs",
}  # fmt: skip
_CONTROLLED: Final = {
    **{name: f"c{name}" for name in "x y z h s sdg sx p rx ry rz swap cx u u1".split()},
}
"""How Qiskit calls a gate with another control."""

_NEGATED: Final = 2


def operations(program: Program, begin: int, end: int) -> Iterator[Operation]:
    """Go through the operations of some of a program's statements.

    Args:
        program: What was read up to there.
        begin: Where they begin in the program's text.
        end: Where they end.
    """
    if end - begin > LONGEST:
        program.unread[f"{(end - begin) >> 10} KiB of blocks and definitions"] += 1
        return
    try:
        statements = _parse(program.text, begin, end)
    except ImportError:
        program.unread["blocks and definitions, for which the package openqasm3 is missing"] += 1
        return
    except SyntaxError as error:
        program.problems[f"not OpenQASM 3: {error.msg}"] = None
        return
    except RecursionError:
        program.unread["blocks that are nested too deeply"] += 1
        return
    yield from _Reader(program).all(statements, top=True)


def _parse(text: str, begin: int, end: int) -> list[ast.Statement]:
    """Parse some of a program's statements.

    Raises:
        ImportError: The parser is not installed.
        SyntaxError: They are not OpenQASM 3.
    """
    import openqasm3  # noqa: PLC0415 - a second
    from openqasm3.parser import QASM3ParsingError  # noqa: PLC0415 - likewise

    # Lines are counted as in the program.
    part = "\n" * text.count("\n", 0, begin) + text[begin:end]
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):  # where the parser complains
            return list(openqasm3.parse(part).statements)
    except QASM3ParsingError as error:
        raise SyntaxError(_where(error) or str(error) or "a syntax error") from error
    except (ValueError, TypeError, AttributeError, IndexError) as error:
        # Of what the parser's own visitor does not expect.
        raise SyntaxError(f"{type(error).__name__}: {error}") from error


def _where(error: Exception) -> str:
    """Say where the parser gave up: it bails out with the token as the cause's argument."""
    for argument in getattr(error.__cause__, "args", ()):
        token = getattr(argument, "offendingToken", None)
        if token is not None:
            return f"line {token.line}, at {token.text!r}"
    return ""


class _Reader:
    """Reads statements, by their kind."""

    def __init__(self, program: Program) -> None:
        self._program = program
        self._global = True
        self._in_gate = False

    def all(self, statements: Iterable[ast.Statement], *, top: bool = False) -> Iterator[Operation]:
        """Read statements one after the other."""
        before = self._global
        self._global = top
        for statement in statements:
            kind = type(statement).__name__
            read: Callable[[Any], Iterator[Operation]] | None = getattr(self, f"_{kind}", None)
            try:
                if read is None:
                    raise Unread(_WORDS.get(kind, kind))
                yield from read(statement)
            except Unread as error:
                self._program.note(error)
        self._global = before

    def _block(self, name: str, statements: Iterable[ast.Statement]) -> Iterator[Operation]:
        yield name, ()
        yield from self._inside(statements)

    def _inside(self, statements: Iterable[ast.Statement]) -> Iterator[Operation]:
        outer = dict(self._program.names)
        try:
            yield from self.all(statements)
        finally:
            self._program.names = outer

    # Declarations.

    def _Include(self, node: ast.Include) -> Iterator[Operation]:  # noqa: N802 - the parser's name
        self._program.include(node.filename)
        yield from ()

    def _QubitDeclaration(self, node: ast.QubitDeclaration) -> Iterator[Operation]:  # noqa: N802
        self._only_globally("a qubit's declaration")
        self._program.declare_qubits(node.qubit.name, None if node.size is None else self._integer(node.size))
        yield from ()

    def _ClassicalDeclaration(self, node: ast.ClassicalDeclaration) -> Iterator[Operation]:  # noqa: N802
        self._only_globally("a declaration")
        kind = type(node.type).__name__
        if kind != "BitType":
            raise Unread(f"a variable of type {kind.removesuffix('Type').lower()}")
        size = node.type.size  # type: ignore[union-attr] - it is a BitType
        bits = Bits(1, loose=True) if size is None else Bits(self._integer(size))
        self._program.declare(node.identifier.name, bits)
        if node.init_expression is None:
            return
        if type(node.init_expression).__name__ != "QuantumMeasurement":
            raise Unread("bits that begin with a value")
        qubit = node.init_expression.qubit  # type: ignore[union-attr] - likewise
        yield from self._program.measure(self._qubits(qubit), bits.width)

    def _IODeclaration(self, node: ast.IODeclaration) -> Iterator[Operation]:  # noqa: N802
        self._only_globally("a declaration")
        kind = {"FloatType": "float", "AngleType": "angle"}.get(type(node.type).__name__)
        if node.io_identifier.name != "input" or kind is None:
            raise Unread("input of another type, or output")
        self._program.declare(node.identifier.name, kind)
        yield from ()

    def _AliasStatement(self, node: ast.AliasStatement) -> Iterator[Operation]:  # noqa: N802
        parts = list(_concatenated(node.value))
        whole: list[int] = []
        for part in parts:
            single, qubits = self._places(part, bits=False)
            if single:
                raise Unread("an alias of a single qubit")
            whole += qubits
        self._program.declare(node.target.name, whole)
        yield from ()

    def _QuantumGateDefinition(self, node: ast.QuantumGateDefinition) -> Iterator[Operation]:  # noqa: N802
        self._only_globally("a gate's definition")
        if self._program.names.get(node.name.name) is not None:
            raise Invalid(f"{node.name.name}, which is declared twice")
        outer = self._program.names
        inner: dict[str, Any] = {name: gate for name, gate in outer.items() if isinstance(gate, Gate)}
        inner |= {name.name: "angle" for name in node.arguments}
        inner |= {name.name: index for index, name in enumerate(node.qubits)}
        self._program.names = inner
        self._in_gate = True
        try:
            for _ in self.all(node.body):
                pass
        finally:
            self._program.names = outer
            self._in_gate = False
        self._program.declare(node.name.name, Gate(len(node.arguments), len(node.qubits)))
        yield from ()

    # Operations.

    def _QuantumGate(self, node: ast.QuantumGate) -> Iterator[Operation]:  # noqa: N802
        if node.duration is not None:
            raise Unread("a gate with a duration")
        expressions = [_text(argument) for argument in node.arguments]
        operands = [self._qubits(qubit) for qubit in node.qubits]
        if not node.modifiers:
            yield from self._program.call(node.name.name, expressions, operands)
            return
        gate = self._program.gate(node.name.name)
        self._program.evaluate(expressions)
        name = QISKIT_NAMES.get(node.name.name, node.name.name)
        own = bool(gate) and node.name.name not in _INVERSE and node.name.name not in QISKIT_NAMES
        controls = 0
        for modifier in reversed(node.modifiers):
            name, more = self._modified(name, modifier, own=own)
            controls += more
        if gate and (len(expressions), len(operands)) != (gate.angles, gate.qubits + controls):
            raise Invalid(f"{node.name.name} with {len(expressions)} angles on {len(operands)} qubits")
        yield from self._program.each(name, operands)

    def _modified(self, name: str, modifier: ast.QuantumGateModifier, *, own: bool) -> tuple[str, int]:
        """Return how Qiskit calls a gate with a modifier, and how many controls that adds."""
        kind = modifier.modifier.name
        if kind == "inv":
            if own:
                return name.removesuffix("_dg") if name.endswith("_dg") else f"{name}_dg", 0
            if name in _INVERSE:
                return _INVERSE[name], 0
        elif kind == "ctrl" and not own:
            count = 1 if modifier.argument is None else self._integer(modifier.argument)
            if count == 1 and name in _CONTROLLED:
                return "ccx" if name == "cx" else _CONTROLLED[name], 1
            if count == _NEGATED and name == "x":
                return "ccx", 2
        raise Unread(f"{kind} @ {name}")

    def _QuantumPhase(self, node: ast.QuantumPhase) -> Iterator[Operation]:  # noqa: N802
        self._program.evaluate([_text(node.argument)])
        if node.modifiers or node.qubits:
            raise Unread("gphase with modifiers")
        yield from ()

    def _QuantumMeasurementStatement(self, node: ast.QuantumMeasurementStatement) -> Iterator[Operation]:  # noqa: N802
        if node.target is None:
            raise Unread("measure without a bit for its result")
        _, bits = self._places(node.target, bits=True)
        yield from self._program.measure(self._qubits(node.measure.qubit), len(bits))

    def _QuantumReset(self, node: ast.QuantumReset) -> Iterator[Operation]:  # noqa: N802
        yield from self._program.each("reset", [self._qubits(node.qubits)])

    def _QuantumBarrier(self, node: ast.QuantumBarrier) -> Iterator[Operation]:  # noqa: N802
        qubits = [qubit for operand in node.qubits for qubit in self._qubits(operand)]  # type: ignore[arg-type] - they are no expressions of another kind
        if len(set(qubits)) < len(qubits):
            raise Invalid("barrier on one qubit twice")
        yield "barrier", tuple(qubits) if node.qubits else self._program.all_qubits()

    def _DelayInstruction(self, node: ast.DelayInstruction) -> Iterator[Operation]:  # noqa: N802
        if type(node.duration).__name__ != "DurationLiteral":
            raise Unread("a delay that is no number of seconds or dt")
        operands = [self._qubits(operand) for operand in node.qubits]  # type: ignore[arg-type] - likewise
        if not node.qubits and not (everything := self._program.all_qubits()):
            raise Invalid("a delay before there are qubits")
        for qubits in operands or [everything]:
            yield from self._program.each("delay", [qubits])

    # Blocks.

    def _Box(self, node: ast.Box) -> Iterator[Operation]:  # noqa: N802
        if node.annotations:
            raise Unread("an annotation of a box")
        if node.duration is not None and type(node.duration).__name__ != "DurationLiteral":
            raise Unread("a box's duration that is no number")
        yield from self._block("box", node.body)

    def _BranchingStatement(self, node: ast.BranchingStatement) -> Iterator[Operation]:  # noqa: N802
        self._condition(node.condition)
        yield from self._block("if_else", node.if_block)
        yield from self._inside(node.else_block)

    def _WhileLoop(self, node: ast.WhileLoop) -> Iterator[Operation]:  # noqa: N802
        self._condition(node.while_condition)
        yield from self._block("while_loop", node.block)

    def _ForInLoop(self, node: ast.ForInLoop) -> Iterator[Operation]:  # noqa: N802
        outer = dict(self._program.names)
        try:
            self._set(node.set_declaration)
            if type(node.type).__name__ not in {"IntType", "UintType"}:
                raise Unread("a loop's variable that is no integer")
        except Unread as error:
            self._program.note(error)
        self._program.names[node.identifier.name] = "int"
        yield from self._block("for_loop", node.block)
        self._program.names = outer

    def _BreakStatement(self, _: ast.BreakStatement) -> Iterator[Operation]:  # noqa: N802
        yield "break_loop", ()

    def _ContinueStatement(self, _: ast.ContinueStatement) -> Iterator[Operation]:  # noqa: N802
        yield "continue_loop", ()

    def _condition(self, node: ast.Expression) -> None:
        """Note a condition that the importer does not take; its block is read all the same."""
        try:
            self._check_condition(node)
        except Unread as error:
            self._program.note(error)

    def _check_condition(self, node: ast.Expression) -> None:
        unread = Unread(f"the condition {_text(node)[:40]}")
        operator = getattr(getattr(node, "op", None), "name", None)
        kind = type(node).__name__
        if kind == "BinaryExpression" and operator in {"==", "!="}:
            sides = [node.lhs, node.rhs]  # type: ignore[attr-defined] - it is a BinaryExpression
            if _is_literal(sides[0]):
                sides.reverse()
            bits, value = sides
            if type(bits).__name__ != "Identifier":
                single, _ = self._places(bits, bits=True)
            else:
                single = self._program.bits(bits.name).loose
            if single and type(value).__name__ == "BooleanLiteral":
                return
            whole = type(bits).__name__ == "Identifier" and not single and operator == "=="
            if whole and type(value).__name__ in {"IntegerLiteral", "BitstringLiteral"}:
                return
            raise unread
        if kind == "UnaryExpression" and operator in {"!", "~"}:
            node = node.expression  # type: ignore[attr-defined] - likewise
        if type(node).__name__ not in {"Identifier", "IndexExpression", "IndexedIdentifier"}:
            raise unread
        single, _ = self._places(node, bits=True)
        if not single:
            raise unread

    def _set(self, node: Any) -> None:  # noqa: ANN401 - a set or a range
        kind = type(node).__name__
        if kind == "RangeDefinition" and node.start is not None and node.end is not None:
            members = [node.start, node.end, *([] if node.step is None else [node.step])]
        elif kind == "DiscreteSet":
            members = node.values
        else:
            raise Unread("a loop over something else than a range or a set")
        for member in members:
            self._integer(member)

    # Names and numbers.

    def _only_globally(self, what: str) -> None:
        if not self._global:
            raise Unread(f"{what} in a block")

    def _integer(self, node: ast.Expression) -> int:
        """Compute a constant integer."""
        angle = angles.evaluate(_text(node))
        if angle is None or angle.kind != "int" or angle.value is None:
            raise Unread(f"{_text(node)[:40]}, which is no constant integer")
        return int(angle.value)

    def _qubits(self, node: ast.IndexedIdentifier | ast.Identifier) -> Sequence[int]:
        return self._places(node, bits=False)[1]

    def _places(self, node: Any, *, bits: bool) -> tuple[bool, Sequence[int]]:  # noqa: ANN401 - an operand
        """Find the qubits or bits that an operand stands for, and whether that is a single one."""
        kind = type(node).__name__
        if kind == "Identifier":
            return self._named(node.name, bits=bits)
        indices = {"IndexedIdentifier": "indices", "IndexExpression": "index"}.get(kind)
        if indices is None:
            raise Unread(f"the operand {_text(node)[:40]}")
        single, places = self._places(node.name if indices == "indices" else node.collection, bits=bits)
        for index in node.indices if indices == "indices" else [node.index]:
            if single:
                raise Unread(f"the operand {_text(node)[:40]}")
            single, places = self._indexed(places, index)
        return single, places

    def _named(self, name: str, *, bits: bool) -> tuple[bool, Sequence[int]]:
        program = self._program
        if bits:
            found = program.bits(name)
            return found.loose, range(found.width)
        if re.fullmatch(r"\$\d+", name):
            if self._in_gate:
                raise Invalid("a physical qubit in a gate's definition")
            return True, program.physical(int(name[1:]))
        return program.qubits(name)

    def _indexed(self, places: Sequence[int], index: Any) -> tuple[bool, Sequence[int]]:  # noqa: ANN401 - a set, or a list
        if type(index).__name__ == "DiscreteSet":
            return False, [self._at(places, value) for value in index.values]
        if len(index) != 1:
            raise Unread("an index of several dimensions")
        if type(index[0]).__name__ != "RangeDefinition":
            return True, [self._at(places, index[0])]
        start, end, step = (
            None if part is None else self._integer(part) for part in (index[0].start, index[0].end, index[0].step)
        )
        if end is not None:  # OpenQASM 3 counts the end in
            end = end + 1 if step is None or step > 0 else end - 1
        return False, places[start:end:step]

    def _at(self, places: Sequence[int], node: ast.Expression) -> int:
        try:
            return places[self._integer(node)]
        except IndexError as error:
            raise Invalid(f"the index {_text(node)}, which is out of range") from error


_WORDS: Final = {
    "Pragma": "pragma",
    "EndStatement": "end",
    "SwitchStatement": "switch",
    "SubroutineDefinition": "def",
    "ExternDeclaration": "extern",
    "ClassicalAssignment": "an assignment",
    "ConstantDeclaration": "const",
    "CompoundStatement": "a block of its own",
    "ExpressionStatement": "an expression of its own",
    "CalibrationStatement": "cal",
    "CalibrationDefinition": "defcal",
    "CalibrationGrammarDeclaration": "defcalgrammar",
}


def _concatenated(node: Any) -> Iterator[Any]:  # noqa: ANN401 - an expression
    """List what `++` joins."""
    if type(node).__name__ == "Concatenation":
        yield from _concatenated(node.lhs)
        yield from _concatenated(node.rhs)
    else:
        yield node


def _is_literal(node: ast.Expression) -> bool:
    return type(node).__name__ in {"BooleanLiteral", "IntegerLiteral", "BitstringLiteral"}


def _text(node: Any) -> str:  # noqa: ANN401 - an expression
    """Write an expression as the program has it."""
    import openqasm3  # noqa: PLC0415 - it was imported to parse

    written: str = openqasm3.dumps(node)
    return written
