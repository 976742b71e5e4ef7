# SPDX-License-Identifier: Apache-2.0
"""A task (the service calls it a job): what it is asked to do, how far it is, how the service shows it."""

from __future__ import annotations

import base64
import secrets
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import msgspec

from qpu_slurm_devkit.emulator.clock import timestamp
from qpu_slurm_devkit.emulator.record import TaskRecord

if TYPE_CHECKING:
    from pathlib import Path

    from qpu_slurm_devkit.emulator.sessions import Session
    from qpu_slurm_devkit.emulator.settings import Account

PROGRAMS = frozenset({"sampler", "estimator", "executor"})

# Programs that the service has and the emulator has not: a simulation without noise has none to learn.
NOT_EMULATED = frozenset({"noise-learner", "noise-learner-v3", "calibrator"})

# What a task may take when its submitter does not say (guess: the service works it out from the input).
DEFAULT_COST = 10_800


class TaskStatus(StrEnum):
    """How far a task is, in the service's words."""

    QUEUED = "Queued"
    RUNNING = "Running"
    COMPLETED = "Completed"
    CANCELLED = "Cancelled"
    TOO_LONG = "Cancelled - Ran too long"
    FAILED = "Failed"

    @property
    def pending(self) -> bool:
        """Whether it will change still."""
        return self in {TaskStatus.QUEUED, TaskStatus.RUNNING}


class Work(msgspec.Struct, frozen=True, kw_only=True):
    """What a child process is told.

    Attributes:
        program_id: The primitive.
        input: The file with its input.
        result: Where the result goes.
        outcome: Where the outcome goes.
        configuration: The QPU's configuration: circuits must fit it. None: any circuit will do.
        seed: Makes the outcome repeatable.
        lenient: Do not hold the input against IBM's client and schemas.
    """

    program_id: str
    input: str
    result: str
    outcome: str
    configuration: bytes | None
    seed: int | None
    lenient: bool


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """How a task ended.

    Attributes:
        status: What became of it.
        reason: Why, unless it completed.
        reason_code: The service's number for the reason.
        log: What the execution has to say.
        metrics: What it counted: circuits, qubits, depths.
    """

    status: TaskStatus
    reason: str = ""
    reason_code: int | None = None
    log: str = ""
    metrics: dict[str, Any] = {}


class TaskRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The body of `POST /jobs`. `params` is kept as it came, however large."""

    program_id: str
    params: msgspec.Raw
    backend: str | None = None
    session_id: str | None = None
    tags: tuple[str, ...] = ()
    cost: int | None = None
    log_level: str | None = None
    private: bool = False
    calibration_id: str | None = None
    runtime: str | None = None


class Task:
    """One task.

    Args:
        account: Whose it is.
        backend: The QPU's name.
        request: What was asked for.
        session: The session it runs in, if any.
        directory: Where its input and its result lie.
        now: The time.
    """

    def __init__(
        self,
        account: Account,
        backend: str,
        request: TaskRequest,
        session: Session | None,
        *,
        directory: Path,
        now: float,
    ) -> None:
        self.id = _new_id()
        self.account = account
        self.backend = backend
        self.session = session
        self.program_id = request.program_id
        self.tags = request.tags
        self.cost = request.cost or DEFAULT_COST
        self.private = request.private
        self.runtime = request.runtime
        self.calibration_id = request.calibration_id
        self.input = directory / f"{self.id}.input.json"
        self.result = directory / f"{self.id}.result.txt"
        self.outcome = Outcome(status=TaskStatus.QUEUED)
        self.queued_at = now
        self.running_at: float | None = None
        self.done_at: float | None = None

    @property
    def status(self) -> TaskStatus:
        """How far it is."""
        return self.outcome.status

    @property
    def session_id(self) -> str | None:
        """The id of its session."""
        return self.session.id if self.session else None

    def run(self, now: float) -> None:
        """It is running from now on."""
        self.outcome = Outcome(status=TaskStatus.RUNNING)
        self.running_at = now

    def end(self, outcome: Outcome, now: float) -> None:
        """It is over."""
        self.outcome = outcome
        self.done_at = now

    def seconds(self, now: float) -> float:
        """Tell how long it has been running."""
        return 0.0 if self.running_at is None else (self.done_at or now) - self.running_at

    def made_up(self, size: int) -> bytes:
        """Make up a result of about this size, of one shot after another."""
        head = b'{"results":[{"data":{"c":{"samples":["0x0"'
        tail = b'],"num_bits":1}},"metadata":{}}],"metadata":{}}'
        shot = b',"0x1"'
        return head + shot * max(0, (size - len(head) - len(tail)) // len(shot)) + tail

    def document(self, now: float, *, params: bool) -> dict[str, Any]:
        """Write it as the service does, with its input or without."""
        # The status within the state knows no «ran too long»: there a code tells.
        status = TaskStatus.CANCELLED if self.status is TaskStatus.TOO_LONG else self.status
        state: dict[str, Any] = {"status": status}
        if self.outcome.reason:
            state |= {"reason": self.outcome.reason, "reason_code": self.outcome.reason_code}
        document: dict[str, Any] = {
            "id": self.id,
            "backend": self.backend,
            "status": self.status,
            "state": state,
            "program": {"id": self.program_id},
            "created": timestamp(self.queued_at),
            "cost": self.cost,
            "tags": self.tags,
            "private": self.private,
            "user_id": f"IBMid-{self.account.name}",
            "usage": {"seconds": round(self.seconds(now), 3)},
            "estimated_running_time_seconds": round(self.seconds(now), 3),
        }
        optional = {
            "session_id": self.session_id,
            "ended": timestamp(self.done_at),
            "runtime": self.runtime,
            "calibration_id": self.calibration_id,
        }
        document |= {key: value for key, value in optional.items() if value is not None}
        if params:
            document["params"] = msgspec.Raw(self.input.read_bytes())
        return document

    def metrics(self, now: float, position: int | None) -> dict[str, Any]:
        """Write its times and its usage as the service does.

        Args:
            now: The time.
            position: Its place in the queue, from 1; None once it left it.
        """
        seconds = round(self.seconds(now), 3)
        usage = {
            "quantum_seconds": seconds,
            "seconds": seconds,
            "qpu_charge_time_seconds": seconds,
            "status": "pending" if self.status.pending else "final",
        }
        return {
            "timestamps": {
                "created": timestamp(self.queued_at),
                "running": timestamp(self.running_at),
                "finished": timestamp(self.done_at),
            },
            "bss": {"seconds": round(seconds)},
            "usage": usage,
            "position_in_queue": position,
            "position_in_provider": position,
            **self.outcome.metrics,
        }

    def record(self) -> TaskRecord:
        """Write it as the emulator's own record does."""
        return TaskRecord(
            id=self.id,
            backend=self.backend,
            account=self.account.name,
            program_id=self.program_id,
            session_id=self.session_id,
            status=self.status,
            reason=self.outcome.reason,
            reason_code=self.outcome.reason_code,
            tags=self.tags,
            cost=self.cost,
            queued_at=self.queued_at,
            running_at=self.running_at,
            done_at=self.done_at,
        )


def _new_id() -> str:
    """Make an id that looks like the service's: twenty letters and digits."""
    return "d" + base64.b32hexencode(secrets.token_bytes(12)).decode().rstrip("=").lower()[:19]
