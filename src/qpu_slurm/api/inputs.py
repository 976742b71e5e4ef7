# SPDX-License-Identifier: Apache-2.0
"""Writing primitive inputs, for task_runner and for `qpu_slurm.execute`.

Transpile the circuits for the QPU first (`Qpu.backend`, `Qpu.target`): the service accepts nothing else.
They are written as QPY or as OpenQASM 3. QPY is in qiskit-ibm-runtime's own encoding, and keeps everything
that a circuit has, including the names and the order of its parameters. Other tools can read OpenQASM 3.

An input records the QPU and the calibration that its circuits were transpiled for, and what they need. When
the input is executed, a newer calibration is noticed, and a QPU that the circuits do not fit is refused. The
record is never sent to the service.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict, Unpack

from qpu_slurm.api import qasm3
from qpu_slurm.api.checks import check_estimator, check_executor, check_sampler, made_of
from qpu_slurm.api.options import plain
from qpu_slurm.errors import PayloadError
from qpu_slurm.system.atomic_file import Output
from qpu_slurm.tasks import calibration

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Iterator

    from qiskit import QuantumCircuit
    from qiskit.primitives.containers import EstimatorPubLike, SamplerPubLike
    from qiskit.primitives.containers.estimator_pub import EstimatorPub
    from qiskit.primitives.containers.sampler_pub import SamplerPub
    from qiskit.providers import BackendV2
    from qiskit_ibm_runtime import ExecutorOptions, QuantumProgram

CircuitFormat = Literal["qpy", "qasm3"]
"""How circuits are written: as QPY or as OpenQASM 3."""

Options = Mapping[str, Any] | object | None
"""A primitive's options: a mapping with the service's names, or an object of qiskit-ibm-runtime."""


def write_sampler_input(
    path: str | os.PathLike[str],
    pubs: Iterable[SamplerPubLike],
    *,
    shots: int | None = None,
    options: Options = None,
    format: CircuitFormat = "qpy",  # noqa: A002 - the word for it
    backend: BackendV2 | None = None,
) -> None:
    """Write an input that samples circuits.

    Args:
        path: The file. It appears complete or not at all.
        pubs: As for Qiskit's `SamplerV2.run`: circuits, or (circuit, parameter values, shots).
        shots: For pubs without a number of their own; None leaves it to the service.
        options: The sampler's options: SamplerOptions, or a mapping with the service's names, such as
            `{"dynamical_decoupling": {"enable": True}}`.
        format: How circuits are written: "qpy" or "qasm3".
        backend: What the circuits were transpiled for; None is the QPU whose target this program has used.

    Raises:
        PayloadError: The newest client would refuse it, a number is NaN or infinite, or a circuit cannot be
            written in that format.
        OutputError: The file cannot be written.
    """
    _write(path, sampler_document(pubs, shots=shots, options=options, format=format, backend=backend))


def write_estimator_input(
    path: str | os.PathLike[str],
    pubs: Iterable[EstimatorPubLike],
    *,
    precision: float | None = None,
    options: Options = None,
    resilience_level: int | None = None,
    format: CircuitFormat = "qpy",  # noqa: A002 - the word for it
    backend: BackendV2 | None = None,
) -> None:
    """Write an input that estimates expectation values of observables.

    Args:
        path: The file. It appears complete or not at all.
        pubs: As for Qiskit's `EstimatorV2.run`: (circuit, observables, parameter values, precision). An
            observable needs the circuit's layout (`observable.apply_layout(circuit.layout)`).
        precision: For pubs without one of their own; None leaves it to the service.
        options: The estimator's options: EstimatorOptions, or a mapping with the service's names.
        resilience_level: How much error mitigation to use, 0 to 2; None leaves it to the service.
        format: How circuits are written: "qpy" or "qasm3".
        backend: What the circuits were transpiled for; None is the QPU whose target this program has used.

    Raises:
        PayloadError: The newest client would refuse it, a number is NaN or infinite, or a circuit cannot be
            written in that format.
        OutputError: The file cannot be written.
    """
    document = estimator_document(pubs, precision=precision, options=options, format=format, backend=backend)
    if resilience_level is not None:
        document["parameters"]["resilience_level"] = int(resilience_level)
    _write(path, document)


def write_executor_input(
    path: str | os.PathLike[str],
    program: QuantumProgram,
    *,
    options: ExecutorOptions | None = None,
    backend: BackendV2 | None = None,
) -> None:
    """Write an input that executes a quantum program, as qiskit-ibm-runtime's `Executor` does.

    Args:
        path: The file. It appears complete or not at all.
        program: What `Executor.run` takes.
        options: The executor's options; None means its defaults.
        backend: What the circuits were transpiled for; None is the QPU whose target this program has used.

    Raises:
        PayloadError: The installed qiskit-ibm-runtime has no executor.
        OutputError: The file cannot be written.
    """
    try:
        from qiskit_ibm_runtime import ExecutorOptions, QuantumProgram  # noqa: PLC0415 - a second and a half
        from qiskit_ibm_runtime.quantum_program.params_converters import (  # noqa: PLC0415 - likewise
            QUANTUM_PROGRAM_PARAMS_CONVERTERS,
        )
    except ImportError as error:
        raise PayloadError(
            f"An executor's input needs qiskit-ibm-runtime 0.50 or newer ({error}): "
            "pip install --upgrade qiskit-ibm-runtime."
        ) from error
    if not isinstance(program, QuantumProgram):
        program = QuantumProgram.from_(program)
    check_executor(program)
    # The newest schema that the client knows, as its own Executor takes.
    *_, converter = QUANTUM_PROGRAM_PARAMS_CONVERTERS.values()
    parameters = converter.encoder(program, options or ExecutorOptions()).model_dump(mode="json")
    circuits = [item.circuit for item in program.items]
    _write(path, _document("executor", parameters, circuits, backend))


class _How(TypedDict, total=False):
    """The arguments that samplers' and estimators' inputs share."""

    options: Options
    format: CircuitFormat
    backend: BackendV2 | None


def sampler_document(
    pubs: Iterable[SamplerPubLike], *, shots: int | None = None, **how: Unpack[_How]
) -> dict[str, Any]:
    """Make a sampler's input; see `write_sampler_input`."""
    from qiskit.primitives.containers.sampler_pub import SamplerPub  # noqa: PLC0415 - half a second

    def row(pub: SamplerPub) -> tuple[Any, ...]:
        return _values(pub), None if pub.shots is None else int(pub.shots)

    return _primitive("sampler", [SamplerPub.coerce(pub, shots) for pub in pubs], check_sampler, row, **how)


