# SPDX-License-Identifier: Apache-2.0
"""The executor: what the runtime client's newer, client-side primitives send.

Its input (a quantum program) and its result are decoded and encoded with IBM's own schemas, and run by the
local mode of qiskit-ibm-runtime, on circuits cut down to the qubits that they use. Only the schema version
that current clients write is known.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
from qiskit_aer import AerSimulator

from qpu_slurm_devkit.emulator import circuits, primitives
from qpu_slurm_devkit.emulator.errors import InvalidInputError, executing

if TYPE_CHECKING:
    from collections.abc import Mapping

_SCHEMA_VERSION = "v2.0"

# Finer than the local mode's own rounding of angles, which exists to find Clifford circuits.
_ANGLE_DECIMALS = 10


def execute(
    parameters: dict[str, Any], configuration: Mapping[str, Any] | None, seed: int | None
) -> tuple[str, dict[str, Any], str]:
    """Execute a quantum program; see `primitives.execute`."""
    version = parameters.get("schema_version")
    if version != _SCHEMA_VERSION:
        raise InvalidInputError(
            f"The executor of this emulator knows schema {_SCHEMA_VERSION}, not {version}."
        )
    try:
        # Not public, and not there in older releases: all the more reason to ask for it only here.
        from ibm_quantum_schemas.executor import version_2_0 as schema  # noqa: PLC0415
        from qiskit_ibm_runtime.fake_provider.executor.run_quantum_program import (  # noqa: PLC0415
            run_quantum_program,
        )
        from qiskit_ibm_runtime.options_models.simulator import SimulatorOptions  # noqa: PLC0415
        from qiskit_ibm_runtime.quantum_program.converters.converters_2_0 import (  # noqa: PLC0415
            quantum_program_from_2_0,
        )
    except ImportError as error:
        raise InvalidInputError(f"The emulator's qiskit-ibm-runtime cannot execute this: {error}") from error

    begin = datetime.now(UTC)
    model = schema.ParamsModel.model_validate(parameters)
    program, _ = quantum_program_from_2_0(model)
    if program.meas_level != "classified":
        raise InvalidInputError(f"The emulator measures classified, not {program.meas_level}.")
    options = SimulatorOptions(seed_simulator=seed, angle_decimals=_ANGLE_DECIMALS)
    executed = [item.circuit for item in program.items]
    data, log = [], []
    for item in program.items:
        with executing():
            circuits.check(item.circuit, configuration)
            if samplex := getattr(item, "samplex", None):
                samplex.finalize()
            qubits = item.circuit.num_qubits
            reduced, active = circuits.reduce(item.circuit)
            item.circuit, method = circuits.method(reduced)
            log.append(f"executor: {len(active)} of {qubits} qubits in use, method {method}\n")
            single = type(program)(shots=program.shots, items=[item])
            (result,) = run_quantum_program(AerSimulator(method=method), single, options)
        tensors = {
            name: schema.models.CompressedTensorModel.from_numpy(np.asarray(array))
            for name, array in result.items()
        }
        data.append(
            schema.QuantumProgramResultItemModel(results=tensors, metadata=schema.ItemMetadataModel())
        )
    parts = [
        schema.ChunkPart(
            idx_item=index,
            size=math.prod(item.shape),
            permutation=list(range(len(item.shape))),
            element_range=(0, math.prod(item.shape), 1),
        )
        for index, item in enumerate(program.items)
    ]
    result_model = schema.QuantumProgramResultModel(
        data=data,
        metadata=schema.MetadataModel(
            chunk_timing=[schema.ChunkSpan(start=begin, stop=datetime.now(UTC), parts=parts)]
        ),
        passthrough_data=model.quantum_program.passthrough_data,
        semantic_role=model.quantum_program.semantic_role,
    )
    return result_model.model_dump_json(), primitives.metrics(executed), "".join(log)
