# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import tracemalloc
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from qpu_slurm.gateway.ibm.json_scan import MAX_DEPTH, MalformedError, Scanner

WANTED = ("backend", "session_id")

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(TEXT, inner, max_size=5),
    max_leaves=20,
)
KEYS = st.sampled_from(["backend", "session_id", "params", "tags"]) | TEXT
OBJECTS = st.dictionaries(KEYS, VALUES, max_size=8)

STYLES = {"ensure_ascii": st.booleans(), "indent": st.sampled_from([None, 0, 2])}

LARGE = [
    {"params": [[[], [{}]]] * 3000, "backend": "a"},
    {"params": {f"Z{number}": [number] for number in range(3000)}, "backend": "a"},
    {"params": [1.5] * 5000, "tags": ["x"], "backend": "a"},
    {"params": ['say "\\" {[', "\\"] * 2000, "backend": "a"},
    {"params": "\\" * 9000, "backend": "a"},
    {"params": ["\\" * 9000, '\\"' * 3000], "backend": "a"},
    {"params": [["!", "[]", "\n"]] * 3000, "tags": [], "private": [[]], "backend": "a"},
    {"params": ["\N{GREEK SMALL LETTER PSI}" * 900, 0] * 3, "backend": "a"},
]


def scan(text: bytes, *cuts: int) -> Scanner:
    scanner = Scanner(WANTED)
    ends = sorted({min(cut, len(text)) for cut in cuts} | {len(text)})
    for begin, end in zip([0, *ends], ends, strict=False):
        scanner.feed(text[begin:end])
    scanner.finish()
    return scanner


@given(OBJECTS, st.lists(st.integers(0, 400)), st.fixed_dictionaries(STYLES))
def test_it_finds_what_json_finds_however_the_text_is_cut(
    document: dict[str, Any], cuts: list[int], style: dict[str, Any]
) -> None:
    text = json.dumps(document, **style).encode()
    folded = [key.casefold() for key in document]
    if len(set(folded)) < len(folded):
        with pytest.raises(MalformedError, match="twice"):
            scan(text, *cuts)
        return
    scanner = scan(text, *cuts)
    assert scanner.keys == list(document)
    assert scanner.values == {
        key: value if isinstance(value, str) else None for key, value in document.items() if key in WANTED
    }


@settings(max_examples=30, deadline=None)
@given(OBJECTS, st.fixed_dictionaries(STYLES))
def test_no_way_to_cut_the_text_changes_what_it_finds(
    document: dict[str, Any], style: dict[str, Any]
) -> None:
    text = json.dumps(document, **style).encode()
    found = {outcome(text, size) for size in (1, 2, 3, 5, 8, 13, 21, 34, 55, 89)}
    assert found == {outcome(text, len(text))}


def outcome(text: bytes, size: int) -> str:
    """Say what is found in a text that comes in pieces of a size."""
    try:
        scanner = scan(text, *range(0, len(text), size))
    except MalformedError as error:
        return str(error)
    return repr((scanner.keys, scanner.values))


@pytest.mark.parametrize("document", LARGE)
@pytest.mark.parametrize("size", [7, 1023, 4096, 4097, 65536])
def test_large_values_are_passed_over(document: dict[str, Any], size: int) -> None:
    text = json.dumps(document, ensure_ascii=False, indent=size % 2).encode()
    scanner = scan(text, *range(0, len(text), size))
    assert scanner.keys == list(document)
    assert scanner.values == {"backend": "a"}


SIGNS = st.sampled_from([*'{}[]:,"\\ab1 \n', '"backend"', '"b\\u0061ckend"', '"params":', "null", "\\u0000"])


@given(st.lists(SIGNS, max_size=30).map("".join), st.lists(st.integers(0, 60)))
@example('{"backend":"a"}}', [])
@example('{"a":[}]}', [3])
def test_what_it_takes_is_never_understood_in_another_way(text: str, cuts: list[int]) -> None:
    """Whatever is no JSON for others may pass; what is, has just the keys and values that it says."""
    try:
        scanner = scan(text.encode(), *cuts)
    except MalformedError:
        return
    try:
        pairs: list[tuple[str, Any]] = json.loads(text, object_pairs_hook=lambda pairs: pairs)
    except ValueError:
        return
    assert scanner.keys == [key for key, _ in pairs]
    assert scanner.values == {
        key: value if isinstance(value, str) else None for key, value in pairs if key in WANTED
    }


