# SPDX-License-Identifier: Apache-2.0
"""What the newest client refuses is refused when an input is written, and little else."""

from __future__ import annotations

import warnings
from math import inf, nan, pi
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import qiskit_ibm_runtime
from hypothesis import given, settings
from hypothesis import strategies as st
from qiskit import ClassicalRegister, QuantumCircuit, QuantumRegister
from qiskit.circuit import Parameter
from qiskit.primitives import DataBin
from qiskit.primitives.containers.estimator_pub import EstimatorPub
from qiskit.primitives.containers.sampler_pub import SamplerPub
from qiskit.quantum_info import SparsePauliOp
from qiskit_ibm_runtime.options import EstimatorOptions, SamplerOptions
from qiskit_ibm_runtime.options_models.estimator import EstimatorOptions as NewEstimatorOptions
from qiskit_ibm_runtime.options_models.sampler import SamplerOptions as NewSamplerOptions
from qiskit_ibm_runtime.utils import validations

from qpu_slurm.api.inputs import estimator_document, pieces, sampler_document
from qpu_slurm.errors import PayloadError
from qpu_slurm.tasks import validation

if TYPE_CHECKING:
    from collections.abc import Callable

NAMES = ["c", "meas", "keys", "self", "class", "1st", "a b", "None", "values", "match", "é", "shape", "_data"]
ANGLES = [0.0, 0.3, pi / 2, pi / 2 + 1e-11, pi / 2 + 1e-9, -0.1, 2.0, "a", "2*a", "a + b"]
VALUES = [0.0, 0.2, 0.9, pi / 2, -0.2, 3.0]


@st.composite
def circuits(draw: st.DrawFn) -> QuantumCircuit:
    """Make a circuit that has something of what the client looks at."""
    registers = {
        name: ClassicalRegister(draw(st.sampled_from([1, 2, 1, 2, 0])), name)
        for name in draw(st.lists(st.sampled_from(NAMES), max_size=2, unique=True))
    }
    circuit = QuantumCircuit(QuantumRegister(2), *registers.values())
    symbols = {"a": Parameter("a"), "b": Parameter("b")}
    for angle in draw(st.lists(st.sampled_from(ANGLES), max_size=2)):
        terms = {"2*a": 2 * symbols["a"], "a + b": symbols["a"] + symbols["b"], "a": symbols["a"]}
        circuit.rzz(terms.get(str(angle), angle), 0, 1)
    if circuit.clbits and draw(st.booleans()):
        with circuit.if_test((circuit.clbits[0], 1)):
            circuit.x(0)
            if draw(st.booleans()):
                circuit.rzz(draw(st.sampled_from([0.1, 2.0])), 0, 1)
    return circuit


@st.composite
def values_for(draw: st.DrawFn, circuit: QuantumCircuit) -> np.ndarray[Any, Any]:
    shape = draw(st.sampled_from([(), (2,), (2, 2)]))
    count = int(np.prod([*shape, circuit.num_parameters]))
    drawn = draw(st.lists(st.sampled_from(VALUES), min_size=count, max_size=count))
    return np.array(drawn, dtype=float).reshape((*shape, circuit.num_parameters))


class Decoupled:
    """Options of the client's, as its validation looks at them."""

    def __init__(self, enable: bool) -> None:  # noqa: FBT001 - what it is about
        self.dynamical_decoupling = type("Of", (), {"enable": enable})()