def estimator_document(
    pubs: Iterable[EstimatorPubLike], *, precision: float | None = None, **how: Unpack[_How]
) -> dict[str, Any]:
    """Make an estimator's input; see `write_estimator_input`."""
    from qiskit.primitives.containers.estimator_pub import EstimatorPub  # noqa: PLC0415 - half a second

    def row(pub: EstimatorPub) -> tuple[Any, ...]:
        return pub.observables.tolist(), _values(pub), None if pub.precision is None else float(pub.precision)

    coerced = [EstimatorPub.coerce(pub, precision) for pub in pubs]
    return _primitive("estimator", coerced, check_estimator, row, **how)


def pieces(document: Mapping[str, Any]) -> Iterator[bytes]:
    """Write an input in the form that qiskit-ibm-runtime's primitives send, in pieces."""
    from qiskit_ibm_runtime import RuntimeEncoder  # noqa: PLC0415 - a second and a half

    for piece in RuntimeEncoder(allow_nan=False).iterencode(document):
        yield piece.encode()


def _write(path: str | os.PathLike[str], document: Mapping[str, Any]) -> None:
    with Output(Path(path)) as output:
        output.write(pieces(document))


def _document(
    program_id: str,
    parameters: dict[str, Any],
    circuits: Iterable[QuantumCircuit],
    backend: BackendV2 | None,
) -> dict[str, Any]:
    """Put together an input, and what it was transpiled for, if that is known."""
    made_for = calibration.seen() if backend is None else calibration.of_backend(backend)
    known = (
        {}
        if made_for is None
        else {
            "qpu_slurm": {
                "backend": made_for.backend,
                "calibrated_at": made_for.calibrated_at.isoformat(),
                **made_of(circuits),
            }
        }
    )
    return {"program_id": program_id, **known, "parameters": parameters}


def _primitive(
    program_id: str,
    pubs: list[Any],
    check: Callable[[list[Any], dict[str, Any]], None],
    row: Callable[[Any], tuple[Any, ...]],
    *,
    options: Options = None,
    format: CircuitFormat = "qpy",  # noqa: A002 - the word for it
    backend: BackendV2 | None = None,
) -> dict[str, Any]:
    """Make the input of a primitive; `row` returns what follows the circuit in a pub."""
    given, resilience_level = plain(options)
    check(pubs, given)
    written = [(_circuit(pub.circuit, format), *row(pub)) for pub in pubs]
    parameters = {"pubs": written, "options": given, "version": 2, "support_qiskit": True}
    if program_id == "estimator" and resilience_level is not None:
        parameters["resilience_level"] = resilience_level
    return _document(program_id, parameters, [pub.circuit for pub in pubs], backend)


def _values(pub: SamplerPub | EstimatorPub) -> Any:  # noqa: ANN401 - an array of NumPy's
    return pub.parameter_values.as_array(pub.circuit.parameters)


def _circuit(circuit: QuantumCircuit, format: CircuitFormat) -> QuantumCircuit | str:  # noqa: A002 - as above
    """Return a circuit as it is written: the encoder makes QPY of Qiskit's."""
    if format == "qasm3":
        return qasm3.written(circuit)
    if format == "qpy":
        return circuit
    raise PayloadError(f'There is no format {format!r}: there are "qpy" and "qasm3".')
