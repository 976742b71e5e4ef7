# SPDX-License-Identifier: Apache-2.0
"""What circuits have to fit, read out of a dynamic quantum architecture: what is calibrated, and where."""

from __future__ import annotations

from typing import Final

import msgspec

from qpu_slurm.errors import UnavailableError
from qpu_slurm.providers.base import TIMING, Device

_PAIR: Final = 2
_NO_ORDER: Final = frozenset({"cz"})


class _Implementation(msgspec.Struct):
    loci: list[list[str]] = []


class _Gate(msgspec.Struct):
    implementations: dict[str, _Implementation] = {}


class _Architecture(msgspec.Struct):
    """GET /calibration-sets/{qc}/{set}/dynamic-quantum-architecture."""

    qubits: list[str]
    gates: dict[str, _Gate]
    computational_resonators: list[str] = []


def read(architecture: bytes, max_shots: int | None) -> Device:
    """Read what circuits have to fit. A component's number is its place among qubits, then resonators.

    Args:
        architecture: The architecture, as JSON text.
        max_shots: The most shots of one circuit; None if the server does not say.

    Raises:
        UnavailableError: It cannot be understood.
    """
    try:
        known = msgspec.json.decode(architecture, type=_Architecture)
        names = (*known.qubits, *known.computational_resonators)
        number = {name: place for place, name in enumerate(names)}
        loci = {
            name: [
                tuple(number[component] for component in locus)
                for implementation in gate.implementations.values()
                for locus in implementation.loci
            ]
            for name, gate in known.gates.items()
        }
    except (msgspec.MsgspecError, UnicodeDecodeError, KeyError) as error:
        raise UnavailableError(f"The QPU's architecture cannot be understood: {error}.") from error
    places = {
        name: frozenset(found) | (frozenset(locus[::-1] for locus in found) if name in _NO_ORDER else set())
        for name, found in loci.items()
    }
    pairs = {locus for found in loci.values() for locus in found if len(locus) == _PAIR}
    return Device(
        qubits=len(names),
        operations=frozenset({*places, *TIMING, "measure"}),
        places=places,
        coupled=frozenset(pairs | {locus[::-1] for locus in pairs}),
        max_shots=max_shots,
        names=names,
    )
