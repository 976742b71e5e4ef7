# SPDX-License-Identifier: Apache-2.0
"""A QPU, as far as circuits have to fit it: what its configuration says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from qpu_slurm.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterable

_ALWAYS: Final = frozenset({"measure", "reset", "delay", "barrier", "store", "break_loop", "continue_loop"})
"""What every QPU can do, whether its configuration lists it or not."""

_HERON: Final = frozenset({"rx", "rzz", "measure_2"})
"""What Heron can do, too; configurations list it only at times (the first two are its fractional gates)."""

_SYMMETRIC: Final = frozenset({"cz", "rzz"})
TIMING: Final = frozenset({"barrier", "delay"})
_PAIR: Final = 2


class _Gate(msgspec.Struct):
    name: str
    coupling_map: list[list[int]] | None = None


class _Configuration(msgspec.Struct):
    """What we read of a QPU's configuration."""

    n_qubits: int
    basis_gates: list[str] = []
    supported_instructions: list[str] | None = None
    gates: list[_Gate] = []
    coupling_map: list[list[int]] | None = None
    processor_type: dict[str, Any] | None = None
    max_shots: int | None = None


class Device:
    """A QPU, as far as circuits have to fit it.

    Args:
        text: Its configuration, as the service gives it.

    Raises:
        Unavailable: It is none that we understand.
    """

    def __init__(self, text: bytes) -> None:
        try:
            known = msgspec.json.decode(text, type=_Configuration)
        except msgspec.DecodeError as error:
            raise Unavailable(f"The QPU's configuration cannot be understood: {error}.") from error
        self.qubits = known.n_qubits
        self.max_shots = known.max_shots
        heron = (known.processor_type or {}).get("family") == "Heron"
        self._names = _ALWAYS | {*known.basis_gates, *(known.supported_instructions or ())}
        self._names |= {gate.name for gate in known.gates} | (_HERON if heron else set())
        self._on: dict[str, set[tuple[int, ...]]] = {}
        for gate in known.gates:
            if gate.coupling_map:
                pairs = {tuple(qubits) for qubits in gate.coupling_map}
                turned = {pair[::-1] for pair in pairs} if gate.name in _SYMMETRIC else set()
                self._on[gate.name] = pairs | turned
        coupling = {tuple(pair) for pair in known.coupling_map or ()}
        self._coupled = coupling | {pair[::-1] for pair in coupling}

    def problem(self, name: str, qubits: tuple[int, ...]) -> str | None:
        """Say why an operation cannot be had; None if it can."""
        if name not in self._names:
            return f"{name} is no operation of the QPU"
        if any(qubit >= self.qubits for qubit in qubits):
            return f"{name} on qubits {_named(qubits)}: the QPU has {self.qubits}"
        if name in TIMING or not qubits:
            return None
        where = self._on.get(name, self._coupled if len(qubits) == _PAIR else None)
        if where and qubits not in where:
            return f"{name} on qubits {_named(qubits)}: the QPU has none there"
        return None

    def lacks(self, gates: Iterable[str]) -> list[str]:
        """Return those of an input's operations that the QPU has not."""
        return sorted({*gates} - self._names)


def _named(qubits: tuple[int, ...]) -> str:
    return " and ".join(map(str, qubits))
