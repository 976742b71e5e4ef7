# SPDX-License-Identifier: Apache-2.0
"""Results of both shapes are what Qiskit's primitives would have returned."""

from __future__ import annotations

import json
import subprocess
import sys
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from qiskit.primitives import BitArray, DataBin, PrimitiveResult, PubResult, SamplerPubResult
from qiskit_ibm_runtime import RuntimeEncoder

from qpu_slurm import read_result
from qpu_slurm.api.results import decode
from qpu_slurm.errors import PayloadError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Read = Callable[[object], PrimitiveResult[Any]]


def decoded(document: object) -> PrimitiveResult[Any]:
    return decode(BytesIO(json.dumps(document, cls=RuntimeEncoder).encode()), source="result.json")


@pytest.fixture
def read(tmp_path: Path) -> Read:
    def read(document: object) -> PrimitiveResult[Any]:
        path = tmp_path / "result.json"
        path.write_text(json.dumps(document, cls=RuntimeEncoder), encoding="utf-8")
        return read_result(path)

    return read


def test_a_samplers_encoded_result(read: Read) -> None:
    bits = BitArray.from_samples(["0x3", "0x0", "0x3"], num_bits=2)
    written = PrimitiveResult(
        [SamplerPubResult(DataBin(meas=bits), metadata={"circuit_metadata": {}})], metadata={"version": 2}
    )

    result = read(written)

    assert isinstance(result, PrimitiveResult)
    assert isinstance(result[0], SamplerPubResult)
    assert result[0].data.meas == bits
    assert result[0].metadata == {"circuit_metadata": {}}
    assert result.metadata == {"version": 2}


def test_an_estimators_encoded_result(read: Read) -> None:
    written = PrimitiveResult(
        [PubResult(DataBin(evs=np.array([0.5, -1]), stds=np.array([0.1, 0]), shape=(2,)))], metadata={}
    )

    data = read(written)[0].data

    assert data.shape == (2,)
    np.testing.assert_array_equal(data.evs, [0.5, -1])
    np.testing.assert_array_equal(data.stds, [0.1, 0])


def test_a_samplers_plain_result(read: Read) -> None:
    result = read(
        {
            "results": [
                {
                    "data": {
                        "meas": {"samples": ["0x3", "0x0", "0x3"], "num_bits": 2},
                        "flag": {"samples": ["0x1", "0x1", "0x0"], "num_bits": 1},
                    },
                    "metadata": {"circuit_metadata": {}},
                },
                {"data": {"wide": {"samples": [hex(1 << 155)], "num_bits": 156}}},
            ],
            "metadata": {"version": 2},
        }
    )

    assert isinstance(result[0], SamplerPubResult)
    assert result[0].data.shape == ()
    assert result[0].data.meas.get_counts() == {"11": 2, "00": 1}
    assert result[0].data.flag.get_counts() == {"1": 2, "0": 1}
    assert result[0].metadata == {"circuit_metadata": {}}
    assert result[1].data.wide.get_counts() == {"1" + "0" * 155: 1}
    assert result.metadata == {"version": 2}


@pytest.mark.parametrize("shape", [(3,), (1,), (2, 3), (1, 1, 2)])
@pytest.mark.parametrize("shots", [1, 4])
def test_a_samplers_plain_result_with_several_parameter_values(
    read: Read, shape: tuple[int, ...], shots: int
) -> None:
    numbers = np.arange(int(np.prod(shape)) * shots) % 512
    samples = np.vectorize(hex)(numbers).reshape(*shape, shots).tolist()

    data = read({"results": [{"data": {"c": {"samples": samples, "num_bits": 9}}}]})[0].data

    assert data.shape == shape
    assert data.c.num_shots == shots
    expected = BitArray.from_samples(numbers.tolist(), num_bits=9).array.reshape(*shape, shots, 2)
    np.testing.assert_array_equal(data.c.array, expected)


@pytest.mark.parametrize("evs", [0.5, [0.5, -0.5], [[0.5], [0.25]]])
def test_an_estimators_plain_result(read: Read, evs: float | list[float]) -> None:
    stds = np.zeros_like(evs).tolist()
    more = np.zeros((*np.shape(evs), 3)).tolist()

    result = read({"results": [{"data": {"evs": evs, "stds": stds, "evs_extrapolated": more, "note": None}}]})

    assert type(result[0]) is PubResult
    assert result[0].data.shape == np.shape(evs)
    np.testing.assert_array_equal(result[0].data.evs, evs)
    np.testing.assert_array_equal(result[0].data.stds, stds)


