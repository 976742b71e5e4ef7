# SPDX-License-Identifier: Apache-2.0
"""Primitive inputs: what is passed on unchanged, and what is refused with which words."""

from __future__ import annotations

import base64
import json
import zlib
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from qpu_slurm.errors import PayloadError
from qpu_slurm.tasks import payload

if TYPE_CHECKING:
    from pathlib import Path

QASM = 'OPENQASM 3.0;\ninclude "stdgates.inc";\nbit[1] c;\nx $0;\nc[0] = measure $0;\n'
QPY = {
    "__type__": "QuantumCircuit",
    "__value__": base64.b64encode(zlib.compress(b"QISKIT\x11" + bytes(range(256)) * 40)).decode(),
}
NDARRAY = {
    "__type__": "ndarray",
    "__value__": "eJyb7BfqGxDJyFDGUK2eklqcXKRupaBuk2mhrqOgnpZfVFKUmBefX5SSChJ3S8wpTgWKF2cyMDIAAN5XDdA=",
}


def document(program_id: str = "sampler", **parameters: object) -> dict[str, Any]:
    return {"program_id": program_id, "parameters": parameters}


def text_of(loaded: payload.Payload) -> bytes:
    assert isinstance(loaded.parameters, bytes)
    return loaded.parameters


WRITERS = {
    "runtime's SamplerV2": document(pubs=[[QPY, NDARRAY, 4096]], options={}, version=2, support_qiskit=True),
    "runtime's EstimatorV2": document(
        "estimator",
        pubs=[[QPY, {"ZZ": 1.0}, NDARRAY, None], [QPY, [{"ZZ": 1}, {"XX": 0.5}], NDARRAY, 0.01]],
        options={"default_precision": 0.02},
        version=2,
        support_qiskit=True,
        resilience_level=1,
    ),
    "upstream's sampler example": document(
        pubs=[[QASM, [0.1, 0.2]]], version=2, support_qiskit=False, shots=10000, options={}
    ),
    "upstream's estimator example": document(
        "estimator",
        pubs=[[QASM, {"Z": 1}, [0.1]]],
        version=2,
        support_qiskit=False,
        resilience_level=1,
        options={"default_shots": 5000},
    ),
    "qrmi.primitives": document(
        pubs=[[QASM, None, 1024]], shots=1024, options={}, version=2, support_qiskit=True
    ),
    "the service's own manual": document("estimator", pubs=[[QASM, "Z"]], version=2, resilience_level=1),
    "runtime's client-side primitives": document(
        "executor", schema_version="v2.0", quantum_program={"shots": 10, "items": []}, options={}
    ),
    "a circuit with a comment before its version": document(
        pubs=[["// by hand\n/* twice */ OPENQASM 3;\n"]], version=2
    ),
}


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("written", WRITERS.values(), ids=WRITERS.keys())
def test_every_writers_form_is_passed_on(written: dict[str, Any], indent: int | None) -> None:
    loaded = payload.load(json.dumps(written, indent=indent).encode())

    assert loaded.program_id == written["program_id"]
    assert json.loads(text_of(loaded)) == written["parameters"]


def test_the_parameters_text_is_not_touched() -> None:
    text = '{ "pubs":[["OPENQASM 3;", [1.10000000000000000001, 1e-07]] ],"version":2,"new key":{"a":"é"} }'

    loaded = payload.load(f'{{"parameters":{text},"program_id":"sampler"}}'.encode())

    assert text_of(loaded).decode() == text


