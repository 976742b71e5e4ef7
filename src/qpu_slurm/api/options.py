# SPDX-License-Identifier: Apache-2.0
"""Converts a primitive's options to the service's names, from each form that Qiskit's users have.

The forms are a dictionary, the SamplerOptions and EstimatorOptions of qiskit-ibm-runtime's primitives, and
those of its executor-based primitives, in any release that has them.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from qpu_slurm.errors import PayloadError

_ELSEWHERE: Final = {
    "max_execution_time": "give task_runner --timeout, or execute(timeout=…); the admin limits the QPU time",
    "environment": "give task_runner --tag, or execute(tags=…)",
}
"""Options of the client that are not part of a program's, and where to set them instead."""


class Given(NamedTuple):
    """A primitive's settings.

    Attributes:
        options: Its options, in plain JSON except for the client's own objects.
        resilience_level: An estimator's; None leaves it to the service.
    """

    options: dict[str, Any]
    resilience_level: int | None


def plain(options: object) -> Given:
    """Read options.

    Args:
        options: A mapping, SamplerOptions, EstimatorOptions, or None.

    Raises:
        PayloadError: They have another type, an option that an input cannot hold, or NaN or infinity.
    """
    if options is None:
        return Given({}, None)
    given = number_free(_as_mapping(options), "options")
    for name, advice in _ELSEWHERE.items():
        if given.pop(name, None) is not None:
            raise PayloadError(f"options.{name} is no part of an input: {advice}.")
    level = given.pop("resilience_level", None)
    return Given(given, level)


def number_free(value: Any, place: str) -> Any:  # noqa: ANN401 - JSON, and NumPy's numbers in it
    """Convert NumPy's numbers to Python's, at any depth.

    Args:
        value: A value that may contain them.
        place: Its name in errors.

    Raises:
        PayloadError: A number is NaN or infinite.
    """
    import numpy as np  # noqa: PLC0415 - it comes with Qiskit

    if isinstance(value, Mapping):
        return {key: number_free(each, f"{place}.{key}") for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [number_free(each, f"{place}[{index}]") for index, each in enumerate(value)]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        raise PayloadError(f"{place} is {value}: it has to be a number, and finite.")
    return value


def _as_mapping(options: object) -> dict[str, Any]:
    if isinstance(options, Mapping):
        return dict(options)
    if hasattr(options, "model_dump"):
        # What is as the client has it by default is left to the service.
        return dict(options.model_dump(exclude_defaults=True))
    if dataclasses.is_dataclass(options) and not isinstance(options, type):
        return _of_dataclass(options)
    raise PayloadError(
        f"options: {type(options).__name__} is not known. "
        "Give a dictionary, SamplerOptions or EstimatorOptions."
    )


def _of_dataclass(options: Any) -> dict[str, Any]:  # noqa: ANN401 - of the client's
    """Read the options of the client's first primitives, which mark by Unset what is not said."""
    defaults = dataclasses.asdict(type(options)())
    given = dataclasses.asdict(options)
    elsewhere = {name: given[name] for name in _ELSEWHERE if name in given and given[name] != defaults[name]}
    inputs = type(options)._get_program_inputs(given)  # noqa: SLF001 - it is the client's only way
    level = {"resilience_level": inputs["resilience_level"]} if "resilience_level" in inputs else {}
    return {**inputs["options"], **level, **elsewhere}
