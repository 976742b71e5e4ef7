# SPDX-License-Identifier: Apache-2.0
"""Results of both shapes are what Qiskit's primitives would have returned."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from qiskit.primitives import BitArray, DataBin, PrimitiveResult, PubResult, SamplerPubResult
from qiskit_ibm_runtime import RuntimeEncoder

from qpu_slurm import read_result
from qpu_slurm.errors import PayloadError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Read = Callable[[object], PrimitiveResult[Any]]


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