REFUSED = {
    "nothing": ("", "input: it is empty."),
    "white space": (" \n", "input: it is empty."),
    "no JSON": ("OPENQASM 3;", "input: this is not JSON"),
    "half of one": ('{"program_id": "sampler", "parameters": {"pubs": [["OPEN', "input: this is not JSON"),
    "NaN": (
        '{"program_id": "sampler", "parameters": {"version": 2, "pubs": [["OPENQASM 3;", [NaN]]]}}',
        "without NaN or Infinity",
    ),
    "a very deep one": ('{"program_id": "sampler", "parameters": ' + "[" * 100_000, "nested too deeply"),
    "an array": ("[]", "input: expected `object`, got `array`. An input is {"),
    "parameters alone": (
        json.dumps(WRITERS["qrmi.primitives"]["parameters"]),
        'a file that holds parameters alone has to be put under "parameters"',
    ),
    "no program": ('{"parameters": {}}', "missing required field `program_id`"),
    "no parameters": ('{"program_id": "sampler"}', "missing required field `parameters`"),
    "another program": (document("sampelr"), "input: program_id: invalid enum value 'sampelr'"),
    "a key that would be lost": (document() | {"shots": 10}, "contains unknown field `shots`"),
    "parameters of another kind": (
        {"program_id": "sampler", "parameters": "x"},
        "input: parameters: expected `object`, got `str`",
    ),
    "no version": (document(pubs=[[QASM]]), "parameters: object missing required field `version`"),
    "an old version": (document(pubs=[[QASM]], version=1), "parameters.version: invalid enum value 1"),
    "no pubs": (document(version=2), "parameters: object missing required field `pubs`"),
    "an empty list of pubs": (
        document(pubs=[], version=2),
        "parameters.pubs: expected `array` of length >= 1",
    ),
    "options of another kind": (
        document(pubs=[[QASM]], version=2, options=[]),
        "parameters.options: expected `object | null`, got `array`",
    ),
    "support_qiskit of another kind": (
        document(pubs=[[QASM]], version=2, support_qiskit="yes"),
        "parameters.support_qiskit: expected `bool`, got `str`",
    ),
    "a bare circuit for a pub": (
        document(pubs=[QASM], version=2),
        "parameters.pubs[0]: expected `array`, got `str`. A sampler's pub is [circuit",
    ),
    "a pub without a circuit": (
        document(pubs=[[QASM], []], version=2),
        "parameters.pubs[1]: expected `array` of at least length 1",
    ),
    "a pub that is too long": (
        document(pubs=[[QASM, None, 1, 2]], version=2),
        "parameters.pubs[0]: expected `array` of at most length 3",
    ),
    "no shots": (document(pubs=[[QASM, None, 0]], version=2), "parameters.pubs[0][2]: expected `int` >= 1"),
    "a circuit of another kind": (
        document(pubs=[[5]], version=2),
        "parameters.pubs[0][0]: expected `str | object`, got `int`",
    ),
    "a circuit that is no OpenQASM": (
        document(pubs=[["H 0; CX 0 1"]], version=2),
        'parameters.pubs[0][0]: the text does not begin with "OPENQASM 3.0;". A circuit is',
    ),
    "OpenQASM 2": (
        document(pubs=[[QASM], ["OPENQASM 2.0;\nqreg q[1];"]], version=2),
        "parameters.pubs[1][0]: this is OpenQASM 2.",
    ),
    "an encoded object that is no circuit": (
        document(pubs=[[NDARRAY]], version=2),
        "parameters.pubs[0][0].__type__: invalid enum value 'ndarray'",
    ),
    "a circuit without its content": (
        document(pubs=[[{"__type__": "QuantumCircuit"}]], version=2),
        "parameters.pubs[0][0]: object missing required field `__value__`",
    ),
    "a circuit that is no base64": (
        document(pubs=[[QPY | {"__value__": "!"}]], version=2),
        "parameters.pubs[0][0]: its __value__ is not base64(zlib(QPY))",
    ),
    "a circuit that is no QPY": (
        document(pubs=[[QPY | {"__value__": base64.b64encode(zlib.compress(b"PK")).decode()}]], version=2),
        "parameters.pubs[0][0]: its __value__ is not base64(zlib(QPY))",
    ),
    "a circuit whose content is no text": (
        document(pubs=[[QPY | {"__value__": 5}]], version=2),
        "parameters.pubs[0][0]: its __value__ is not base64(zlib(QPY))",
    ),
    "parameter values of another kind": (
        document(pubs=[[QASM, "0.1"]], version=2),
        "parameters.pubs[0][1]: expected parameter values",
    ),
    "no observables": (
        document("estimator", pubs=[[QASM]], version=2),
        "parameters.pubs[0]: expected `array` of at least length 2, got 1. An estimator's pub is [circuit",
    ),
    "observables of another kind": (
        document("estimator", pubs=[[QASM, None]], version=2),
        "parameters.pubs[0][1]: expected observables",
    ),
    "an estimator's values of another kind": (
        document("estimator", pubs=[[QASM, "Z", 1]], version=2),
        "parameters.pubs[0][2]: expected parameter values",
    ),
    "no precision": (
        document("estimator", pubs=[[QASM, "Z", None, 0]], version=2),
        "parameters.pubs[0][3]: expected `float` > 0",
    ),
    "an executor without a program": (
        document("executor", schema_version="v2.0"),
        "parameters: object missing required field `quantum_program`",
    ),
}


