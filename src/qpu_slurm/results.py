# SPDX-License-Identifier: Apache-2.0
"""Reading task_runner's results.

The service writes a result in one of two shapes, after what the input's `support_qiskit` said:

- true: a PrimitiveResult as qiskit-ibm-runtime's RuntimeEncoder writes it;
- false: `{"results": [{"data": …, "metadata": …}], "metadata": …}`, where a sampler's data are
  `{register: {"samples": ["0x3", …], "num_bits": 2}}` and an estimator's `{"evs": …, "stds": …, …}`.
"""

from __future__ import annotations

import json
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from qpu_slurm.errors import PayloadError

if TYPE_CHECKING:
    import os

    from qiskit.primitives import BitArray, DataBin, PrimitiveResult
    from qiskit_ibm_runtime.results import QuantumProgramResult


class _Shape(msgspec.Struct):
    """As much of a result as tells which shape it has."""

    type: str = msgspec.field(name="__type__", default="")
    results: msgspec.Raw = msgspec.Raw()


class _PubResult(msgspec.Struct):
    data: dict[str, Any]
    metadata: dict[str, Any] = {}


class _PlainResult(msgspec.Struct):
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
    return decode(_read(path), source=str(path))


def read_executor_result(path: str | os.PathLike[str]) -> QuantumProgramResult:
    """Read the result of an executor's input that task_runner wrote.

    Args:
        path: The file.

    Returns:
        What the `Executor`'s `job.result()` would have returned.

    Raises:
        PayloadError: The file cannot be read, or is no executor's result, or the installed qiskit-ibm-runtime
            has no executor.
    """
    data = _read(path)
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
        return ExecutorResultDecoder.decode(data.decode())
    except Exception as error:  # decoders stumble over a damaged file in every way
        raise PayloadError(f"{path}: this is not an executor's result ({error}).") from error


def decode(data: bytes, *, source: str) -> PrimitiveResult[Any]:
    """Decode the text of a result.

    Args:
        data: The text.
        source: What to call it in errors.

    Raises:
        PayloadError: It is not the result of a sampler or an estimator.
    """
    try:
        shape = msgspec.json.decode(data, type=_Shape)
        if memoryview(shape.results):
            return _plain(data)
        if shape.type == "PrimitiveResult":
            return _encoded(data)
    except Exception as error:  # decoders stumble over a damaged file in every way
        raise PayloadError(f"{source}: this is not a primitive's result ({error}).") from error
    raise PayloadError(
        f"{source}: this is not the result of a sampler or an estimator. "
        "An executor's result is read by read_executor_result."
    )


def _read(path: str | os.PathLike[str]) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise PayloadError(f"The result {path} cannot be read: {error.strerror}.") from error


def _encoded(data: bytes) -> PrimitiveResult[Any]:
    """Decode a result of the first shape."""
    from qiskit_ibm_runtime import RuntimeDecoder  # noqa: PLC0415 - a second and a half, and only for this shape

    result: PrimitiveResult[Any] = json.loads(data, cls=RuntimeDecoder)
    return result


def _plain(data: bytes) -> PrimitiveResult[Any]:
    """Decode a result of the second shape."""
    from qiskit.primitives import PrimitiveResult, PubResult, SamplerPubResult  # noqa: PLC0415 - likewise

    plain = msgspec.json.decode(data, type=_PlainResult)
    pubs = []
    for pub in plain.results:
        kind = PubResult if "evs" in pub.data else SamplerPubResult
        pubs.append(kind(_data_bin(pub.data), metadata=pub.metadata))
    return PrimitiveResult(pubs, metadata=plain.metadata)


def _data_bin(data: dict[str, Any]) -> DataBin:
    """Build what one pub yielded: a register's samples, or arrays of numbers."""
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
    """Build a register's samples; they are nested as the pub's parameter values are, the shots innermost."""
    from qiskit.primitives import BitArray  # noqa: PLC0415 - likewise

    shape, inner = [], samples
    while isinstance(inner[0], list):
        shape.append(len(inner))
        inner = inner[0]
    for _ in shape:
        samples = list(chain.from_iterable(samples))
    flat = BitArray.from_samples(samples, num_bits)
    return BitArray(flat.array.reshape(*shape, len(inner), -1), num_bits)
