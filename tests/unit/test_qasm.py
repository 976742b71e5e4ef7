# SPDX-License-Identifier: Apache-2.0
"""What is seen of an OpenQASM 3 program without Qiskit is what Qiskit wrote into it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from qiskit import QuantumCircuit, qasm3, transpile
from qiskit.circuit import Parameter
from qiskit.circuit.library import efficient_su2
from qiskit_ibm_runtime.fake_provider import FakeFez

from qpu_slurm.runner import qasm
from qpu_slurm.runner.circuits import Findings
from qpu_slurm.runner.qasm import Program
from qpu_slurm.tasks import openqasm

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qpu_slurm.runner.qasm_names import Operation

HEAD = 'OPENQASM 3.0;\ninclude "stdgates.inc";\n'


def written(circuit: QuantumCircuit) -> list[Operation]:
    """List what a flat circuit does."""
    return [
        (instruction.operation.name, tuple(circuit.find_bit(qubit).index for qubit in instruction.qubits))
        for instruction in circuit.data
    ]


def circuits() -> dict[str, QuantumCircuit]:
    ansatz = efficient_su2(4, reps=1)
    ansatz.measure_all()
    parameters = QuantumCircuit(2, 2)
    parameters.rz(2 * Parameter("a") + 1, 0)
    parameters.cx(0, 1)
    parameters.barrier()
    parameters.delay(100, 0, "ns")
    parameters.reset(1)
    parameters.measure([0, 1], [1, 0])
    return {"ansatz": ansatz, "parameters": parameters}


@pytest.mark.parametrize("name", ["ansatz", "parameters"])
def test_a_transpiled_circuit_is_seen_as_it_is(name: str) -> None:
    circuit = transpile(circuits()[name], FakeFez(), optimization_level=1, seed_transpiler=1)
    program = Program(qasm3.dumps(circuit, disable_constants=True, allow_aliasing=True))

    assert list(program.operations()) == written(circuit)
    assert not program.unread
    assert not program.problems


def test_blocks_are_looked_into() -> None:
    circuit = QuantumCircuit(2, 1)
    circuit.measure(0, 0)
    with circuit.if_test((circuit.clbits[0], 1)) as otherwise:
        circuit.x(0)
    with otherwise:
        circuit.cx(0, 1)
    with circuit.for_loop(range(3)):
        circuit.sx(1)
    with circuit.box():
        circuit.id(0)
    program = Program(qasm3.dumps(circuit))

    assert list(program.operations()) == [
        ("measure", (0,)),
        ("if_else", ()),
        ("x", (0,)),
        ("cx", (0, 1)),
        ("for_loop", ()),
        ("sx", (1,)),
        ("box", ()),
        ("id", (0,)),
    ]
    assert not program.unread


@pytest.mark.parametrize(
    ("text", "operations"),
    [
        ("x $0; // y $1;\n/* z $2;\n*/ sx $3;", [("x", (0,)), ("sx", (3,))]),
        ("rz(pi/2 + 2*(3 - 1)) $7;", [("rz", (7,))]),
        ("qubit a; qubit[3] b; cz a, b[2]; x b;", [("cz", (0, 3)), ("x", (1,)), ("x", (2,)), ("x", (3,))]),
        ("bit[2] c; c = measure $1; c[0] = measure $2;", [("measure", (q,)) for q in (1, 1, 2)]),
        ("bit[1] c; measure $4 -> c[0];", [("measure", (4,))]),
        ("gate mine(a) q, r { rz(a) q; cz q, r; } mine(1) $0, $1;", [("mine", (0, 1))]),
        ("bit[1] c; if (c == 1) x $4;", [("if_else", ()), ("x", (4,))]),
        (
            "bit[1] c; if (c == 1) x $4; else y $5; z $6;",
            [("if_else", ()), ("x", (4,)), ("y", (5,)), ("z", (6,))],
        ),
        ("for int i in {0, 1} x $1;", [("for_loop", ()), ("x", (1,))]),
        ("for uint i in [0:2] { rx(i*pi/4) $1; }", [("for_loop", ()), ("rx", (1,))]),
        ("bit[1] c; while (c[0]) if (!c[0]) x $0;", [("while_loop", ()), ("if_else", ()), ("x", (0,))]),
        ("box { h $0; box[10ns] { cz $0, $77; } }", [("box", ()), ("h", (0,)), ("box", ()), ("cz", (0, 77))]),
        ("qubit[3] q; let a = q[1:2]; x a;", [("x", (1,)), ("x", (2,))]),
        ("qubit[2] q; let a = q[1:1] ++ q[{0}]; x a[0]; x a[-1];", [("x", (1,)), ("x", (0,))]),
        ("id $0; delay[10ns] $0; delay[3dt] $0, $1;", [("id", (0,)), *[("delay", (q,)) for q in (0, 0, 1)]]),
        ("x $2; barrier; barrier $0, $1;", [("x", (2,)), ("barrier", (0, 1, 2)), ("barrier", (0, 1))]),
        ("U(1, 2, 3) $0; CX $0, $1; gphase(1);", [("u", (0,)), ("cx", (0, 1))]),
        (
            "ctrl @ z $0, $1; inv @ s $0; ctrl(2) @ x $0, $1, $2; inv @ x $0;",
            [("cz", (0, 1)), ("sdg", (0,)), ("ccx", (0, 1, 2)), ("x", (0,))],
        ),
        ("@note x\nx $0;", [("x", (0,))]),
        ("", []),
    ],
)
def test_what_is_written_by_hand(text: str, operations: list[Operation]) -> None:
    program = Program(HEAD + text)

    assert list(program.operations()) == operations
    assert not program.unread
    assert not program.problems


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("x nobody[1];", "nobody, which is no qubit"),
        ("qubit[2] q; x q[5];", "q[5], which is no qubit of the register"),
        ("qubit[2] a; qubit[3] b; cz a, b;", "cz on registers of different lengths"),
        ("cz $1, $1;", "cz on one qubit twice"),
        ("foo $0;", "gate 'foo' is not defined: define it"),
        ("gate g a { foo a; }", "gate 'foo' is not defined: define it"),
        ("rz $0;", "rz with 0 angles on 1 qubits"),
        ("bit[1] c; bit[1] c;", "c, which is declared twice"),
        ("x $0\ny $1;", "not OpenQASM 3: line 4, at 'y'"),
        ("gate rzz(a) q, r { } rzz(-0.1) $0, $1;", "rzz(-0.1): the QPU takes angles from 0 to pi/2"),
    ],
)
def test_what_nothing_would_execute(text: str, problem: str) -> None:
    program = Program(HEAD + text)
    for _ in program.operations():
        pass

    assert list(program.problems) == [problem]


def test_a_missing_include_is_a_problem_and_what_qiskit_knows_without_it_is_not() -> None:
    program = Program("OPENQASM 3.0;\nU(1, 2, 3) $0;\nx $0;\n")

    assert list(program.operations()) == [("u", (0,)), ("x", (0,))]
    assert list(program.problems) == [
        "gate 'x' is not defined: add include \"stdgates.inc\"; behind the version"
    ]


@pytest.mark.parametrize(
    "text",
    [
        "pragma something h $9;",
        "measure $0;",
        "bit[1] c; if (c != 0) x $0;",
        "int i = 3;",
        "const uint n = 3;",
        "def f(qubit q) { x q; }",
        "switch (1) { case 0 { x $0; } }",
        "rz(sin(1)) $0;",
        "array[int[8], 2] a = {1, 2};",
        "cal { x y z; }",
        'include "other.inc";',
        "stretch s; delay[s] $0;",
        "end;",
    ],
)
def test_what_qiskit_does_not_take_is_counted(text: str) -> None:
    program = Program(HEAD + text + "\nx $1;")

    assert ("x", (1,)) in list(program.operations())
    assert program.unread
    with pytest.raises(qasm3.QASM3ImporterError):
        qasm3.loads(HEAD + text)


@pytest.mark.parametrize("text", ["pow(2) @ x $0;", "negctrl @ x $0, $1;", "ctrl @ gphase(1) $0;"])
def test_a_modifier_whose_gate_qiskit_names_by_its_matrix_is_counted(text: str) -> None:
    program = Program(HEAD + text)

    assert list(program.operations()) == []
    assert sum(program.unread.values()) == 1


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        ("rz(1/2*pi) $0;", "importer drops the remainder, and the angle is 0: write '1.0/2*pi'"),
        ("rz(3/4*pi) $0;", "write '3.0/4*pi'"),
        ("rz(-(1 + 2)/2) $0;", "and the angle is -2: write '1.0*-(1+2)/2'"),
        ("box { rz(1/2) $0; }", "write '1.0/2'"),
        ("input float[64] a; rz(1/2*a) $0;", "write '1.0/2*a'"),
        ("bit m; m = measure $0;", "the bit 'm' is in no register, so the result will not have it: write"),
        ("bit[2] _c;", "the register '_c' will be 'esc__c' in the result"),
        ("bit[2] C;", "the register 'C' will be 'esc_C' in the result"),
        ("id $0;", "Qiskit's importer reads id as U(0, 0, 0)"),
    ],
)
def test_what_is_probably_not_meant(text: str, warning: str) -> None:
    program = Program(HEAD + text)
    for _ in program.operations():
        pass

    assert warning in next(iter(program.warnings))
    assert not program.unread
    if text[:2] != "id":
        glance = openqasm.Glance(HEAD + text)
        assert list(program.warnings) == glance.lost_remainders + glance.lost_bits


@pytest.mark.parametrize("angle", ["pi/2", "3*pi/4", "pi*1/2", "4/2", "1.0/2*pi", "-pi/4", "2*pi*3/4"])
def test_a_quotient_that_loses_nothing_is_no_matter(angle: str) -> None:
    program = Program(HEAD + f"rz({angle}) $0;")
    for _ in program.operations():
        pass

    assert not program.warnings
    assert not openqasm.Glance(HEAD + f"rz({angle}) $0;").lost_remainders


# Statements of every kind that Qiskit's importer takes, and some that it does not.

QUBITS = ["q[0]", "q[1]", "q[2]", "q", "r", "q[0:1]", "q[{2, 0}]", "q[-1]", "both", "both[1]"]
ANGLES = [
    "pi/2",
    "0.5",
    "1/2*pi",
    "-a",
    "a*2",
    "pi - a",
    "2*(1 + 3)/3",
    "b/2",
    "1e-3",
    "-3/2",
    "π",
    "b - 0.5",
]
CONDITIONS = ["c[0]", "!c[0]", "c == 1", "c[1] == true", "1 == c", "m", "!m", "d == 1", 'c == "01"']
ODD_QUBITS = ["q[7]", "r[0]", "nobody", "m"]
ODD_ANGLES = ["sin(1)", "i", "2**3", "b*b", "nothing"]
ODD_CONDITIONS = ["c", "c[0] == 1", "c != 1", "c[0] && c[1]", "true", "a > 1"]


def some(*choices: str, odd: Sequence[str] = ()) -> st.SearchStrategy[str]:
    """Choose, seldom something odd."""
    return st.integers(0, 12).flatmap(lambda which: st.sampled_from(odd if odd and which == 12 else choices))


def statements() -> st.SearchStrategy[str]:
    qubit, angle = some(*QUBITS, odd=ODD_QUBITS), some(*ANGLES, odd=ODD_ANGLES)
    condition = some(*CONDITIONS, odd=ODD_CONDITIONS)
    flat = st.one_of(
        st.builds(
            "{} {};".format,
            some("x", "h", "sx", "id", "own", "inv @ s", "inv @ own", odd=["nothing", "measure"]),
            qubit,
        ),
        st.builds(
            "{}({}) {};".format,
            some("rx", "rz", "p", "turn", "inv @ ry", odd=["pow(2) @ rz", "x"]),
            angle,
            qubit,
        ),
        st.builds(
            "{} {}, {};".format,
            some("cx", "cz", "ctrl @ z", "ctrl @ x", "swap", odd=["negctrl @ x", "h"]),
            qubit,
            qubit,
        ),
        st.builds("{} {}, {}, {};".format, some("ccx", "ctrl(2) @ x", "ctrl @ swap"), qubit, qubit, qubit),
        st.builds(
            "{} = measure {};".format,
            some("c[0]", "c[1]", "m", "c[-1]", "d", odd=["c", "c[0:1]", "c[2]"]),
            qubit,
        ),
        st.builds(
            "{} {};".format, some("reset", "barrier", "delay[10ns]", "delay[2dt]", odd=["delay[a]"]), qubit
        ),
        some(
            "barrier;",
            "gphase(pi);",
            odd=["int k = 1;", "c[0] = 1;", "let t = q[0:1];", "bit[2] e;", "break;"],
        ),
    )
    return st.recursive(
        flat,
        lambda inner: st.one_of(
            st.builds("box {{ {} }}".format, joined(inner)),
            st.builds("box[100ns] {{ {} }}".format, joined(inner)),
            st.builds("if ({}) {{ {} }}".format, condition, joined(inner)),
            st.builds("if ({}) {} else {}".format, condition, inner, inner),
            st.builds("while ({}) {{ {} }}".format, condition, joined(inner)),
            st.builds(
                "for int i in {} {}".format, some("[0:2]", "{1, 2}", "[0:2:4]", odd=["c", "[0:]"]), inner
            ),
        ),
        max_leaves=6,
    )


def joined(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.lists(inner, max_size=3).map(" ".join)


DECLARATIONS = """\
input float[64] a; input angle[32] b;
qubit[3] q; qubit r; let both = q[1:2];
bit[2] c; bit[1] d; bit m;
gate own w { h w; } gate turn(x0) w { rz(x0/2) w; }
"""


def imported(text: str) -> list[Operation] | None:
    """Return what Qiskit's importer makes of a program; None if it does not take it."""
    try:
        circuit = qasm3.loads(text)
    except Exception:  # noqa: BLE001 - importer, circuit and parser raise errors of many kinds
        return None
    # The importer has no id.
    return list(Findings().walk(circuit))


