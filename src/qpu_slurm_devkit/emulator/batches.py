# SPDX-License-Identifier: Apache-2.0
"""A batch of circuits in IQM's format, executed with Aer, with the chip's errors as noise.

Only the qubits that a circuit uses are simulated. Each gate is followed by a depolarizing error and by
relaxation for as long as it takes; each bit is read wrong as often as the chip's metrics say. That is how
iqm-client's own fake backends simulate, too; the numbers are those of `iqm.chip`.
"""

from __future__ import annotations

from itertools import permutations
from typing import TYPE_CHECKING, Any, Final

import msgspec
from qiskit.circuit import QuantumCircuit
from qiskit_aer import AerSimulator
from qiskit_aer.noise import NoiseModel, ReadoutError, depolarizing_error, thermal_relaxation_error

from qpu_slurm_devkit.emulator.errors import InvalidInputError
from qpu_slurm_devkit.emulator.noise import Noise

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_QISKIT_NAMES: Final = {"prx": "r", "cz": "cz"}

_ONLY: Final[Mapping[str, object]] = {"heralding_mode": "none", "dd_mode": "disabled"}
"""Options that are emulated for one value only: another would change the result."""


class Operation(msgspec.Struct):
    """One instruction of a circuit; clients of 2025 wrote `qubits` for `locus`."""

    name: str
    locus: list[str] = []
    qubits: list[str] = []
    args: dict[str, Any] = {}
    implementation: str | None = None


class Circuit(msgspec.Struct):
    """One circuit of a batch."""

    name: str
    instructions: list[Operation]


class Job(msgspec.Struct):
    """A job's payload."""

    circuits: list[Circuit]
    shots: int = 1
    qubit_mapping: list[dict[str, str]] | None = None
    heralding_mode: str = "none"
    dd_mode: str = "disabled"


def execute(payload: bytes, noise: bytes, seed: int | None) -> tuple[str, str]:
    """Execute a batch.

    Args:
        payload: The batch, as JSON text.
        noise: The chip's `Noise`, likewise.
        seed: Makes the outcome repeatable.

    Returns:
        The result, with both artifacts in it, and the log.

    Raises:
        InvalidInputError: It cannot be executed on the chip.
    """
    chip = msgspec.json.decode(noise, type=Noise)
    try:
        job = msgspec.json.decode(payload, type=Job)
    except msgspec.MsgspecError as error:
        raise InvalidInputError(f"This is no batch of circuits: {error}.") from None
    for name, value in _ONLY.items():
        if getattr(job, name) != value:
            raise InvalidInputError(f"The emulator does not emulate {name}={getattr(job, name)!r}.")
    physical = {each["logical_name"]: each["physical_name"] for each in job.qubit_mapping or ()}
    measurements, counts, log = [], [], []
    for circuit in job.circuits:
        program, keys, qubits = _program(circuit, chip, physical)
        simulator = AerSimulator(noise_model=_noise_model(chip, qubits), seed_simulator=seed)
        run = simulator.run(program, shots=job.shots, memory=True).result()
        # Aer writes the last bit first.
        shots = [shot[::-1] for shot in run.get_memory()]
        measurements.append(
            {key: [[int(shot[bit]) for bit in bits] for shot in shots] for key, bits in keys.items()}
        )
        order = [bit for bits in keys.values() for bit in bits]
        found: dict[str, int] = {}
        for shot in shots:
            text = "".join(shot[bit] for bit in order)
            found[text] = found.get(text, 0) + 1
        counts.append({"measurement_keys": list(keys), "counts": found})
        log.append(f"{circuit.name}: {len(qubits)} qubits, {job.shots} shots\n")
    result = {"measurements": measurements, "measurement_counts": counts}
    return msgspec.json.encode(result).decode(), "".join(log)


def _program(
    circuit: Circuit, chip: Noise, physical: Mapping[str, str]
) -> tuple[QuantumCircuit, dict[str, list[int]], list[str]]:
    """Translate a circuit; return it, the bits of each measurement, and the qubits in use."""
    steps = [
        (step, [physical.get(name, name) for name in step.locus or step.qubits])
        for step in circuit.instructions
    ]
    for step, locus in steps:
        _check(step.name, locus, chip)
    qubits = list(dict.fromkeys(name for _, locus in steps for name in locus))
    width = sum(len(locus) for step, locus in steps if step.name == "measure")
    if not width:
        raise InvalidInputError(f"The circuit {circuit.name!r} has no measurement.")
    program = QuantumCircuit(len(qubits), width)
    keys: dict[str, list[int]] = {}
    used = 0
    for step, locus in steps:
        places = [qubits.index(name) for name in locus]
        match step.name:
            case "prx":
                program.r(*_angles(step.args), places[0])
            case "cz":
                program.cz(*places)
            case "barrier":
                program.barrier(*places)
            case _:
                bits = list(range(used, used + len(places)))
                used += len(places)
                program.measure(places, bits)
                keys.setdefault(str(step.args.get("key", "")), []).extend(bits)
    return program, keys, qubits


def _angles(arguments: Mapping[str, Any]) -> tuple[float, float]:
    try:
        return float(arguments["angle"]), float(arguments["phase"])
    except (KeyError, TypeError, ValueError):
        raise InvalidInputError("prx takes an angle and a phase, in radians.") from None


def _check(name: str, locus: Sequence[str], chip: Noise) -> None:
    """Check that the chip has a gate on a locus; that of cz has no order.

    Raises:
        InvalidInputError: It has not.
    """
    if name == "barrier":
        return
    if name not in chip.loci:
        raise InvalidInputError(f"{name!r} is not among the calibrated gates: {', '.join(chip.loci)}.")
    parts = [[qubit] for qubit in locus] if name == "measure" else [list(locus)]
    for part in parts:
        if part not in chip.loci[name] and part[::-1] not in chip.loci[name]:
            raise InvalidInputError(f"{'-'.join(part)} is not allowed as a locus for {name!r}.")


def _noise_model(chip: Noise, qubits: Sequence[str]) -> NoiseModel:
    """Return the chip's errors, as far as they concern the qubits in use."""
    model = NoiseModel(basis_gates=list(_QISKIT_NAMES.values()))
    for gate, name in _QISKIT_NAMES.items():
        relaxed = thermal_relaxation_error(chip.t1, chip.t2, chip.seconds[gate])
        for locus, size in chip.errors[gate].items():
            parts = locus.split(",")
            if not {*parts} <= {*qubits}:
                continue
            error = relaxed.tensor(relaxed) if len(parts) > 1 else relaxed
            error = error.compose(depolarizing_error(size, len(parts)))
            for order in permutations(parts):
                model.add_quantum_error(error, name, [qubits.index(qubit) for qubit in order])
    for qubit, size in chip.errors["measure"].items():
        if qubit in qubits:
            wrong = ReadoutError([[1 - size, size], [size, 1 - size]])
            model.add_readout_error(wrong, [qubits.index(qubit)])
    return model
