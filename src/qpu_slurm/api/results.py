# SPDX-License-Identifier: Apache-2.0
"""Reads task_runner's results.

The service writes a result in one of two shapes, which depend on the input's `support_qiskit`:

- true: a PrimitiveResult as qiskit-ibm-runtime's RuntimeEncoder writes it;
- false: `{"results": [{"data": …, "metadata": …}], "metadata": …}`, where a sampler's data are
  `{register: {"samples": ["0x3", …], "num_bits": 2}}` and an estimator's `{"evs": …, "stds": …, …}`.
"""

from __future__ import annotations

import json
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

import msgspec

from qpu_slurm.errors import PayloadError

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator

    from qiskit.primitives import BitArray, DataBin, PrimitiveResult
    from qiskit_ibm_runtime.results import QuantumProgramResult


_SAMPLES: Final = 1 << 16


class _Shape(msgspec.Struct):
    """The part of a result that shows which shape it has."""

    type: str = msgspec.field(name="__type__", default="")
    results: msgspec.Raw = msgspec.Raw()


class _PubResult(msgspec.Struct):
    data: dict[str, Any]
    metadata: dict[str, Any] = {}


class _PlainResult(msgspec.Struct):
    results: list[msgspec.Raw]  # one after the other: a result of many pubs is in memory once
    metadata: dict[str, Any] = {}


class _PlainResultWithNan(msgspec.Struct):
    """The same for a text with NaN or Infinity, which Python writes, but JSON does not allow."""

    results: list[_PubResult]
    metadata: dict[str, Any] = {}


def read_result(path: str | os.PathLike[str]) -> PrimitiveResult[Any]:
    """Read a result that task_runner wrote.

    Args:
        path: The file.

    Returns:
        What the primitive's `job.result()` would have returned.

    Raises:
        PayloadError: The file cannot be read, or is not the result of a sampler or an estimator.
    """
    with _opened(path) as file:
        return decode(file, source=str(path))


def read_executor_result(path: str | os.PathLike[str]) -> QuantumProgramResult:
    """Read the result of an executor's input that task_runner wrote.

    Args:
        path: The file.

    Returns:
        What the `Executor`'s `job.result()` would have returned.

    Raises:
        PayloadError: The file cannot be read or is not an executor's result, or the installed
            qiskit-ibm-runtime has no executor.
    """
    try:
        from qiskit_ibm_runtime.decoders.executor.decoder import (  # noqa: PLC0415 - a second and a half
            ExecutorResultDecoder,
        )
    except ImportError as error:
        raise PayloadError(
            f"An executor's result needs qiskit-ibm-runtime 0.50 or newer ({error}): "
            "pip install --upgrade qiskit-ibm-runtime."
        ) from error
    try:
        with _opened(path) as file:
            return ExecutorResultDecoder.decode(file.read().decode())
    except PayloadError:
        raise
    except Exception as error:  # decoders stumble over a damaged file in every way
        raise PayloadError(f"{path}: this is not an executor's result ({error}).") from error


def decode(file: IO[bytes], *, source: str) -> PrimitiveResult[Any]:
    """Decode a result.

    Args:
        file: The file with its text.
        source: Its name in errors.

    Raises:
        PayloadError: The file cannot be read, or is not the result of a sampler or an estimator.
    """
    try:
        text = file.read()
        shape = _shape(text)
        if memoryview(shape.results):
            return _plain(text)
        if shape.type == "PrimitiveResult":
            string = text.decode()
            del text, shape  # 100 MB less to hold on to
            return _encoded(string)
    except Exception as error:  # decoders stumble over a damaged file in every way
        raise PayloadError(f"{source}: this is not a primitive's result ({error}).") from error
    raise PayloadError(
        f"{source}: this is not the result of a sampler or an estimator. "
        "An executor's result is read by read_executor_result."
    )


@contextmanager
def _opened(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """Open a result."""
    try:
        file = Path(path).open("rb")  # noqa: SIM115 - below; what is done with it has errors of its own
    except OSError as error:
        raise PayloadError(f"The result {path} cannot be read: {error.strerror}.") from error
    with file:
        yield file


def _shape(text: bytes) -> _Shape:
    try:
        return msgspec.json.decode(text, type=_Shape)
    except msgspec.ValidationError:
        raise
    except msgspec.DecodeError:
        document = json.loads(text)
        return _Shape(document.get("__type__", ""), msgspec.Raw(b"[]" if "results" in document else b""))


def _encoded(text: str) -> PrimitiveResult[Any]:
    """Decode a result of the first shape."""
    from qiskit_ibm_runtime import RuntimeDecoder  # noqa: PLC0415 - a second and a half, and only for this shape

    result: PrimitiveResult[Any] = json.loads(text, cls=RuntimeDecoder)
    return result


def _plain(text: bytes) -> PrimitiveResult[Any]:
    """Decode a result of the second shape."""
    from qiskit.primitives import PrimitiveResult, PubResult, SamplerPubResult  # noqa: PLC0415 - likewise

    pubs = []
    found, metadata = _pub_results(text)
    for pub in found:
        kind = PubResult if "evs" in pub.data else SamplerPubResult
        pubs.append(kind(_data_bin(pub.data), metadata=pub.metadata))
    return PrimitiveResult(pubs, metadata=metadata)


def _pub_results(text: bytes) -> tuple[Iterator[_PubResult], dict[str, Any]]:
    """Split a result of the second shape into its pubs and its metadata."""
    try:
        plain = msgspec.json.decode(text, type=_PlainResult)
    except msgspec.ValidationError:
        raise
    except msgspec.DecodeError:
        same = msgspec.convert(json.loads(text), _PlainResultWithNan)
        return iter(same.results), same.metadata
    return (msgspec.json.decode(raw, type=_PubResult) for raw in plain.results), plain.metadata


def _data_bin(data: dict[str, Any]) -> DataBin:
    """Build the data of one pub: samples of registers, or arrays of numbers."""
    import numpy as np  # noqa: PLC0415 - it comes with Qiskit, which is not needed before
    from qiskit.primitives import DataBin  # noqa: PLC0415 - likewise

    fields: dict[str, Any] = {}
    for name, value in data.items():
        if isinstance(value, dict):
            fields[name] = _bit_array(value["samples"], value["num_bits"])
        else:
            fields[name] = np.asarray(value) if isinstance(value, (list, int, float)) else value
    # All that a pub yields leads with the pub's shape, and some arrays have more axes behind it.
    shape = min((field.shape for field in fields.values() if hasattr(field, "shape")), key=len, default=())
    return DataBin(shape=shape, **fields)


def _bit_array(samples: list[Any], num_bits: int) -> BitArray:
    """Build a register's samples, nested as the pub's parameter values are, with the shots innermost."""
    import numpy as np  # noqa: PLC0415 - likewise
    from qiskit.primitives import BitArray  # noqa: PLC0415 - likewise

    shape, inner = [], samples
    while isinstance(inner[0], list):
        shape.append(len(inner))
        inner = inner[0]
    for _ in shape:
        samples = list(chain.from_iterable(samples))
    # A part at a time: what Qiskit makes of many samples on the way to their bits is several times as big.
    parts = (samples[start : start + _SAMPLES] for start in range(0, len(samples), _SAMPLES))
    flat = np.concatenate([BitArray.from_samples(part, num_bits).array for part in parts])
    return BitArray(flat.reshape(*shape, len(inner), -1), num_bits)
