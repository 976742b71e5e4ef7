# SPDX-License-Identifier: Apache-2.0
"""The sampler and the estimator, executed with Aer, ideal; and their results in the service's two shapes.

An input with `support_qiskit: true` is answered with what the runtime client's RuntimeEncoder makes of a
PrimitiveResult; any other with plain JSON, the samples in hexadecimal. (How plain JSON nests the results of
several parameter values is a guess.)
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
from qiskit.primitives.containers import (
    BitArray,
    DataBin,
    PrimitiveResult,
    PubResult,
    SamplerPubResult,
)
from qiskit.primitives.containers.estimator_pub import EstimatorPub
from qiskit.primitives.containers.observables_array import ObservablesArray
from qiskit.primitives.containers.sampler_pub import SamplerPub
from qiskit.quantum_info import SparsePauliOp
from qiskit_aer.primitives import EstimatorV2, SamplerV2
from qiskit_ibm_runtime import RuntimeEncoder
from qiskit_ibm_runtime.execution_span import DoubleSliceSpan, ExecutionSpans

from qpu_slurm_devkit.emulator import circuits, inputs, options
from qpu_slurm_devkit.emulator.errors import InvalidInputError, executing

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from qiskit.circuit import QuantumCircuit


def execute(
    program_id: str,
    parameters: dict[str, Any],
    configuration: Mapping[str, Any] | None,
    seed: int | None,
    *,
    review: Callable[[Sequence[Any], dict[str, Any]], list[str]] | None = None,
) -> tuple[str, dict[str, Any], str]:
    """Execute a sampler's or an estimator's input.

    Args:
        program_id: `sampler` or `estimator`.
        parameters: The input.
        configuration: The QPU's configuration; None: any circuit will do.
        seed: Makes the outcome repeatable.
        review: Looks at pubs and options first: see `strict.review`.

    Returns:
        The result's text, the metrics, and the log.
    """
    pubs: Sequence[SamplerPub | EstimatorPub]
    results: list[Any] = []
    log = []
    begin = datetime.now(UTC)
    options.check(parameters.get("options") or {})
    pubs = inputs.sampler_pubs(parameters) if program_id == "sampler" else inputs.estimator_pubs(parameters)
    with executing():
        if review is not None:
            log += [f"{line}\n" for line in review(pubs, parameters.get("options") or {})]
        for pub in pubs:
            circuits.check(pub.circuit, configuration)
            circuits.check_angles(pub)
            reduced, active = circuits.reduce(pub.circuit)
            reduced, method = circuits.method(reduced)
            log.append(
                f"{program_id}: {len(active)} of {pub.circuit.num_qubits} qubits in use, method {method}\n"
            )
            if isinstance(pub, SamplerPub):
                results.append(sample(pub, reduced, method, seed))
            else:
                results.append(_estimate(pub, reduced, active, method, seed))
    metadata: dict[str, Any] = {"version": 2}
    if program_id == "sampler":
        metadata["execution"] = {"execution_spans": _spans(results, begin, datetime.now(UTC))}
    result: PrimitiveResult[Any] = PrimitiveResult(results, metadata=metadata)
    if parameters.get("support_qiskit", True):
        text = json.dumps(result, cls=RuntimeEncoder)
    else:
        text = json.dumps(_plain(result))
    return text, metrics([pub.circuit for pub in pubs]), "".join(log)


def sample(pub: SamplerPub, reduced: QuantumCircuit, method: str, seed: int | None) -> SamplerPubResult:
    """Sample a circuit, cut down to the qubits that it uses."""
    if not pub.circuit.cregs:
        raise InvalidInputError("The circuit has no classical register, so there is nothing to sample.")
    sampler = SamplerV2(seed=seed, options={"backend_options": {"method": method}})
    small = SamplerPub(reduced, pub.parameter_values, pub.shots)
    data = sampler.run([small]).result()[0].data
    return SamplerPubResult(data, metadata={"circuit_metadata": pub.circuit.metadata or {}})


def metrics(executed: Sequence[QuantumCircuit]) -> dict[str, Any]:
    """Count what was executed, as the service's metrics do."""
    return {
        "executions": len(executed),
        "num_circuits": len(executed),
        "num_qubits": [circuit.num_qubits for circuit in executed],
        "circuit_depths": [circuit.depth() for circuit in executed],
    }


