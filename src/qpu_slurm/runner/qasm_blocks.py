# SPDX-License-Identifier: Apache-2.0
"""What an OpenQASM 3 program does beyond flat statements, read with OpenQASM's reference parser.

The rules are those of Qiskit's importer, qiskit-qasm3-import 0.6: what it refuses is unread here. The body
of a block is executed where the block stands, and is counted once, as in a circuit of Qiskit's.
"""

from __future__ import annotations

import contextlib
import io
from typing import TYPE_CHECKING, Any, Final

import openqasm3
from openqasm3 import ast
from openqasm3.parser import QASM3ParsingError

from qpu_slurm.runner.qasm_names import QISKIT_NAMES, Bits, Gate, InvalidError, UnreadError
from qpu_slurm.runner.qasm_operands import Operands, text_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from qpu_slurm.runner.qasm_names import Names, Operation

_SAME: Final = (
    "x y z h id cx cy cz ch swap ccx cswap"  # noqa: SIM905 - a table of words
    " rx ry rz p u1 u2 u3 u cp crx cry crz cu".split()
)
_PAIRS: Final = {"s": "sdg", "t": "tdg", "sx": "sxdg", "cs": "csdg"}
_INVERSE: Final = {name: name for name in _SAME} | _PAIRS | {other: name for name, other in _PAIRS.items()}
"""How Qiskit calls a gate's inverse."""

_CONTROLLED: Final = {
    name: f"c{name}"
    for name in ["x", "y", "z", "h", "s", "sdg", "sx", "p", "rx", "ry", "rz", "swap", "u", "u1"]
} | {"cx": "ccx"}
"""How Qiskit calls a gate with another control."""

_INTEGERS: Final = (ast.IntegerLiteral, ast.BitstringLiteral)
_LITERALS: Final = (*_INTEGERS, ast.BooleanLiteral)


def operations(program: Names, text: str, begin: int, end: int) -> Iterator[Operation]:
    """Go through the operations of some of a program's statements.

    Args:
        program: What was read up to there.
        text: The program.
        begin: Where they begin in it.
        end: Where they end.
    """
    try:
        statements = _parse(text, begin, end)
    except SyntaxError as error:
        program.problems[f"not OpenQASM 3: {error.msg}"] = None
        return
    except RecursionError:
        program.unread["blocks that are nested too deeply"] += 1
        return
    yield from _Reader(program).all(statements, top=True)


