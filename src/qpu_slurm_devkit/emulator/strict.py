# SPDX-License-Identifier: Apache-2.0
"""Strict mode: an input is held against what IBM publishes, so that no program is tuned to this emulator.

There are two sources: the schemas of ibm-quantum-schemas, and the checks that qiskit-ibm-runtime makes before
it submits. What the client refuses, the emulator refuses. The two differ in places: the schema refuses some
inputs that IBM's own client writes. Such a difference is logged, and the input runs.
"""

from __future__ import annotations

from importlib import metadata
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from ibm_quantum_schemas.estimator import version_0_1 as estimator
from ibm_quantum_schemas.sampler import version_0_1 as sampler
from pydantic import ValidationError
from qiskit_ibm_runtime.exceptions import IBMInputValueError
from qiskit_ibm_runtime.utils import validations

from qpu_slurm_devkit.emulator.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Sequence

_MODELS = {"sampler": sampler.ParamsModel, "estimator": estimator.ParamsModel}


def review(program_id: str, text: bytes, pubs: Sequence[Any], options: dict[str, Any]) -> list[str]:
    """Hold an input against IBM's client and IBM's schema.

    Args:
        program_id: `sampler` or `estimator`.
        text: The input, as it was submitted.
        pubs: Qiskit's pubs of it.
        options: Its options.

    Returns:
        Lines for the task's log: where the schema refuses what the client takes.

    Raises:
        InvalidInputError: IBM's client would have refused to submit it.
    """
    try:
        _as_the_client(program_id, pubs, options)
    except IBMInputValueError as error:
        version = metadata.version("qiskit-ibm-runtime")
        raise InvalidInputError(f"qiskit-ibm-runtime {version} refuses this: {error.message}") from error
    try:
        _MODELS[program_id].model_validate_json(text)
    except ValidationError as error:
        version = metadata.version("ibm-quantum-schemas")
        problems = error.errors(include_url=False, include_input=False)
        what = f"strict: ibm-quantum-schemas {version} refuses what IBM's client takes"
        return [f"{what}: {place}" for place in sorted({_place(problem) for problem in problems})]
    return []


def _as_the_client(program_id: str, pubs: Sequence[Any], options: dict[str, Any]) -> None:
    """Make the client's checks, in its order."""
    if program_id == "sampler":
        validations.validate_classical_registers(pubs)
    else:
        validations.validate_estimator_pubs(pubs)
    validations.validate_rzz_pubs(pubs)
    decoupling = SimpleNamespace(enable=(options.get("dynamical_decoupling") or {}).get("enable", False))
    circuits = [pub.circuit for pub in pubs]
    validations.validate_no_dd_with_dynamic_circuits(
        circuits, SimpleNamespace(dynamical_decoupling=decoupling)
    )


def _place(problem: Any) -> str:  # noqa: ANN401 - pydantic's ErrorDetails
    """Say in a line what a schema complains about; an input of many pubs has each complaint once."""
    where = ".".join("*" if isinstance(part, int) else str(part) for part in problem["loc"])
    return f"{where}: {problem['msg']}"
