# SPDX-License-Identifier: Apache-2.0
"""Writing primitive inputs for task_runner.

Circuits are written as QPY, in the encoding that qiskit-ibm-runtime uses itself, so that everything a
circuit holds, its parameters' names and order included, is what the QPU gets. They have to be transpiled
for the QPU before (`Qpu.backend`, `Qpu.target`): the service takes nothing else.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from qpu_slurm.tasks.output import Output

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Iterator, Mapping

    from qiskit.primitives.containers import EstimatorPubLike, SamplerPubLike


def write_sampler_input(
    path: str | os.PathLike[str],
    pubs: Iterable[SamplerPubLike],
    *,
    shots: int | None = None,
    options: Mapping[str, Any] | None = None,
) -> None:
    """Write an input that samples circuits.

    Args:
        path: The file; it appears whole or not at all.
        pubs: As for Qiskit's `SamplerV2.run`: circuits, or (circuit, parameter values, shots).
        shots: For pubs that do not say; None leaves it to the service.
        options: The sampler's options as the service names them, such as
            `{"dynamical_decoupling": {"enable": True}}`.

    Raises:
        OutputError: The file cannot be written.
    """
    from qiskit.primitives.containers.sampler_pub import SamplerPub  # noqa: PLC0415 - half a second

    _write(path, "sampler", [SamplerPub.coerce(pub, shots) for pub in pubs], options)


def write_estimator_input(
    path: str | os.PathLike[str],
    pubs: Iterable[EstimatorPubLike],
    *,
    precision: float | None = None,
    options: Mapping[str, Any] | None = None,
    resilience_level: int | None = None,
) -> None:
    """Write an input that estimates observables' expectation values.

    Args:
        path: The file; it appears whole or not at all.
        pubs: As for Qiskit's `EstimatorV2.run`: (circuit, observables, parameter values, precision). An
            observable has to have the circuit's layout (`observable.apply_layout(circuit.layout)`).
        precision: For pubs that do not say; None leaves it to the service.
        options: The estimator's options as the service names them.
        resilience_level: How much to do against errors, 0 to 2; None leaves it to the service.

    Raises:
        OutputError: The file cannot be written.
    """
    from qiskit.primitives.containers.estimator_pub import EstimatorPub  # noqa: PLC0415 - half a second

    more = {} if resilience_level is None else {"resilience_level": resilience_level}
    _write(path, "estimator", [EstimatorPub.coerce(pub, precision) for pub in pubs], options, more)


def _write(
    path: str | os.PathLike[str],
    program_id: str,
    pubs: list[Any],
    options: Mapping[str, Any] | None,
    more: Mapping[str, Any] | None = None,
) -> None:
    """Write an input in the form that qiskit-ibm-runtime's primitives send."""
    from qiskit_ibm_runtime import RuntimeEncoder  # noqa: PLC0415 - a second and a half

    document = {
        "program_id": program_id,
        "parameters": {
            "pubs": pubs,
            "options": dict(options or {}),
            "version": 2,
            "support_qiskit": True,
            **(more or {}),
        },
    }

    def pieces() -> Iterator[bytes]:
        for piece in RuntimeEncoder(allow_nan=False).iterencode(document):
            yield piece.encode()

    with Output(Path(path)) as output:
        output.write(pieces())
