# SPDX-License-Identifier: Apache-2.0
"""The QPUs' data: snapshots of real ones, from qiskit-ibm-runtime, served as the service does."""

from __future__ import annotations

import importlib.util
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from qpu_slurm_devkit.emulator.machine import Machine

_PREFIX = "ibm_"

_FRACTIONAL_GATES = {
    "rx": "gate rx(theta) q { U(theta, -pi/2, pi/2) q; }",
    "rzz": "gate rzz(theta) a, b { cx a, b; rz(theta) b; cx a, b; }",
}


class Backend(Machine):
    """One QPU: what it is, and whether it is up.

    Args:
        name: Its name, such as `ibm_fez`.

    Raises:
        LookupError: There is no snapshot of that name.

    Attributes:
        configuration: The configuration, as JSON text.
        properties: The last calibration, as JSON text.
        qubits: How many qubits it has.
    """

    def __init__(self, name: str) -> None:
        short = name.removeprefix(_PREFIX)
        folder = _snapshots() / short
        try:
            configuration = msgspec.json.decode((folder / f"conf_{short}.json").read_bytes())
            properties = msgspec.json.decode((folder / f"props_{short}.json").read_bytes())
        except OSError:
            raise LookupError(
                f"no snapshot of a QPU named {name}; known are {', '.join(snapshots())}"
            ) from None
        # Some snapshots are called fake_…, and a session is not created for a simulator.
        configuration |= {"backend_name": name, "simulator": False}
        properties = _in_utc(properties) | {"backend_name": name}
        _add_fractional_gates(configuration, properties)
        super().__init__(name)
        self.configuration = msgspec.json.encode(configuration)
        self.properties = self._snapshot = msgspec.json.encode(properties)
        self.version = str(configuration["backend_version"])
        self.qubits = int(configuration["n_qubits"])
        self._clops = configuration.get("clops_h")
        self._processor_type = configuration.get("processor_type")
        self._best_two_qubit_gate = _best_two_qubit_gate(properties)

    def calibrate(self, at: str | None) -> None:
        """Say when it was calibrated last; None: when the snapshot was taken."""
        properties = msgspec.json.decode(self._snapshot, type=dict[str, msgspec.Raw])
        if at is not None:
            properties["last_update_date"] = msgspec.Raw(msgspec.json.encode(at))
        self.properties = msgspec.json.encode(properties)

    def status_document(self, queue_length: int) -> dict[str, Any]:
        """Write its status, as `GET /backends/{name}/status` does.

        `state` tells whether it is there at all; a paused QPU is (guess).
        """
        return {
            "state": self.status != "offline",
            "status": self.status,
            "message": self.message,
            "length_queue": queue_length,
            "backend_version": self.version,
        }

    def device(self, queue_length: int) -> dict[str, Any]:
        """Describe it as `GET /backends` does."""
        status = {"name": "online" if self.up else self.status, "reason": self.message or "available"}
        return {
            "name": self.name,
            "status": status,
            "is_simulator": False,
            "qubits": self.qubits,
            "clops": {"type": "hardware", "value": self._clops},
            "processor_type": self._processor_type,
            "queue_length": queue_length,
            "performance_metrics": {
                "two_q_error_best": self._best_two_qubit_gate,
                # qrmi wants gate and qubits here too, although it is an average.
                "two_q_error_layered": self._best_two_qubit_gate,
            },
        }


def _in_utc(data: Any) -> Any:  # noqa: ANN401 - JSON
    """Return a snapshot's data with all times of calibrations in UTC.

    IBM's client shows times in its user's time zone, and wrote the snapshots in it. It reads what the
    service sends as UTC, whatever offset is there.
    """
    if isinstance(data, list):
        return [_in_utc(item) for item in data]
    if isinstance(data, dict):
        return {
            key: datetime.fromisoformat(value).astimezone(UTC).isoformat()
            if key in {"date", "last_update_date"}
            else _in_utc(value)
            for key, value in data.items()
        }
    return data


def _add_fractional_gates(configuration: dict[str, Any], properties: dict[str, Any]) -> None:
    """Add rx and rzz to a configuration whose calibration has them: the snapshots were taken without.

    Clients hide these gates from who does not ask for them (`use_fractional_gates`).
    """
    calibrated: dict[str, list[list[int]]] = {}
    for gate in properties["gates"]:
        calibrated.setdefault(gate["gate"], []).append(gate["qubits"])
    for name, definition in _FRACTIONAL_GATES.items():
        if name in calibrated and name not in configuration["basis_gates"]:
            configuration["basis_gates"] = [*configuration["basis_gates"], name]
            if "supported_instructions" in configuration:
                configuration["supported_instructions"] = [*configuration["supported_instructions"], name]
            gate = {
                "name": name,
                "parameters": ["theta"],
                "qasm_def": definition,
                "coupling_map": calibrated[name],
            }
            configuration["gates"] = [*configuration["gates"], gate]


def snapshots() -> list[str]:
    """List the QPUs that there is a snapshot of."""
    return sorted(
        f"{_PREFIX}{conf.parent.name}" for conf in _snapshots().glob("*/conf_*.json") if _is_complete(conf)
    )


def _is_complete(conf: Path) -> bool:
    """Tell whether a calibration lies beside a configuration."""
    return (conf.parent / f"props_{conf.parent.name}.json").exists()


def _snapshots() -> Path:
    """Find the snapshots without importing qiskit-ibm-runtime, which takes seconds."""
    spec = importlib.util.find_spec("qiskit_ibm_runtime")
    if spec is None or spec.origin is None:
        raise LookupError(
            "the emulator needs qiskit-ibm-runtime: pip install '.[qiskit]' in qpu_slurm's sources"
        )
    return Path(spec.origin).parent / "fake_provider" / "backends"


def _best_two_qubit_gate(properties: dict[str, Any]) -> dict[str, Any]:
    """Find the two-qubit gate with the least error in a calibration."""
    gates = [
        {"value": parameter["value"], "gate": gate["gate"], "qubits": gate["qubits"]}
        for gate in properties["gates"]
        if len(gate["qubits"]) == 2  # noqa: PLR2004 (a two-qubit gate has two)
        for parameter in gate["parameters"]
        if parameter["name"] == "gate_error"
    ]
    return min(gates, key=lambda gate: float(gate["value"]))