def _estimate(
    pub: EstimatorPub, reduced: QuantumCircuit, active: list[int], method: str, seed: int | None
) -> PubResult:
    """Estimate observables, cut down to the qubits in use; the others are in state 0."""
    observables = np.empty(pub.observables.shape, dtype=object)
    for index in np.ndindex(pub.observables.shape):
        observables[index] = _restrict(pub.observables, index, active)
    reduced.remove_final_measurements()
    small = EstimatorPub(reduced, ObservablesArray(observables), pub.parameter_values, pub.precision)
    run_options = {} if seed is None else {"seed_simulator": seed}
    estimator = EstimatorV2(options={"backend_options": {"method": method}, "run_options": run_options})
    data = estimator.run([small]).result()[0].data
    shots = max(1, round(1 / pub.precision**2)) if pub.precision else 0
    return PubResult(
        DataBin(
            evs=np.asarray(data.evs),
            stds=np.asarray(data.stds),
            ensemble_standard_error=np.asarray(data.stds),
            shape=pub.shape,
        ),
        metadata={
            "shots": shots,
            "target_precision": pub.precision,
            "circuit_metadata": pub.circuit.metadata or {},
            "resilience": {},
            "num_randomizations": 1,
        },
    )


def _restrict(observables: ObservablesArray, index: tuple[int, ...], active: list[int]) -> dict[str, float]:
    """Restrict an observable to certain qubits, the others being in state 0: Z counts 1 there, X and Y 0."""
    full = SparsePauliOp.from_sparse_observable(observables.slice(index).as_paulis()).simplify()
    idle = np.ones(full.num_qubits, dtype=bool)
    idle[active] = False
    restricted: dict[str, float] = {}
    for pauli, coefficient in zip(full.paulis, full.coeffs, strict=True):
        if not pauli.x[idle].any():
            label = pauli[active].to_label().lstrip("-i")
            restricted[label] = restricted.get(label, 0.0) + float(coefficient.real)
    return restricted or {"I" * len(active): 0.0}


def _spans(results: Sequence[SamplerPubResult], begin: datetime, end: datetime) -> ExecutionSpans:
    """Say when which shots were taken: all of them, all the time."""
    slices = {}
    for index, result in enumerate(results):
        shape = next(iter(result.data.values())).shape
        shots = next(iter(result.data.values())).num_shots
        slices[index] = ((*shape, shots), slice(0, int(np.prod(shape, dtype=int))), slice(0, shots))
    return ExecutionSpans([DoubleSliceSpan(begin, end, slices)])


def _plain(result: PrimitiveResult[Any]) -> dict[str, Any]:
    """Write a result as the service does for those without Qiskit."""
    return {
        "results": [
            {
                "data": {name: _plain_field(value) for name, value in pub_result.data.items()},
                "metadata": pub_result.metadata,
            }
            for pub_result in result
        ],
        "metadata": {"version": 2},
    }


def _plain_field(value: BitArray | np.ndarray[Any, Any]) -> Any:  # noqa: ANN401 (lists of lists of …)
    """Write a field of a result in plain JSON."""
    if isinstance(value, BitArray):
        return {"samples": _samples(value.array), "num_bits": value.num_bits}
    return value.tolist()


def _samples(packed: np.ndarray[Any, Any]) -> list[Any]:
    """Write shots in hexadecimal, without leading zeros; one list for each parameter value set."""
    if packed.ndim > 2:  # noqa: PLR2004 (the last two axes are shots and bytes)
        return [_samples(part) for part in packed]
    return [hex(int.from_bytes(shot.tobytes())) for shot in packed]