@given(st.binary(max_size=60), st.binary(max_size=60), st.lists(st.integers(0, 120)))
def test_bytes_between_others_break_nothing(begin: bytes, end: bytes, cuts: list[int]) -> None:
    text = begin + b'{"backend": "a", "params": ' + end
    try:
        scanner = scan(text, *cuts)
    except MalformedError:
        return
    assert scanner.keys[:2] == ["backend", "params"]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"", "ends before"),
        (b"[]", r"expected an object, found '\['$"),
        (b'"{}"', "expected an object, found '\"'$"),
        (b"\x01", "found the control character 0x01$"),
        (b"\xc3\x28", "found the byte 0xC3$"),
        (b'\xef\xbb\xbf{"a": 1}', "begins with a byte order mark: write it in UTF-8 without one$"),
        ('{"backend": "a"}'.encode("utf-16"), "seems to be UTF-16: write it in UTF-8$"),
        ('{"backend": "a"}'.encode("utf-16-le"), "seems to be UTF-16"),
        ('{"backend": "a"}'.encode("utf-16-be"), "seems to be UTF-16"),
        (b'{"backend": "a"', "ends before"),
        (b'{"backend": "a"} {}', "nothing more"),
        (b'{"backend": "a"}\0', "nothing more"),
        (b"{'backend': 1}", "expected a key"),
        (b"{backend: 1}", "expected a key, found 'b'$"),
        (b'{"a": 1,}', "expected a key"),
        (b'{,"a": 1}', "expected a key"),
        (b'{"a" 1}', "expected a colon"),
        (b'{"a": }', "expected a value"),
        (b'{"a": 1 2}', "a comma or the end"),
        (b'{"a": 1/**/}', "a comma or the end"),
        (b'{"a": [1 /* " */]}', "no place"),
        (b"{\"a\": [1, 'x']}", "no place"),
        (b'{"a": [1}}', "no place"),
        (b'{"a": [\xe2\x80\xa8]}', "no place"),
        (b'{"a": "x\ny"}', "no place in a string"),
        (b'{"a": "x\\\ny"}', "no place in a string"),
        (b'{"a": ["x\ny"]}', "no place in a string"),
        (b'{"a": 1, "a": 2}', "twice"),
        (b'{"backend": "x", "b\\u0061ckend": "y"}', "twice"),
        (b'{"backend": "x", "Backend": "y"}', "twice"),
        ('{"session_id": "x", "\N{LATIN SMALL LETTER LONG S}ession_id": "y"}'.encode(), "twice"),
        (b'{"\\ud800": 1}', "no text"),
        (b'{"\xff": 1}', "no text"),
        (b'{"a\\x": 1}', "no text"),
        (b'{"' + b"a" * 2000 + b'": 1}', "too long"),
        (b'{"backend": "' + b"a" * 2000 + b'"}', "too long"),
        (json.dumps({str(number): 0 for number in range(100)}).encode(), "more than 12 keys"),
        (b'{"a": ' + b"[" * MAX_DEPTH + b"]" * MAX_DEPTH + b"}", ""),
        (b'{"a": ' + b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1) + b"}", "nested more than 100 deep"),
        (b'{"a": ' + b"[" * 2000 + b"]" * 2000 + b"}", "nested"),
        (b'{"a": [' + b"1," * 5000 + b"[" * MAX_DEPTH, "nested"),
        (b'{"a": [' + b'"x",' * 5000 + b"'\"', \"", "no place"),
        (b'{"a": [' + b"1," * 5000 + b'"x\ny"]}', "no place in a string"),
        (b'{"a": [' + b"1," * 5000 + b'"x\\\ny"]}', "no place in a string"),
        (b'{"a": [' + b"1," * 5000 + b"\0]}", "no place"),
        (b'{"a": [' + b"1," * 5000 + b"1}}", "no place"),
        (b'{"a": [' + b"1," * 5000 + b"1\\\\]}", "no place"),
        (b'{"a": [' + b"1," * 5000 + b'1\\"]"]}', "no place"),
        (b'{"a": ' + b'{"a":[' * 600 + b"]}" * 600 + b"}", "nested"),
    ],
)
@pytest.mark.parametrize("size", [1, 3, 100_000])
def test_what_could_be_understood_in_two_ways_is_refused(text: bytes, why: str, size: int) -> None:
    cuts = range(0, len(text), size)
    if not why:
        scan(text, *cuts)
        return
    with pytest.raises(MalformedError, match=why):
        scan(text, *cuts)


def test_a_sign_is_shown_as_people_know_it() -> None:
    with pytest.raises(MalformedError, match=r"expected a key, found 'é'$"):
        scan("{é: 1}".encode())
    with pytest.raises(MalformedError, match=r"^'ééé�' is no text$"):
        scan('{"ééé'.encode() + b'\xff": 1}')


def test_what_is_passed_over_is_not_held() -> None:
    scanner = Scanner(WANTED)
    scanner.feed(b'{"params": ["')
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for _ in range(100):
            scanner.feed(b"x" * 65536)
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 65536
    scanner.feed(b'"]}')
    scanner.finish()


TOWERS = b"[" * 70 + b"]" * 70 + b","


# It takes milliseconds. A scanner that tries again at each bracket would take hours.
@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "unit", [TOWERS, TOWERS.replace(b"[", b'["!",').replace(b"]", b'"]"]'), b"[]", b'"[",[', b'"\\",', b'\\"']
)
@pytest.mark.parametrize("size", [1 << 20, 65536, 7])
def test_no_text_takes_long(unit: bytes, size: int) -> None:
    text = b'{"params": [' + unit * ((1 << 17) // len(unit))
    scanner = Scanner(WANTED)
    for begin in range(0, len(text), size):
        try:
            scanner.feed(text[begin : begin + size])
        except MalformedError:
            break
