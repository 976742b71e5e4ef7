# SPDX-License-Identifier: Apache-2.0
"""A job of IQM Server: what it is asked to do, and what it says of itself."""

from __future__ import annotations

import asyncio
import uuid
from typing import TYPE_CHECKING, Any, Final

import msgspec

from qpu_slurm_devkit.emulator.clock import timestamp
from qpu_slurm_devkit.emulator.tasks import Task, TaskRequest, TaskStatus

if TYPE_CHECKING:
    from pathlib import Path

    from qpu_slurm_devkit.emulator.iqm.chip import Chip
    from qpu_slurm_devkit.emulator.settings import Account
    from qpu_slurm_devkit.emulator.tasks import Outcome

ARTIFACTS: Final = ("measurements", "measurement_counts")

_STATUS: Final = {
    TaskStatus.QUEUED: "waiting",
    TaskStatus.RUNNING: "processing",
    TaskStatus.COMPLETED: "completed",
    TaskStatus.FAILED: "failed",
    TaskStatus.CANCELLED: "cancelled",
    TaskStatus.TOO_LONG: "cancelled",
}

_SERVER: Final = "iqm-server"
_STATION: Final = "iqm-station-control"


class Batch(msgspec.Struct):
    """A job's payload, as far as it is checked before it is taken."""

    circuits: list[msgspec.Raw]
    shots: int = 1


class IqmTask(Task):
    """One job.

    Args:
        account: Whose it is.
        chip: The QPU.
        payload: A batch of circuits, as JSON text.
        tag: What its submitter wrote on it.
        timeslot: Whether it waits for a timeslot rather than its turn.
        directory: Where its input and its result lie.
        now: The time.

    Attributes:
        over: Set when it is.
    """

    def __init__(
        self,
        account: Account,
        chip: Chip,
        payload: bytes,
        *,
        tag: str | None,
        timeslot: bool,
        directory: Path,
        now: float,
    ) -> None:
        # The record shows the queue as the program's name.
        program = "circuit:timeslot" if timeslot else "circuit"
        wanted = TaskRequest(program_id=program, params=msgspec.Raw(b""), tags=(tag,) if tag else ())
        super().__init__(account, chip.name, wanted, None, directory=directory, now=now)
        self.id = str(uuid.uuid4())
        self.input = directory / f"{self.id}.input.json"
        self.result = directory / f"{self.id}.result.txt"
        self.input.write_bytes(payload)
        self.chip = chip
        self.tag = tag
        self.over = asyncio.Event()
        self._calibration_set_id = chip.calibration_set_id

    def end(self, outcome: Outcome, now: float) -> None:
        """It is over."""
        super().end(outcome, now)
        self.over.set()

    @property
    def word(self) -> str:
        """Its status, in the server's words."""
        return _STATUS[self.status]

    def description(self, now: float, ahead: int | None) -> dict[str, Any]:
        """Write it as the server does.

        Args:
            now: The time.
            ahead: How many jobs are before it in the queue; None once it left it.
        """
        failed = self.status is TaskStatus.FAILED
        error = {"source": _STATION, "error_code": "job_failed", "message": self.outcome.reason}
        return {
            "id": self.id,
            "type": "circuit",
            "qc": {"id": self.chip.id},
            "status": self.word,
            "tag": self.tag,
            "queue_position": ahead,
            "runtime_ms": None if self.status.pending else round(self.seconds(now) * 1000),
            "execution": None,
            "compilation": {"calibration_set_id": self._calibration_set_id},
            "messages": [],
            "errors": [error] if failed else [],
            "timeline": self._timeline(),
            "artifacts": [{"type": name} for name in ARTIFACTS] if self._completed else [],
        }

    def artifact(self, name: str) -> bytes | None:
        """Return a part of its result, as JSON text; None if there is none."""
        if not self._completed or name not in ARTIFACTS:
            return None
        return bytes(msgspec.json.decode(self.result.read_bytes(), type=dict[str, msgspec.Raw])[name])

    def made_up(self, size: int) -> bytes:
        """Make up a result of about this size."""
        shots = max(1, size // len("[0],"))
        return msgspec.json.encode(
            {
                "measurements": [{"m": [[shot % 2] for shot in range(shots)]}],
                "measurement_counts": [
                    {"measurement_keys": ["m"], "counts": {"0": (shots + 1) // 2, "1": shots // 2}}
                ],
            }
        )

    @property
    def _completed(self) -> bool:
        return self.status is TaskStatus.COMPLETED

    def _timeline(self) -> list[dict[str, str | None]]:
        ended = "ready" if self._completed else self.word
        events = (
            (_SERVER, "created", self.queued_at),
            (_STATION, "execution_started", self.running_at),
            (_STATION, "execution_ended", self.done_at if self.running_at is not None else None),
            (_SERVER, ended, self.done_at),
        )
        return [
            {"source": source, "status": status, "timestamp": timestamp(when)}
            for source, status, when in events
            if when is not None
        ]