def _parse(text: str, begin: int, end: int) -> list[ast.Statement | ast.Pragma]:
    """Parse some of a program's statements.

    Raises:
        SyntaxError: They are not OpenQASM 3.
    """
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

    def __init__(self, program: Names) -> None:
        self._program = program
        self._global = True
        self._operands = Operands(program)

    def all(
        self, statements: Iterable[ast.Statement | ast.Pragma], *, top: bool = False
    ) -> Iterator[Operation]:
        """Read statements one after the other."""
        before = self._global
        self._global = top
        for statement in statements:
            try:
                yield from self._one(statement)
            except UnreadError as error:
                self._program.note(error)
        self._global = before

    def _one(self, statement: ast.Statement | ast.Pragma) -> Iterator[Operation]:
        kind = type(statement)
        read = _READERS.get(kind)
        if read is None:
            raise UnreadError(_WORDS.get(kind, kind.__name__))
        yield from read(self, statement)

    def _block(self, name: str, statements: Iterable[ast.Statement | ast.Pragma]) -> Iterator[Operation]:
        yield name, ()
        yield from self._inside(statements)

    def _inside(self, statements: Iterable[ast.Statement | ast.Pragma]) -> Iterator[Operation]:
        outer = dict(self._program.names)
        try:
            yield from self.all(statements)
        finally:
            self._program.names = outer

    # Declarations.

    def include(self, node: ast.Include) -> Iterator[Operation]:
        self._program.include(node.filename)
        yield from ()

    def qubit_declaration(self, node: ast.QubitDeclaration) -> Iterator[Operation]:
        self._only_globally("a qubit's declaration")
        self._program.declare_qubits(
            node.qubit.name, None if node.size is None else self._operands.integer(node.size)
        )
        yield from ()

    def bit_declaration(self, node: ast.ClassicalDeclaration) -> Iterator[Operation]:
        self._only_globally("a declaration")
        if not isinstance(node.type, ast.BitType):
            raise UnreadError(f"a variable of type {type(node.type).__name__.removesuffix('Type').lower()}")
        size = node.type.size
        bits = Bits(1, loose=True) if size is None else Bits(self._operands.integer(size))
        self._program.declare(node.identifier.name, bits)
        if node.init_expression is None:
            return
        if not isinstance(node.init_expression, ast.QuantumMeasurement):
            raise UnreadError("bits that begin with a value")
        yield from self._program.measure(self._operands.qubits(node.init_expression.qubit), bits.width)

    def input_declaration(self, node: ast.IODeclaration) -> Iterator[Operation]:
        self._only_globally("a declaration")
        if node.io_identifier is not ast.IOKeyword.input or not isinstance(
            node.type, ast.FloatType | ast.AngleType
        ):
            raise UnreadError("input of another type, or output")
        self._program.declare(
            node.identifier.name, "float" if isinstance(node.type, ast.FloatType) else "angle"
        )
        yield from ()

    def alias(self, node: ast.AliasStatement) -> Iterator[Operation]:
        parts = list(_concatenated(node.value))
        whole: list[int] = []
        for part in parts:
            single, qubits = self._operands.places(part, bits=False)
            if single:
                raise UnreadError("an alias of a single qubit")
            whole += qubits
        self._program.declare(node.target.name, whole)
        yield from ()

    def gate_definition(self, node: ast.QuantumGateDefinition) -> Iterator[Operation]:
        self._only_globally("a gate's definition")
        if self._program.names.get(node.name.name) is not None:
            raise InvalidError(f"{node.name.name}, which is declared twice")
        outer = self._program.names
        inner: dict[str, Any] = {name: gate for name, gate in outer.items() if isinstance(gate, Gate)}
        inner |= {name.name: "angle" for name in node.arguments}
        inner |= {name.name: index for index, name in enumerate(node.qubits)}
        self._program.names = inner
        self._operands.in_gate = True
        try:
            for _ in self.all(node.body):
                pass
        finally:
            self._program.names = outer
            self._operands.in_gate = False
        self._program.declare(node.name.name, Gate(len(node.arguments), len(node.qubits)))
        yield from ()

    # Operations.

    def gate(self, node: ast.QuantumGate) -> Iterator[Operation]:
        if node.duration is not None:
            raise UnreadError("a gate with a duration")
        expressions = [text_of(argument) for argument in node.arguments]
        operands = [self._operands.qubits(qubit) for qubit in node.qubits]
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
            raise InvalidError(f"{node.name.name} with {len(expressions)} angles on {len(operands)} qubits")
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
            count = 1 if modifier.argument is None else self._operands.integer(modifier.argument)
            if count == 1 and name in _CONTROLLED:
                return _CONTROLLED[name], 1
            if (name, count) == ("x", 2):
                return "ccx", 2
        raise UnreadError(f"{kind} @ {name}")

    def phase(self, node: ast.QuantumPhase) -> Iterator[Operation]:
        self._program.evaluate([text_of(node.argument)])
        if node.modifiers or node.qubits:
            raise UnreadError("gphase with modifiers")
        yield from ()

    def measurement(self, node: ast.QuantumMeasurementStatement) -> Iterator[Operation]:
        if node.target is None:
            raise UnreadError("measure without a bit for its result")
        _, bits = self._operands.places(node.target, bits=True)
        yield from self._program.measure(self._operands.qubits(node.measure.qubit), len(bits))

    def reset(self, node: ast.QuantumReset) -> Iterator[Operation]:
        yield from self._program.each("reset", [self._operands.qubits(node.qubits)])

    def barrier(self, node: ast.QuantumBarrier) -> Iterator[Operation]:
        qubits = [qubit for operand in node.qubits for qubit in self._operands.qubits(operand)]
        if len(set(qubits)) < len(qubits):
            raise InvalidError("barrier on one qubit twice")
        yield "barrier", tuple(qubits) if node.qubits else self._program.all_qubits()

    def delay(self, node: ast.DelayInstruction) -> Iterator[Operation]:
        if not isinstance(node.duration, ast.DurationLiteral):
            raise UnreadError("a delay that is no number of seconds or dt")
        operands = [self._operands.qubits(operand) for operand in node.qubits]
        if not node.qubits and not (everything := self._program.all_qubits()):
            raise InvalidError("a delay before there are qubits")
        for qubits in operands or [everything]:
            yield from self._program.each("delay", [qubits])

    # Blocks.

    def box(self, node: ast.Box) -> Iterator[Operation]:
        if node.annotations:
            raise UnreadError("an annotation of a box")
        if node.duration is not None and not isinstance(node.duration, ast.DurationLiteral):
            raise UnreadError("a box's duration that is no number")
        yield from self._block("box", node.body)

    def branch(self, node: ast.BranchingStatement) -> Iterator[Operation]:
        self._condition(node.condition)
        yield from self._block("if_else", node.if_block)
        yield from self._inside(node.else_block)

    def while_loop(self, node: ast.WhileLoop) -> Iterator[Operation]:
        self._condition(node.while_condition)
        yield from self._block("while_loop", node.block)

    def for_loop(self, node: ast.ForInLoop) -> Iterator[Operation]:
        outer = dict(self._program.names)
        if not isinstance(node.type, ast.IntType | ast.UintType):
            self._program.note(UnreadError("a loop's variable that is no integer"))
        try:
            self._set(node.set_declaration)
        except UnreadError as error:
            self._program.note(error)
        self._program.names[node.identifier.name] = "int"
        yield from self._block("for_loop", node.block)
        self._program.names = outer

    def break_loop(self, _: ast.BreakStatement) -> Iterator[Operation]:
        yield "break_loop", ()

    def continue_loop(self, _: ast.ContinueStatement) -> Iterator[Operation]:
        yield "continue_loop", ()

    def _condition(self, node: ast.Expression) -> None:
        """Note a condition that the importer does not take; its block is read all the same."""
        try:
            self._check_condition(node)
        except UnreadError as error:
            self._program.note(error)

    def _check_condition(self, node: ast.Expression) -> None:
        unread = UnreadError(f"the condition {text_of(node)[:40]}")
        if isinstance(node, ast.BinaryExpression):
            bits, value = (node.rhs, node.lhs) if isinstance(node.lhs, _LITERALS) else (node.lhs, node.rhs)
            single, _ = self._operands.places(bits, bits=True)
            if single:
                taken = isinstance(value, ast.BooleanLiteral) and node.op.name in {"==", "!="}
            else:
                # Of a part of a register, the importer makes another register.
                taken = (
                    isinstance(bits, ast.Identifier) and isinstance(value, _INTEGERS) and node.op.name == "=="
                )
            if not taken:
                raise unread
            return
        if isinstance(node, ast.UnaryExpression) and node.op.name in {"!", "~"}:
            node = node.expression
        if not isinstance(node, ast.Identifier | ast.IndexExpression):
            raise unread
        single, _ = self._operands.places(node, bits=True)
        if not single:
            raise unread

    def _set(self, node: ast.Expression | ast.RangeDefinition | ast.DiscreteSet) -> None:
        """Check what a loop goes over."""
        if isinstance(node, ast.RangeDefinition) and node.start is not None and node.end is not None:
            members = [node.start, node.end, *([] if node.step is None else [node.step])]
        elif isinstance(node, ast.DiscreteSet):
            members = node.values
        else:
            raise UnreadError("a loop over something else than a range or a set")
        for member in members:
            self._operands.integer(member)

    def _only_globally(self, what: str) -> None:
        if not self._global:
            raise UnreadError(f"{what} in a block")