def test_the_declarations_of_the_next_test_are_read() -> None:
    program = Program(HEAD + DECLARATIONS)

    assert list(program.operations()) == imported(HEAD + DECLARATIONS) == []
    assert not program.unread
    assert not program.problems


@settings(max_examples=150, deadline=None)
@given(st.lists(statements(), max_size=4).map("\n".join))
def test_what_is_read_is_what_qiskit_executes_or_not_said_to_be(body: str) -> None:
    text = HEAD + DECLARATIONS + body
    program = Program(text)

    operations = list(program.operations())

    if not program.unread and not program.problems:
        assert imported(text) == [("u" if name == "id" else name, qubits) for name, qubits in operations]


def test_more_blocks_than_the_parser_reads_in_seconds_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qasm, "MOST_PARSED", 30)
    program = Program(HEAD + "box { x $0; }\nx $1;\nbox { y $2; }\ny $3;\nbox { z $4; }\nz $5;")

    assert list(program.operations()) == [
        ("box", ()),
        ("x", (0,)),
        ("x", (1,)),
        ("box", ()),
        ("y", (2,)),
        ("y", (3,)),
        ("z", (5,)),
    ]
    assert sum(program.unread.values()) == 1


@settings(deadline=None)
@given(st.text(alphabet="xz$012 ,;(){}[]@=>-/*qmeasure\n", max_size=60))
def test_no_text_is_too_much_for_it(text: str) -> None:
    for name, qubits in Program(HEAD + text).operations():
        assert name
        assert all(qubit >= 0 for qubit in qubits)
