# SPDX-License-Identifier: Apache-2.0
"""IQM's QPUs: what lies where, which gates there are, and how good they are.

The layouts are those of IQM's chips with 5 and 20 qubits. The errors are made up, of the size that IQM
publishes for such chips. They are served as quality metrics, and simulations have them as noise. So a program
that transpiles for the best qubits has them here, too.
"""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from qpu_slurm_devkit.emulator.machine import Machine
from qpu_slurm_devkit.emulator.noise import Noise

_ROWS: Final = {
    # The column of each row's first qubit, and how many there are.
    "spark": ((1, 1), (0, 3), (1, 1)),
    "garnet": ((1, 2), (0, 5), (0, 5), (0, 5), (1, 3)),
}

_IMPLEMENTATIONS: Final = {"prx": "drag_crf", "cz": "tgss", "measure": "constant"}
_MADE: Final = datetime(2026, 11, 1, tzinfo=UTC)

_T1: Final = 45e-6
_T2: Final = 12e-6
_SECONDS: Final[dict[str, float]] = {"prx": 40e-9, "cz": 80e-9}


class Chip(Machine):
    """One QPU.

    Args:
        name: Its alias, such as `garnet`. What follows a `_` or a `:` tells QPUs of one layout apart.

    Raises:
        LookupError: There is no such layout.

    Attributes:
        id: The server's id of it.
        calibration_set_id: The id of the calibration set that is the default now.
        calibrated_at: When that was made.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name)
        layout = name.partition(":")[0].partition("_")[0]
        if layout not in _ROWS:
            raise LookupError(f"no IQM chip named {name}; known are {', '.join(_ROWS)}")
        self.id = str(uuid.uuid5(uuid.NAMESPACE_URL, f"iqm:{name}"))
        self.calibrated_at = _MADE
        self.calibration_set_id = ""
        self.calibrate(None)
        self._places = _places(layout)
        self.qubits = list(self._places)
        self._noise = Noise(loci=self._loci(), errors=self._errors(), t1=_T1, t2=_T2, seconds=_SECONDS)
        self.configuration = msgspec.json.encode(self._noise)

    def calibrate(self, at: str | None) -> None:
        """Make another calibration set the default; None: the one of the beginning."""
        self.calibrated_at = _MADE if at is None else datetime.fromisoformat(at)
        told = f"iqm:{self.name}:{self.calibrated_at.isoformat()}"
        self.calibration_set_id = str(uuid.uuid5(uuid.NAMESPACE_URL, told))

    def static_architecture(self) -> dict[str, Any]:
        """Describe what lies where."""
        return {
            "dut_label": f"M000_{self.name}",
            "qubits": self.qubits,
            "computational_resonators": [],
            "connectivity": self._noise.loci["cz"],
        }

    def dynamic_architecture(self) -> dict[str, Any]:
        """Describe the gates for which there is a calibration."""
        gates = {
            gate: {
                "implementations": {_IMPLEMENTATIONS[gate]: {"loci": loci}},
                "default_implementation": _IMPLEMENTATIONS[gate],
                "override_default_implementation": {},
            }
            for gate, loci in self._noise.loci.items()
        }
        return {
            "calibration_set_id": self.calibration_set_id,
            "qubits": self.qubits,
            "computational_resonators": [],
            "gates": gates,
        }

    def calibration_set(self) -> dict[str, Any]:
        """Give the calibration set: how long states last, and gates take."""
        observations: dict[str, tuple[float, str]] = {}
        for qubit in self.qubits:
            observations[f"characterization.model.{qubit}.t1_time"] = (self._noise.t1, "s")
            observations[f"characterization.model.{qubit}.t2_time"] = (self._noise.t2, "s")
        for gate, seconds in self._noise.seconds.items():
            for locus in self._noise.loci[gate]:
                name = f"gates.{gate}.{_IMPLEMENTATIONS[gate]}.{'__'.join(locus)}.duration"
                observations[name] = (seconds, "s")
        return self._set("calibration-set", self.calibration_set_id, None, observations)

    def quality_metrics(self) -> dict[str, Any]:
        """Give the quality metrics: the fidelities that the simulation has."""
        methods = {"prx": "rb", "cz": "irb", "measure": "ssro"}
        observations = {
            f"metrics.{methods[gate]}.{gate}.{_IMPLEMENTATIONS[gate]}.{_joined(locus)}.fidelity:par=d1": (
                1 - error,
                "",
            )
            for gate, errors in self._noise.errors.items()
            for locus, error in errors.items()
        }
        told = str(uuid.uuid5(uuid.NAMESPACE_URL, f"metrics:{self.calibration_set_id}"))
        return self._set("quality-metric-set", told, self.calibration_set_id, observations)

    def _set(
        self, kind: str, set_id: str, describes: str | None, observations: dict[str, tuple[float, str]]
    ) -> dict[str, Any]:
        made = self.calibrated_at.isoformat()
        return {
            "observation_set_type": kind,
            "observation_set_id": set_id,
            "describes_id": describes,
            "invalid": False,
            "dut_label": f"M000_{self.name}",
            "created_timestamp": made,
            "end_timestamp": made,
            "observations": [
                {
                    "observation_id": number,
                    "dut_field": name,
                    "value": value,
                    "unit": unit,
                    "uncertainty": None,
                    "invalid": False,
                    "created_timestamp": made,
                    "modified_timestamp": made,
                }
                for number, (name, (value, unit)) in enumerate(observations.items(), 1)
            ],
        }

    def _loci(self) -> dict[str, list[list[str]]]:
        """Say where each gate is possible: two-qubit gates between neighbours."""
        at = {place: qubit for qubit, place in self._places.items()}
        pairs = [
            [qubit, at[row + down, column + right]]
            for (row, column), qubit in at.items()
            for down, right in ((0, 1), (1, 0))
            if (row + down, column + right) in at
        ]
        ones = [[qubit] for qubit in self.qubits]
        return {"prx": ones, "cz": pairs, "measure": ones}

    def _errors(self) -> dict[str, dict[str, float]]:
        sizes = {"prx": 0.0008, "cz": 0.006, "measure": 0.015}
        spread = 7
        return {
            gate: {
                ",".join(locus): size * (1 + (number * 3 % spread) / spread)
                for number, locus in enumerate(self._loci()[gate])
            }
            for gate, size in sizes.items()
        }


def _joined(locus: str) -> str:
    return locus.replace(",", "__")


def _places(layout: str) -> dict[str, tuple[int, int]]:
    """Number a chip's qubits, row by row, and say where each is."""
    places = [
        (row, column)
        for row, (first, count) in enumerate(_ROWS[layout])
        for column in range(first, first + count)
    ]
    return {f"QB{number}": place for number, place in enumerate(places, 1)}