def _concatenated(node: ast.Expression | ast.Concatenation) -> Iterator[ast.Expression]:
    """List what `++` joins."""
    if isinstance(node, ast.Concatenation):
        yield from _concatenated(node.lhs)
        yield from _concatenated(node.rhs)
    else:
        yield node


_READERS: Final[dict[type[ast.QASMNode], Callable[[_Reader, Any], Iterator[Operation]]]] = {
    ast.Include: _Reader.include,
    ast.QubitDeclaration: _Reader.qubit_declaration,
    ast.ClassicalDeclaration: _Reader.bit_declaration,
    ast.IODeclaration: _Reader.input_declaration,
    ast.AliasStatement: _Reader.alias,
    ast.QuantumGateDefinition: _Reader.gate_definition,
    ast.QuantumGate: _Reader.gate,
    ast.QuantumPhase: _Reader.phase,
    ast.QuantumMeasurementStatement: _Reader.measurement,
    ast.QuantumReset: _Reader.reset,
    ast.QuantumBarrier: _Reader.barrier,
    ast.DelayInstruction: _Reader.delay,
    ast.Box: _Reader.box,
    ast.BranchingStatement: _Reader.branch,
    ast.WhileLoop: _Reader.while_loop,
    ast.ForInLoop: _Reader.for_loop,
    ast.BreakStatement: _Reader.break_loop,
    ast.ContinueStatement: _Reader.continue_loop,
}
"""How each kind of statement is read."""

_WORDS: Final[dict[type[ast.QASMNode], str]] = {
    ast.Pragma: "pragma",
    ast.EndStatement: "end",
    ast.SwitchStatement: "switch",
    ast.SubroutineDefinition: "def",
    ast.ExternDeclaration: "extern",
    ast.ClassicalAssignment: "an assignment",
    ast.ConstantDeclaration: "const",
    ast.CompoundStatement: "a block of its own",
    ast.ExpressionStatement: "an expression of its own",
    ast.CalibrationStatement: "cal",
    ast.CalibrationDefinition: "defcal",
    ast.CalibrationGrammarDeclaration: "defcalgrammar",
}
"""What to call the statements that are not."""
