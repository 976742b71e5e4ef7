# SPDX-License-Identifier: Apache-2.0
"""A task of the IBM Quantum System API: what it says of itself, and its way through the storage."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
from aiohttp import ClientError, ClientSession, ClientTimeout

from qpu_slurm_devkit.emulator.clock import timestamp
from qpu_slurm_devkit.emulator.tasks import Outcome, Task, TaskRequest, TaskStatus

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from qpu_slurm_devkit.emulator.settings import Account

PROGRAMS = frozenset({"sampler", "estimator"})

_STATUS = {
    # This API has no word for a task that waits.
    TaskStatus.QUEUED: "Running",
    TaskStatus.TOO_LONG: "Cancelled",
}
_STORAGE_FAILED = 1516
_SECONDS = ClientTimeout(total=60)

Id = Annotated[str, msgspec.Meta(min_length=1, max_length=256, pattern=r"\A[\x21-\x7e]+\Z")]


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where an input is read, or a result written."""

    type: Literal["s3_compatible"]
    presigned_url: str


class Places(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A task's places in the storage."""

    input: Place
    results: Place
    logs: Place | None = None


class SystemTaskRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The body of `POST /v1/jobs`."""

    id: Id
    backend: str
    program_id: str
    timeout_secs: Annotated[int, msgspec.Meta(ge=1)]
    storage: Places
    log_level: Literal["debug", "info", "warning", "error", "critical"] = "warning"


class SystemTask(Task):
    """One task.

    Args:
        account: Whose it is.
        request: What was asked for.
        directory: Where its input and its result lie.
        now: The time.
    """

    def __init__(self, account: Account, request: SystemTaskRequest, *, directory: Path, now: float) -> None:
        wanted = TaskRequest(
            program_id=request.program_id, params=msgspec.Raw(b""), cost=request.timeout_secs
        )
        super().__init__(account, request.backend, wanted, None, directory=directory, now=now)
        self.id = request.id
        self.request = request

    def description(self, now: float) -> dict[str, Any]:
        """Write it as the service does."""
        document: dict[str, Any] = {
            "id": self.id,
            "backend": self.backend,
            "program_id": self.program_id,
            "log_level": self.request.log_level,
            "timeout_secs": self.cost,
            "storage": self.request.storage,
            "status": _STATUS.get(self.status, str(self.status)),
            "created_time": timestamp(self.queued_at),
        }
        if not self.status.pending:
            document["end_time"] = timestamp(self.done_at)
            document["usage"] = {"quantum_nanoseconds": round(self.seconds(now) * 1e9)}
        if self.status is TaskStatus.FAILED or self.status is TaskStatus.TOO_LONG:
            document["reason_code"] = self.outcome.reason_code
            document["reason_message"] = self.outcome.reason
        return document

    async def execute(self, simulate: Callable[[Task], Awaitable[Outcome]]) -> Outcome:
        """Fetch the input, have it simulated, and store the result and the log."""
        places = self.request.storage
        async with ClientSession(timeout=_SECONDS) as http:
            try:
                async with http.get(places.input.presigned_url) as answer:
                    answer.raise_for_status()
                    self.input.write_bytes(await answer.read())
                outcome = await simulate(self)
                if outcome.status is TaskStatus.COMPLETED:
                    await _store(http, places.results, self.result.read_bytes())
            except (ClientError, TimeoutError, ValueError) as error:
                # Never the URL: it is as good as a credential.
                status = getattr(error, "status", None) or type(error).__name__
                outcome = Outcome(
                    status=TaskStatus.FAILED,
                    reason=f"The storage does not give the input, or does not take the result: {status}.",
                    reason_code=_STORAGE_FAILED,
                )
            if places.logs is not None:
                await _try_to_store(http, places.logs, (outcome.log or f"{outcome.reason}\n").encode())
        return outcome


async def _store(http: ClientSession, place: Place, text: bytes) -> None:
    async with http.put(place.presigned_url, data=text) as answer:
        answer.raise_for_status()


async def _try_to_store(http: ClientSession, place: Place, text: bytes) -> None:
    """Store a log: a task whose result is there does not fail for want of it."""
    try:
        await _store(http, place, text)
    except (ClientError, TimeoutError, ValueError):
        return