@pytest.mark.parametrize(("written", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_what_the_service_would_refuse_is_refused_with_where_and_what(
    written: str | dict[str, Any], words: str
) -> None:
    text = written if isinstance(written, str) else json.dumps(written)

    with pytest.raises(PayloadError) as caught:
        payload.load(text.encode())

    assert words in str(caught.value)
    assert str(caught.value).startswith("input: ")
    assert "\n" not in str(caught.value)


def test_text_that_is_not_utf_8_is_refused_wherever_it_stands() -> None:
    good = json.dumps(document(pubs=[[QASM]], version=2, note="?"))

    for bad in (good.replace("?", "\xff"), good.replace("sampler", "\xff")):
        with pytest.raises(PayloadError, match="not UTF-8"):
            payload.load(bad.encode("latin-1"))


def test_a_file_is_named_in_its_errors(tmp_path: Path) -> None:
    missing, empty = tmp_path / "missing.json", tmp_path / "empty.json"
    empty.write_bytes(b"")

    with pytest.raises(PayloadError, match=r"The input .*missing\.json cannot be read: No such file"):
        payload.read(missing)
    with pytest.raises(PayloadError, match=r"empty\.json: it is empty"):
        payload.read(empty)
    with pytest.raises(PayloadError, match="cannot be read: Is a directory"):
        payload.read(tmp_path)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["pubs", "version", "__type__", "__value__", "x"]), inner, max_size=4
        )
    ),
    max_leaves=12,
)
DOCUMENTS = st.fixed_dictionaries(
    {
        "program_id": st.sampled_from(["sampler", "estimator", "executor"]),
        "parameters": JSON
        | st.fixed_dictionaries(
            {
                "version": st.just(2) | JSON,
                "pubs": st.lists(
                    st.lists(JSON | st.just(QASM) | st.just(QPY), max_size=5) | JSON, min_size=1, max_size=3
                ),
            },
            optional={"options": JSON, "schema_version": JSON, "quantum_program": JSON},
        ),
    }
)


@given(st.binary() | st.text().map(str.encode) | DOCUMENTS.map(lambda value: json.dumps(value).encode()))
@example(b"\xef\xbb\xbf{}")
@example(b'{"program_id": "sampler", "parameters": ' + b"{" * 5000)
def test_anything_loads_or_is_refused(data: bytes) -> None:
    try:
        loaded = payload.load(data)
    except PayloadError as error:
        assert str(error).startswith("input: ")  # noqa: PT017 - both outcomes are right, and checked
    else:
        assert text_of(loaded) in data
        assert isinstance(json.loads(text_of(loaded)), dict)


@given(DOCUMENTS, st.data())
def test_a_truncated_input_is_refused(value: dict[str, Any], data: st.DataObject) -> None:
    text = json.dumps(value).encode()
    cut = data.draw(st.integers(0, len(text) - 1))

    with pytest.raises(PayloadError):
        payload.load(text[:cut])
