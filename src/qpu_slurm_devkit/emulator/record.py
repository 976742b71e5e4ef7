# SPDX-License-Identifier: Apache-2.0
"""What happened in an emulator: events, requests, and what sessions and tasks look like now.

These are what `Emulator` gives back and what the control endpoint sends, so nothing here imports a
server or a simulator. Times are seconds since the epoch, on the emulator's clock.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec


class EventKind(StrEnum):
    """What may happen to a session or to a task."""

    SESSION_OPENED = "session_opened"
    SESSION_ACTIVE = "session_active"
    SESSION_INACTIVE = "session_inactive"
    SESSION_CLOSED = "session_closed"
    TASK_QUEUED = "task_queued"
    TASK_RUNNING = "task_running"
    TASK_DONE = "task_done"


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened.

    Attributes:
        time: When.
        kind: What.
        backend: On which QPU.
        account: The name of the account that it belongs to.
        session_id: The session, or the session that the task runs in.
        task_id: The task, for an event of a task.
        reason: Why: how a task ended, what closed a session.
        tags: The task's tags.
    """

    time: float
    kind: EventKind
    backend: str
    account: str
    session_id: str | None = None
    task_id: str | None = None
    reason: str = ""
    tags: tuple[str, ...] = ()


class RequestRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A request that was answered, or dropped. No header and no body is kept, so no credential is.

    Attributes:
        time: When it arrived.
        method: The HTTP method.
        path: The path, without the API's prefix.
        query: The query string.
        status: The answer's status; 0 if the connection was dropped instead.
        seconds: How long the answer took.
        account: The account's name, once it was known.
        fault: What an injected fault did to it.
    """

    time: float
    method: str
    path: str
    query: str
    status: int
    seconds: float
    account: str
    fault: str = ""


class SessionRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A session as it is now. `locked_seconds` is what it is charged for: how long it was active."""

    id: str
    backend: str
    account: str
    mode: str
    state: str
    accepting_tasks: bool
    opened_at: float
    activated_at: float | None
    closed_at: float | None
    max_ttl: float
    locked_seconds: float
    reason: str


class TaskRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A task as it is now; `status` is in the service's words, such as Queued or Completed."""

    id: str
    backend: str
    account: str
    program_id: str
    session_id: str | None
    status: str
    reason: str
    reason_code: int | None
    tags: tuple[str, ...]
    cost: int
    queued_at: float
    running_at: float | None
    done_at: float | None


class Record:
    """The emulator's memory of events and requests, oldest first."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.requests: list[RequestRecord] = []
