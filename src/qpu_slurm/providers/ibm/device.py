# SPDX-License-Identifier: Apache-2.0
"""What circuits have to fit, read out of a QPU's configuration."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from qpu_slurm.errors import UnavailableError
from qpu_slurm.providers.base import TIMING, Device

_ALWAYS: Final = frozenset({"measure", "reset", "delay", "barrier", "store", "break_loop", "continue_loop"})
"""What every QPU can do, whether its configuration lists it or not."""

_HERON: Final = frozenset({"rx", "rzz", "measure_2"})
"""What Heron can do, too; configurations list it only at times (the first two are its fractional gates)."""

_SYMMETRIC: Final = frozenset({"cz", "rzz"})


class _Gate(msgspec.Struct):
    name: str
    coupling_map: list[list[int]] | None = None


class _Configuration(msgspec.Struct):
    """GET /backends/{name}/configuration, as far as we read it."""

    n_qubits: int
    basis_gates: list[str] = []
    supported_instructions: list[str] | None = None
    gates: list[_Gate] = []
    coupling_map: list[list[int]] | None = None
    processor_type: dict[str, Any] | None = None
    max_shots: int | None = None
    component_names: list[str] = []
    """The gateway's own key, of a QPU that names its qubits: it has what the configuration lists, no more."""


def read(configuration: bytes) -> Device:
    """Read what circuits have to fit.

    Args:
        configuration: The QPU's configuration, as JSON text.

    Raises:
        UnavailableError: It cannot be understood.
    """
    try:
        known = msgspec.json.decode(configuration, type=_Configuration)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UnavailableError(f"The QPU's configuration cannot be understood: {error}.") from error
    heron = (known.processor_type or {}).get("family") == "Heron"
    operations = _ALWAYS | {*known.basis_gates, *(known.supported_instructions or ())}
    operations |= {gate.name for gate in known.gates} | (_HERON if heron else set())
    if known.component_names:
        operations = frozenset({*TIMING, *known.basis_gates})
    return Device(
        qubits=known.n_qubits,
        operations=operations,
        places={
            gate.name: _places(gate.coupling_map, either_way=gate.name in _SYMMETRIC)
            for gate in known.gates
            if gate.coupling_map
        },
        coupled=_places(known.coupling_map or [], either_way=True),
        max_shots=known.max_shots,
        names=tuple(known.component_names),
    )


def _places(coupling_map: list[list[int]], *, either_way: bool) -> frozenset[tuple[int, ...]]:
    places = frozenset(map(tuple, coupling_map))
    return places | {place[::-1] for place in places} if either_way else places
