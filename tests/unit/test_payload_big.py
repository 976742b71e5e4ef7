# SPDX-License-Identifier: Apache-2.0
"""Big inputs, which are checked by their outlines: as small ones are, but for the memory that they cost."""

from __future__ import annotations

import base64
import io
import json
import os
import threading
import zlib
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from qpu_slurm.errors import PayloadError
from qpu_slurm.tasks import payload
from qpu_slurm.tasks.outline import NotJsonError, Outline
from tests.unit.test_payload import DOCUMENTS, JSON, QASM, QPY, REFUSED, WRITERS, document

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(autouse=True)
def _no_input_is_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(payload, "SMALL", 0)


def read(tmp_path: Path, text: bytes) -> payload.Payload:
    path = tmp_path / "input.json"
    path.write_bytes(text)
    return payload.read(path)


def sent(loaded: payload.Payload) -> bytes:
    """Return what would be submitted, read twice, as it is when a submission is repeated."""
    assert not isinstance(loaded.parameters, bytes)
    first, second = b"".join(loaded.parameters), b"".join(loaded.parameters)
    assert first == second
    assert len(first) == len(loaded.parameters)
    return first


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("written", WRITERS.values(), ids=WRITERS.keys())
def test_every_writers_form_is_passed_on(tmp_path: Path, written: dict[str, Any], indent: int | None) -> None:
    loaded = read(tmp_path, json.dumps(written, indent=indent).encode())

    assert loaded.program_id == written["program_id"]
    assert json.loads(sent(loaded)) == written["parameters"]