REFUSED = {
    "nothing": "",
    "a very deep one": '{"results": ' + "[" * 100_000,
    "an encoded array that is none": (
        '{"__type__": "PrimitiveResult", "__value__": {"pub_results": '
        '[{"__type__": "ndarray", "__value__": "AAAA"}], "metadata": {}}}'
    ),
    "no JSON": "Job failed",
    "half of one": '{"results": [',
    "an array": "[]",
    "an executor's": '{"schema_version": "v2.0", "data": [], "metadata": {}}',
    "another encoded object": '{"__type__": "NoiseLearnerResult", "__value__": {}}',
    "an encoded one without its content": '{"__type__": "PrimitiveResult"}',
    "a register without samples": '{"results": [{"data": {"c": {"num_bits": 1}}}]}',
    "a register without shots": '{"results": [{"data": {"c": {"samples": [], "num_bits": 1}}}]}',
    "samples that are ragged": (
        '{"results": [{"data": {"c": {"samples": [["0x0"], ["0x0", "0x1"]], "num_bits": 1}}}]}'
    ),
    "samples that are too wide": '{"results": [{"data": {"c": {"samples": ["0xfff"], "num_bits": 1}}}]}',
    "values that are ragged": '{"results": [{"data": {"evs": [[1], [1, 2]]}}]}',
    "a name that is taken": '{"results": [{"data": {"shape": [1], "evs": [1]}}]}',
}


@pytest.mark.parametrize("text", REFUSED.values(), ids=REFUSED.keys())
def test_what_is_no_result_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "result.json"
    path.write_text(text, encoding="utf-8")

    with pytest.raises(PayloadError, match=r"result\.json: this is not"):
        read_result(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(PayloadError, match=r"The result .*none\.json cannot be read: No such file"):
        read_result(tmp_path / "none.json")


NUMBERS = st.floats(allow_nan=True, allow_infinity=True, width=32)
SHAPES = st.lists(st.integers(1, 3), max_size=3).map(tuple)


@given(data=st.data(), shape=SHAPES, shots=st.integers(1, 4), num_bits=st.integers(1, 70))
def test_any_samples_are_read_as_they_were_taken(
    data: st.DataObject, shape: tuple[int, ...], shots: int, num_bits: int
) -> None:
    count = int(np.prod(shape)) * shots
    numbers = data.draw(st.lists(st.integers(0, 2**num_bits - 1), min_size=count, max_size=count))
    samples = np.array([hex(number) for number in numbers], dtype=object).reshape(*shape, shots).tolist()

    bits = decoded({"results": [{"data": {"c": {"samples": samples, "num_bits": num_bits}}}]})[0].data.c

    assert (bits.shape, bits.num_shots, bits.num_bits) == (shape, shots, num_bits)
    flat = bits.array.reshape(count, -1)
    assert [int.from_bytes(shot.tobytes()) for shot in flat] == numbers


@given(evs=SHAPES.flatmap(lambda shape: arrays(np.float64, shape, elements=NUMBERS)))
@pytest.mark.parametrize("encoded", [True, False])
def test_any_numbers_are_read_in_both_shapes(evs: np.ndarray[Any, Any], *, encoded: bool) -> None:
    """NaN and Infinity, too: Python's json writes them, though JSON does not know them."""
    metadata = {"precision": float(evs.flat[0]) if evs.size else None}
    document: object = {"results": [{"data": {"evs": evs.tolist()}, "metadata": metadata}]}
    if encoded:
        document = PrimitiveResult([PubResult(DataBin(evs=evs, shape=evs.shape), metadata=metadata)])

    result = decoded(document)

    assert result[0].data.shape == evs.shape
    np.testing.assert_array_equal(result[0].data.evs, evs)
    np.testing.assert_equal(result[0].metadata, metadata)


def test_many_samples_are_put_together_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qpu_slurm.api.results._SAMPLES", 3)
    numbers = [number % 4 for number in range(10)]

    bits = decoded({"results": [{"data": {"c": {"samples": [hex(n) for n in numbers], "num_bits": 2}}}]})

    assert bits[0].data.c.array[:, 0].tolist() == numbers


@given(st.binary() | st.text().map(str.encode))
def test_no_text_is_another_error(text: bytes) -> None:
    with pytest.raises(PayloadError):
        decode(BytesIO(text), source="result.json")


@pytest.mark.parametrize("encoded", [True, False])
def test_a_result_of_100_mb_costs_a_few_times_as_much_memory(tmp_path: Path, *, encoded: bool) -> None:
    path = tmp_path / "result.json"
    packed = np.random.default_rng(7).integers(0, 256, (2_200_000, 19), dtype=np.uint8)
    if encoded:
        packed = np.concatenate([packed, packed])
        bits = BitArray(packed, 152)
        text = json.dumps(PrimitiveResult([SamplerPubResult(DataBin(meas=bits))]), cls=RuntimeEncoder)
    else:
        samples = [f"0x{shot.tobytes().hex()}" for shot in packed]
        text = json.dumps({"results": [{"data": {"meas": {"samples": samples, "num_bits": 152}}}]})
    path.write_text(text, encoding="utf-8")
    measure = (
        "import resource, sys\n"
        "import qiskit_ibm_runtime\n"
        "from qpu_slurm import read_result\n"
        "def used():\n"
        "    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024\n"
        "before = used()\n"
        "bits = read_result(sys.argv[1])[0].data.meas\n"
        "print(bits.num_shots, bits.array[-1].tobytes().hex(), used() - before)\n"
    )

    done = subprocess.run([sys.executable, "-c", measure, path], check=True, capture_output=True, text=True)

    shots, last, more = done.stdout.split()
    assert path.stat().st_size > 90_000_000
    assert (int(shots), last) == (len(packed), packed[-1].tobytes().hex())
    assert int(more) < 6 * path.stat().st_size
