# SPDX-License-Identifier: Apache-2.0
"""Sessions, in the words of the IBM Quantum Compute Service: opened, listed and closed."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

import msgspec

from qpu_slurm.errors import MustWaitError, NotFoundError, RefusedError
from qpu_slurm.providers.base import (
    LiveSession,
    Session,
    SessionState,
)
from qpu_slurm.providers.ibm import answers, usage
from qpu_slurm.providers.ibm.http import part, unavailable
from qpu_slurm.providers.ibm.once import once
from qpu_slurm.providers.ibm.tasks import Tasks

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from qpu_slurm.providers.base import SessionUsage
    from qpu_slurm.system.deadline import Deadline

_NO_DEDICATED_SESSIONS = 1352
"""The service's number for it: the Open plan has batch sessions alone."""

_NOT_AVAILABLE = 1004
"""The service's number for a QPU that is not available, by its registry of errors."""

_UNDECIDED = (401, 403)

_PAGE = 50

_PAGES = 20

_CLOCK_STEP = timedelta(seconds=2)
"""The service tells its time to a second, and so do listings."""

_CLOCK_DOUBT = timedelta(minutes=5)
"""How far its clock may be from ours, before its first answer has told."""

_STATES = tuple(SessionState)

_OVER = ("completed", "canceled", "cancelled", "failed")