@pytest.mark.parametrize(("written", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_refused_is_refused_with_the_same_words(
    tmp_path: Path, written: str | dict[str, Any], words: str
) -> None:
    text = written if isinstance(written, str) else json.dumps(written)

    with pytest.raises(PayloadError) as caught:
        read(tmp_path, text.encode())

    assert words.removeprefix("input: ") in str(caught.value)
    assert str(caught.value).startswith(f"{tmp_path / 'input.json'}: ")
    assert "\n" not in str(caught.value)


def test_text_that_is_not_utf_8_is_refused_wherever_it_stands(tmp_path: Path) -> None:
    good = json.dumps(document(pubs=[[QASM]], version=2, note="?"))

    for bad in (good.replace("?", "\xff"), good.replace("sampler", "\xff"), good.replace("?", "\xc3")):
        with pytest.raises(PayloadError, match="not UTF-8"):
            read(tmp_path, bad.encode("latin-1"))


def verdict(text: bytes) -> str:
    """Judge by what an outline keeps."""
    try:
        return payload.load(text, whole=False).program_id
    except PayloadError as error:
        return str(error)


@given(DOCUMENTS, st.sampled_from([None, 1]), st.integers(1, 40))
def test_an_outline_is_judged_as_its_input_is(value: dict[str, Any], indent: int | None, size: int) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=size % 2 == 0).encode()

    try:
        outline = Outline(text[at : at + size] for at in range(0, len(text), size))
    except NotJsonError:  # Python writes Infinity
        assert "this is not JSON" in verdict(text)
        return

    assert verdict(outline.text) == verdict(text)
    start, end = outline.parameters
    assert json.loads(text[start:end]) == value["parameters"]


@given(JSON, st.data())
def test_what_python_does_not_read_has_no_outline(value: object, data: st.DataObject) -> None:
    text = json.dumps(value, indent=data.draw(st.sampled_from([None, 1])))
    at, length = data.draw(st.integers(0, len(text))), data.draw(st.integers(0, 3))
    changed = text[:at] + data.draw(st.text('{}[]",:0-.e\\u nt\n', max_size=3)) + text[at + length :]
    size = data.draw(st.integers(1, 40))

    check_agreement(changed.encode(), size)


@given(st.text('{}[]",:01-.eE+ntrufals \\\n\x01é', max_size=12), st.integers(1, 5))
@example('{"\\u00":1}', 1)
@example('["\\ud83d\\ude00", 1.5e-7, -0]', 2)
@example("[1,2,]", 9)
@example('{"a":1,}', 9)
@example("[01]", 9)
def test_what_is_hardly_json_has_an_outline_only_if_it_is(text: str, size: int) -> None:
    check_agreement(text.encode(), size)


def check_agreement(text: bytes, size: int) -> None:
    """Fail if Python's own reader takes it for another thing."""
    try:
        json.loads(text, parse_constant=lambda _: 1 / 0)
    except (ValueError, ZeroDivisionError):
        expected = False
    else:
        expected = True
    try:
        found = bool(Outline(text[at : at + size] for at in range(0, len(text), size)).text)
    except (NotJsonError, UnicodeDecodeError):
        found = False
    assert found == expected


LONG = {
    "QPY": QPY | {"__value__": base64.b64encode(zlib.compress(b"QISKIT" + os.urandom(300_000))).decode()},
    "OpenQASM": QASM + "sx $0;\n" * 50_000,
    "OpenQASM behind a long comment": "/*" + "é" * 5000 + "*/" + QASM,
    "surrogates where it is cut": "OPENQASM 3.0; //" + "\U0001f600" * 2000,
    "escapes where it is cut": "OPENQASM 3.0; //" + "\\" * 2000,
}
VALUES = {
    "numbers": [0.1] * 100_000,
    "sets of numbers": [[0.1, 2, -3e-7]] * 30_000,
    "deep ones": [[[[[[1]]], [{"a": {"b": {"c": ["é", None, True]}}}]]]] * 3000,
    "an encoded array": {"__type__": "ndarray", "__value__": "A" * 400_000},
}


@pytest.mark.parametrize("circuit", LONG.values(), ids=LONG.keys())
@pytest.mark.parametrize("values", VALUES.values(), ids=VALUES.keys())
def test_what_is_long_passes_unchanged_and_its_outline_is_short(
    tmp_path: Path, circuit: object, values: object
) -> None:
    written = document(pubs=[[circuit, values, 100]] * 2, version=2)
    text = json.dumps(written, indent=1).encode()

    assert json.loads(sent(read(tmp_path, text))) == written["parameters"]
    assert len(Outline([text]).text) < 30_000


def test_a_long_text_that_is_no_circuit_is_refused(tmp_path: Path) -> None:
    for wrong in ("H 0;\n" * 1000, "OPENQASM 2.0;" + "x" * 5000, "/* */" + "H 0;\n" * 1000):
        with pytest.raises(PayloadError, match=r"parameters\.pubs\[0\]\[0\]"):
            read(tmp_path, json.dumps(document(pubs=[[wrong]], version=2)).encode())


def test_a_pipe_is_kept_until_it_is_sent() -> None:
    written = document(pubs=[[QASM, [0.1] * 30_000]], version=2)
    reading, writing = os.pipe()

    def fill() -> None:
        with open(writing, "wb") as file:  # noqa: PTH123 - a file descriptor
            file.write(json.dumps(written).encode())

    thread = threading.Thread(target=fill)
    thread.start()
    with open(reading, "rb") as file:  # noqa: PTH123 - likewise
        loaded = payload.receive(file, source="standard input")
    thread.join()

    assert json.loads(sent(loaded)) == written["parameters"]


def test_a_file_is_read_from_where_it_stands(tmp_path: Path) -> None:
    path = tmp_path / "two.txt"
    path.write_text("first line\n" + json.dumps(document(pubs=[[QASM]], version=2)))

    with path.open("rb") as file:
        file.readline()
        loaded = payload.receive(file, source="standard input")

    assert json.loads(sent(loaded))["pubs"] == [[QASM]]


def test_a_file_that_is_replaced_meanwhile_is_sent_as_it_was_checked(tmp_path: Path) -> None:
    text = json.dumps(document(pubs=[[QASM]], version=2)).encode()
    loaded = read(tmp_path, text)
    other = tmp_path / "other"
    other.write_text("{}")
    other.replace(tmp_path / "input.json")

    assert sent(loaded) in text


def test_a_file_that_is_written_to_meanwhile_is_not_sent(tmp_path: Path) -> None:
    loaded = read(tmp_path, json.dumps(document(pubs=[[QASM]], version=2)).encode())
    (tmp_path / "input.json").write_text("{}")

    with pytest.raises(PayloadError, match="it was changed while it was read"):
        sent(loaded)


def test_what_cannot_be_read_is_said() -> None:
    class Broken(io.BytesIO):
        def read(self, _size: int | None = None) -> bytes:
            raise OSError(5, "Input/output error")

    with pytest.raises(PayloadError, match="standard input: it cannot be read: Input/output error"):
        payload.receive(Broken(), source="standard input")


def test_numbers_do_not_fill_the_memory() -> None:
    def digits() -> Iterator[bytes]:
        yield b'{"program_id": 1'
        for _ in range(100):
            yield b"1" * 100_000
        raise AssertionError("all of it was read")

    with pytest.raises(NotJsonError):
        Outline(digits())