def refused(write: Callable[[], object], *errors: type[Exception]) -> str | None:
    """Return the reason why something is refused; None if it is not."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the client's, that a circuit has no register
        try:
            write()
        except errors as error:
            return str(error)
    return None


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_samplers_pub_is_refused_as_the_client_does(data: st.DataObject) -> None:
    circuit = data.draw(circuits())
    pub = (circuit, data.draw(values_for(circuit)), 10)
    decoupling = data.draw(st.booleans())

    def client() -> None:
        coerced = [SamplerPub.coerce(pub)]
        validations.validate_classical_registers(coerced)
        validations.validate_no_dd_with_dynamic_circuits([circuit], Decoupled(decoupling))
        validations.validate_rzz_pubs(coerced)

    theirs = refused(client, qiskit_ibm_runtime.exceptions.IBMInputValueError)
    options = {"dynamical_decoupling": {"enable": decoupling}}
    ours = refused(lambda: sampler_document([pub], options=options), PayloadError)

    unheld = any(register.name in validation.UNHELD_NAMES for register in circuit.cregs)
    assert (ours is not None) == (theirs is not None or unheld), (ours, theirs)


OBSERVABLES: list[Any] = ["ZZ", "XI", "0Z", "+I", [], [["ZZ"], ["IX"]], [[]], {"ZZ": 2.0}, ["ZZ", "1I"]]


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_an_estimators_pub_is_refused_as_the_client_does(data: st.DataObject) -> None:
    circuit = data.draw(circuits())
    observables = data.draw(st.sampled_from(OBSERVABLES))
    precision = data.draw(st.sampled_from([None, 0.1, 0, 1]))
    values = np.zeros(circuit.num_parameters)
    pub = (circuit, observables, values, precision)
    decoupling = data.draw(st.booleans())

    def client() -> None:
        coerced = [EstimatorPub.coerce(pub)]
        validations.validate_estimator_pubs(coerced)
        validations.validate_no_dd_with_dynamic_circuits([circuit], Decoupled(decoupling))
        validations.validate_rzz_pubs(coerced)

    theirs = refused(client, qiskit_ibm_runtime.exceptions.IBMInputValueError)
    options = {"dynamical_decoupling": {"enable": decoupling}}
    ours = refused(lambda: estimator_document([pub], options=options), PayloadError)

    # The client takes an empty array if it has another axis.
    assert (ours is not None) == (theirs is not None or observables == [[]]), (ours, theirs)


def test_the_client_is_the_one_whose_rules_these_are() -> None:
    assert (
        f"qiskit-ibm-runtime {'.'.join(qiskit_ibm_runtime.__version__.split('.')[:2])}" == validation.CLIENT
    )


@pytest.mark.parametrize("name", sorted({*NAMES, *validation.UNHELD_NAMES, *DataBin._RESTRICTED_NAMES}))  # noqa: SLF001 - where Qiskit says it
def test_a_name_that_is_taken_is_one_that_a_result_can_hold(name: str) -> None:
    bits = object()
    try:
        held = getattr(DataBin(**{name: bits}), name, None) is bits
    except (ValueError, TypeError):
        held = False
    if name == "shape":
        held = False  # DataBin takes it for its own

    taken = validation.register_problem(name, 1) is None

    assert taken <= held
    assert (not taken) == (not held or not name.isidentifier() or name in {"class", "None"})


def measured(*angles: object) -> QuantumCircuit:
    circuit = QuantumCircuit(1, 1)
    for angle in angles:
        circuit.rx(angle, 0)
    circuit.measure(0, 0)
    return circuit


A = Parameter("a")
UNKNOWN: Any = "qasm2"


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (lambda: sampler_document([]), "There are no pubs"),
        (lambda: estimator_document([]), "There are no pubs"),
        (lambda: sampler_document([measured(), (measured(A), [nan])]), r"pubs\[1\]: the value of a is nan"),
        (lambda: sampler_document([(measured(A), [[0], [inf]])]), r"the value of a is inf in set \[1\]"),
        (lambda: sampler_document([measured(nan)]), r"pubs\[0\]: the circuit has rx\(nan\)"),
        (
            lambda: sampler_document([measured()], options={"a": {"b": [1, nan]}}),
            r"options\.a\.b\[1\] is nan",
        ),
        (lambda: estimator_document([(QuantumCircuit(1), {"Z": nan})]), "the coefficient of Z is nan"),
        (lambda: estimator_document([(QuantumCircuit(1), "Z")], precision=inf), "the precision is inf"),
        (lambda: sampler_document([measured()], options={"max_execution_time": 9}), "is no part of an input"),
        (lambda: sampler_document([measured()], options=[1]), "options: list is not known"),
        (lambda: sampler_document([measured()], format=UNKNOWN), 'there are "qpy" and "qasm3"'),
    ],
)
def test_what_is_no_input_is_refused_with_its_place(write: Callable[[], object], words: str) -> None:
    with pytest.raises(PayloadError, match=words):
        write()


def test_a_circuit_with_a_box_is_refused() -> None:
    circuit = measured()
    with circuit.box():
        circuit.x(0)

    with pytest.raises(PayloadError, match="the circuit has a box"):
        sampler_document([circuit])


@pytest.mark.parametrize("kind", [np.int8, np.int32, np.int64, np.uint16])
def test_numpys_integers_are_numbers(kind: type[Any]) -> None:
    options = {"default_shots": kind(3), "twirling": {"num_randomizations": kind(5)}}
    document = sampler_document([(measured(A), np.array([1], dtype=kind))], shots=kind(7), options=options)

    assert b"".join(pieces(document)).count(b'"__type__": "ndarray"') == 1
    parameters = document["parameters"]
    assert (type(parameters["pubs"][0][2]), parameters["pubs"][0][2]) == (int, 7)
    assert parameters["options"] == {"default_shots": 3, "twirling": {"num_randomizations": 5}}


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_numpys_floats_are_numbers(kind: type[Any]) -> None:
    pub = (QuantumCircuit(1), SparsePauliOp("Z", kind(2)), None, kind(0.5))
    document = estimator_document([pub], options={"default_precision": kind(0.25)})

    assert b"0.5" in b"".join(pieces(document))
    assert document["parameters"]["options"] == {"default_precision": 0.25}


def old(options: Any) -> Any:  # noqa: ANN401 - of either kind
    options.twirling.enable_gates = True
    options.default_shots = np.int32(9)
    return options


@pytest.mark.parametrize(
    "options", [SamplerOptions, NewSamplerOptions, EstimatorOptions, NewEstimatorOptions]
)
def test_the_clients_options_are_taken(options: type[Any]) -> None:
    given = old(options())

    if "Estimator" in options.__name__:
        given.resilience_level = 2
        document = estimator_document([(QuantumCircuit(1), "Z")], options=given)
        assert document["parameters"]["resilience_level"] == 2
    else:
        document = sampler_document([measured()], options=given)

    assert document["parameters"]["options"] == {"default_shots": 9, "twirling": {"enable_gates": True}}
    assert b"".join(pieces(document))


@pytest.mark.parametrize("options", [SamplerOptions, NewSamplerOptions])
def test_what_an_input_cannot_say_of_the_clients_options_is_refused(options: type[Any]) -> None:
    tagged, limited = options(), options()
    tagged.environment.job_tags = ["mine"]
    limited.max_execution_time = 60

    for refused_options, words in (
        (tagged, "give task_runner --tag"),
        (limited, "give task_runner --timeout"),
    ):
        with pytest.raises(PayloadError, match=words):
            sampler_document([measured()], options=refused_options)