class Sessions(Tasks):
    """The sessions on one QPU of the IBM Quantum Compute Service; see `service`."""

    def open_session(self, max_ttl: int, *, known: Collection[str] = (), look_up: bool = True) -> Session:
        """Create a session; see the protocol."""
        body = {
            "mode": self._access.mode,
            "backend": self._access.backend,
            "instance": self._access.instance,
            "max_ttl": max_ttl,
        }
        since = datetime.now(UTC)

        def send(deadline: Deadline) -> Session:
            document = self._http.call(
                "POST",
                "/sessions",
                answers.reading(answers.SessionDocument),
                body=msgspec.json.encode(body),
                once=True,
                deadline=deadline,
                throttled=not look_up,
            )
            return self._session(document)

        def look() -> Session | None:
            unclaimed = self.unclaimed_sessions(since, known=known)
            found = [session for session in unclaimed if session.max_ttl in {None, max_ttl}]
            return min(found, key=lambda session: session.created_at or since, default=None)

        try:
            if not look_up:
                return send(self._http.deadline())
            return once(send, look, settle=self._patience.settle, deadline=self._http.deadline())
        except RefusedError as error:
            if error.code == _NOT_AVAILABLE:
                raise MustWaitError(
                    f"{self._access.backend} is not available now: {error.message}",
                    status=error.status,
                    code=error.code,
                ) from None
            if error.code != _NO_DEDICATED_SESSIONS:
                raise
            # The service advises another mode, which is not the user's to choose.
            raise RefusedError(
                error.message,
                status=error.status,
                code=error.code,
                advice="Your job cannot change that: ask the cluster's admin for a QPU with batch sessions.",
                admin_advice=f'Give {self._access.backend} mode = "batch", or an instance of another plan.',
            ) from None

    def session(self, session_id: str) -> Session:
        """Read a session."""
        path = f"/sessions/{part(session_id)}"
        return self._session(self._http.call("GET", path, answers.reading(answers.SessionDocument)))

    def usage(self, session_id: str) -> SessionUsage:
        """Read what a session was used for; see the protocol."""
        return usage.read(self._http, session_id)

    def is_busy(self, session_id: str) -> bool:
        """Ask whether a task of the session runs or waits."""
        return bool(self._tasks(session_id=session_id, pending=True, limit=1))

    def close_session(self, session_id: str) -> None:
        """Let the session finish the tasks that it has, and take no more. Closed already is fine."""
        self._end(session_id, "PATCH", f"/sessions/{part(session_id)}", b'{"accepting_jobs": false}')

    def cancel_session(self, session_id: str) -> None:
        """End the session and whatever waits or runs in it. Ended already is fine."""
        self._end(session_id, "DELETE", f"/sessions/{part(session_id)}/close", None)
        # The service fails what waits in the session, and lets what runs go on: the QPU would stay locked.
        for task in self._tasks(session_id=session_id, pending=True, limit=_PAGE):
            with suppress(NotFoundError):
                self.cancel_task(task.id)

    def forget_session(self, session_id: str) -> None:
        """Delete nothing: neither a session nor its tasks hold anything once they are over."""

    def unclaimed_sessions(self, since: datetime, *, known: Collection[str] = ()) -> list[Session]:
        """List what a creation whose answer was lost may have left behind; see the protocol."""
        found = []
        for workload, created in self._workloads(since):
            if workload.id in known or _is_closed(workload):
                continue
            if workload.backend not in {"", self._access.backend} or self._tasks(session_id=workload.id):
                continue
            try:
                session = self.session(workload.id)
            except NotFoundError:
                continue
            if session.state is not SessionState.CLOSED and session.accepting_tasks:
                created_at = self._http.local_time(created)
                found.append(msgspec.structs.replace(session, created_at=created_at))
        return found

    def live_sessions(self, since: datetime) -> list[LiveSession]:
        """List the account's sessions that are not closed; see the protocol."""
        found = []
        for workload, created in self._workloads(since):
            if _is_closed(workload) or workload.backend not in {"", self._access.backend}:
                continue
            tasks = self._tasks(session_id=workload.id)
            tags = tuple(tasks[0].tags or ()) if tasks else ()
            found.append(LiveSession(id=workload.id, created_at=created, tags=tags))
        return found

    def closed_sessions(self, since: datetime) -> frozenset[str]:
        """List the account's sessions that take no more tasks; see the protocol."""
        return frozenset(workload.id for workload, _ in self._workloads(since) if _is_closed(workload))

    def sessions_of_tasks(self, tag: str, *, since: datetime | None = None) -> Iterator[str]:
        """List the sessions of the tasks that have a tag; see the protocol."""
        seen = set()
        query: dict[str, str | list[str]] = {
            "exclude_params": "true",
            "backend": self._access.backend,
            "tags": [tag],
            "limit": str(_PAGE),
        }
        if since is not None:
            query["created_after"] = (self._http.service_time(since) - _CLOCK_DOUBT).isoformat()
        for page in range(_PAGES):
            query["offset"] = str(page * _PAGE)
            jobs = self._http.call("GET", "/jobs", answers.reading(answers.Jobs), params=query).jobs
            for job in jobs:
                if job.session_id and job.session_id not in seen and tag in (job.tags or [tag]):
                    seen.add(job.session_id)
                    yield job.session_id
            if len(jobs) < _PAGE:
                return

    def _session(self, document: answers.SessionDocument) -> Session:
        # A state that is new to us is not the last one.
        state = SessionState(document.state) if document.state in _STATES else SessionState.OPEN
        closed = state is SessionState.CLOSED
        accepting = not closed if document.accepting_jobs is None else document.accepting_jobs
        created_at = answers.time_of(document.started_at)
        return Session(
            id=document.id,
            backend=document.backend_name or self._access.backend,
            state=state,
            accepting_tasks=accepting and not closed,
            created_at=created_at,
            max_ttl=None if document.max_ttl is None else round(document.max_ttl),
            ends_at=answers.later(created_at, document.max_ttl),
        )

    def _end(self, session_id: str, method: str, path: str, body: bytes | None) -> None:
        """Close or cancel a session; the service may refuse that for one that is closed already."""
        try:
            self._http.call(method, path, answers.read, body=body)
        except RefusedError as error:
            if error.status in _UNDECIDED:
                raise
            # Not even a 404 is believed at once: one from somewhere on the way would leave the QPU locked.
            if self.session(session_id).state is not SessionState.CLOSED:
                raise unavailable(error) if isinstance(error, NotFoundError) else error from None

    def _workloads(self, since: datetime) -> Iterator[tuple[answers.Workload, datetime]]:
        """List the account's sessions that came after a time of our clock, the newest first."""
        mode = "batch" if self._access.mode == "batch" else "session"
        params: dict[str, str | list[str]] = {
            "mode": mode,
            "backend": self._access.backend,
            "sort": "-createdAt",
            "limit": str(_PAGE),
        }
        for _ in range(_PAGES):
            page = self._http.call("GET", "/workloads", answers.reading(answers.Workloads), params=params)
            # The first answer tells the service's clock, if none has before.
            first = self._http.service_time(since) - _CLOCK_STEP
            for workload in page.workloads:
                created = answers.time_of(workload.created)
                if created is not None and created < first:
                    return
                if created is not None:
                    yield workload, created
            following = parse_qs(urlsplit(page.next.href).query).get("next") if page.next else None
            if not following:
                return
            params["next"] = following[0]


def _is_closed(workload: answers.Workload) -> bool:
    return workload.accepting_jobs is False or workload.status.lower() in _OVER
