# SPDX-License-Identifier: Apache-2.0
"""What a provider can do, in the words of the IBM Quantum Compute Service."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import msgspec

from qpu_slurm.errors import MustWaitError, NotFoundError, RefusedError, ServiceError, sentences
from qpu_slurm.providers.base import (
    Features,
    LiveSession,
    QpuStatus,
    Session,
    SessionState,
    Task,
    TaskStatus,
)
from qpu_slurm.providers.ibm import answers, usage
from qpu_slurm.providers.ibm.http import CLIENT, Http, Patience, part, unavailable
from qpu_slurm.providers.ibm.iam import IamToken
from qpu_slurm.providers.ibm.once import once
from qpu_slurm.providers.ibm.pieces import PIECE, pieces
from qpu_slurm.system.deadline import NEVER, Deadline

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from urllib3 import BaseHTTPResponse

    from qpu_slurm.providers.base import Access, Device, Pieces, SessionUsage, TaskTimes

API_VERSION = "2026-04-15"
"""The API's version that these requests and answers belong to; qiskit-ibm-runtime 0.51 asks for it, too."""

_NO_CONTENT = 204
_NO_DEDICATED_SESSIONS = 1352
"""The service's number for it: the Open plan has batch sessions alone."""
_NOT_AVAILABLE = 1004
"""The service's number for a QPU that is not available, by its registry of errors."""
_UNDECIDED = (401, 403)

_LOG_BYTES = 4 << 20
_PAGE = 50
_PAGES = 20
_CLOCK_STEP = timedelta(seconds=2)
"""The service tells its time to a second, and so do listings."""
_CLOCK_DOUBT = timedelta(minutes=5)
"""How far its clock may be from ours, before its first answer has told."""

_STATES = tuple(SessionState)
_OVER = ("completed", "canceled", "cancelled", "failed")


class QuantumComputeService:
    """One QPU of the IBM Quantum Compute Service, with one API key; see `providers.base.Provider`.

    Args:
        access: How it is reached.
        deadline: When everything gives up at the latest.
        patience: How long is waited.
        beside: Another one of the same account: they share its token and its connections.
    """

    features = Features(sessions=True, keeps_tasks=False, early_results=True)

    def __init__(
        self,
        access: Access,
        *,
        deadline: Deadline = NEVER,
        patience: Patience | None = None,
        beside: QuantumComputeService | None = None,
    ) -> None:
        self._access = access
        self._patience = patience or Patience()
        self._waits = False
        self._token: IamToken
        if beside is None:
            neighbour = iam = Http(
                access.iam_endpoint,
                {"Accept": "application/json", "Content-Type": "application/x-www-form-urlencoded"},
                patience=self._patience,
            )
            self._token = IamToken(iam, access.api_key)
        else:
            neighbour, self._token = beside._http, beside._token  # noqa: SLF001 - our own kind
        self._http: Http = Http(
            access.endpoint,
            {
                "Accept": "application/json",
                "Content-Type": "application/json",
                "IBM-API-Version": API_VERSION,
                "Service-CRN": access.instance,
                "X-Qx-Client-Application": CLIENT,
            },
            patience=self._patience,
            credential=self._token,
            deadline=deadline,
            # A gateway is both: IAM and the service.
            beside=neighbour,
        )

    def status(self) -> QpuStatus:
        """Ask whether the QPU takes tasks."""
        path = f"/backends/{part(self._access.backend)}/status"
        answer = self._http.call("GET", path, answers.reading(answers.BackendStatus))
        return answers.qpu_status(
            answer.status, answer.message, answer.length_queue, operational=answer.state
        )

    def statuses(self) -> dict[str, QpuStatus]:
        """Ask the same of all QPUs of the instance; see the protocol."""
        listing = self._http.call("GET", "/backends", answers.reading(answers.Backends))
        return {
            device.name: answers.qpu_status(
                device.status.name,
                device.status.reason,
                device.queue_length,
                traits=answers.traits_of(device),
            )
            for device in listing.devices
        }

    def device(self) -> Device:
        """Ask what circuits have to fit; see the protocol."""
        from qpu_slurm.providers.ibm import device  # noqa: PLC0415 - seldom

        path = f"/backends/{part(self._access.backend)}/configuration"
        return device.read(self._http.call("GET", path, answers.read))

    def calibrated_at(self) -> datetime | None:
        """Ask when the QPU was last calibrated; see the protocol."""
        path = f"/backends/{part(self._access.backend)}/properties"
        # A gateway has a copy, which may be a minute old.
        newest = {"Cache-Control": "no-cache"}
        return answers.calibrated_at(self._http.call("GET", path, answers.read, headers=newest))

    def slots(self) -> None:
        """Tell how many tasks the QPU takes at once: any number."""

    # Sessions.

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

    # Tasks.

    def pending_tasks(self, tag: str) -> list[str]:
        """List the tasks that have a tag and are not over; see the protocol."""
        query: dict[str, str | list[str]] = {
            "exclude_params": "true",
            "backend": self._access.backend,
            "tags": [tag],
            "pending": "true",
            "limit": str(_PAGE),
        }
        jobs = self._http.call("GET", "/jobs", answers.reading(answers.Jobs), params=query).jobs
        return [job.id for job in jobs if tag in (job.tags or [tag])]

    def submit(
        self,
        program_id: str,
        parameters: bytes | Pieces,
        *,
        session_id: str | None,
        tags: Sequence[str],
        cost: int | None = None,
    ) -> str:
        """Submit a task; see the protocol."""
        envelope: dict[str, Any] = {
            "program_id": program_id,
            "backend": self._access.backend,
            "tags": list(tags),
        }
        if session_id is not None:
            envelope["session_id"] = session_id
        if cost is not None:
            envelope["cost"] = cost
        body = _Spliced(msgspec.json.encode(envelope), parameters)

        def send(deadline: Deadline) -> str:
            answer = self._http.call(
                "POST",
                "/jobs",
                answers.reading(answers.Job),
                body=body,
                once=True,
                deadline=deadline,
                read=self._patience.submit,
            )
            return answer.id

        def look() -> str | None:
            jobs = self._tasks(session_id=session_id, tags=list(tags))
            return jobs[0].id if jobs else None

        deadline = self._http.deadline(read=self._patience.submit)
        return once(send, look, settle=self._patience.settle, deadline=deadline)

    def task(self, task_id: str) -> Task:
        """Read a task's state."""
        path = f"/jobs/{part(task_id)}"
        return _task(
            self._http.call("GET", path, answers.reading(answers.Job), params={"exclude_params": "true"})
        )

    def result(self, task_id: str) -> Iterator[bytes]:
        """Read a completed task's result text, in pieces; one that breaks off is taken up where it did."""
        path, headers = _result_path(task_id), _waiting(1)
        return pieces(lambda: self._http.call("GET", path, self._keep, headers=headers), _result_of(task_id))

    def early_result(self, task_id: str, *, wait: int = 0) -> Iterator[bytes] | None:
        """Ask for a task's result, which is 204 as long as there is none; see the protocol."""
        path = _result_path(task_id)
        headers = _waiting(wait) if wait else None
        first = self._http.call("GET", path, self._keep_if_any, headers=headers)
        if first is None:
            return None
        answers_left = [first]

        def ask() -> BaseHTTPResponse:
            return answers_left.pop() if answers_left else self._http.call("GET", path, self._keep)

        return pieces(ask, _result_of(task_id))

    @property
    def waits(self) -> bool:
        """Whether the service waits for results; the gateway does."""
        return self._waits

    def _keep(self, response: BaseHTTPResponse) -> BaseHTTPResponse:
        """Leave an answer to be read bit by bit; one without content counts as lost, and is repeated."""
        found = self._keep_if_any(response)
        if found is None:
            raise msgspec.DecodeError("it has no content")
        return found

    def _keep_if_any(self, response: BaseHTTPResponse) -> BaseHTTPResponse | None:
        """Likewise, where no content is an answer."""
        self._waits = "wait" in response.headers.get("Preference-Applied", "")
        return None if response.status == _NO_CONTENT else response

    def logs(self, task_id: str) -> str:
        """Read what the service logged of a task."""
        path = f"/jobs/{part(task_id)}/logs"
        return self._http.call("GET", path, lambda answer: answers.read_some(answer, _LOG_BYTES)).decode(
            errors="replace"
        )

    def times(self, task_id: str) -> TaskTimes:
        """Read where a task's time went; see the protocol."""
        path = f"/jobs/{part(task_id)}/metrics"
        return answers.times_of(self._http.call("GET", path, answers.reading(dict[str, Any])))

    def cancel_task(self, task_id: str) -> None:
        """Cancel a task. One that is over already is fine."""
        try:
            self._http.call("POST", f"/jobs/{part(task_id)}/cancel", answers.read)
        except RefusedError as error:
            if (
                isinstance(error, NotFoundError)
                or error.status in _UNDECIDED
                or not self.task(task_id).status.final
            ):
                raise

    # What the above is made of.

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

    def _tasks(
        self, *, session_id: str | None, tags: Sequence[str] = (), pending: bool = False, limit: int = 1
    ) -> list[answers.Job]:
        """List tasks of a session that have all of some tags, and, if `pending`, are not over."""
        params: dict[str, str | list[str]] = {
            "exclude_params": "true",
            "limit": str(limit),
            "tags": list(tags),
        }
        if session_id is not None:
            params["session_id"] = session_id
        if pending:
            params["pending"] = "true"
        jobs = self._http.call("GET", "/jobs", answers.reading(answers.Jobs), params=params).jobs
        return [job for job in jobs if set(tags) <= set(job.tags or tags)]


class _Spliced:
    """A submission's body: the envelope with the parameters put in as they are.

    It is sent in pieces: a socket's timeout is for each, and none of them costs memory.
    """

    def __init__(self, envelope: bytes, parameters: bytes | Pieces) -> None:
        self._head = envelope.removesuffix(b"}") + b',"params":'
        self._parameters = parameters

    def __len__(self) -> int:
        return len(self._head) + len(self._parameters) + 1

    def __iter__(self) -> Iterator[bytes]:
        if isinstance(self._parameters, bytes):
            if len(self) <= PIECE:  # in one piece, which is one packet less to wait for
                yield self._head + self._parameters + b"}"
                return
            yield self._head
            for start in range(0, len(self._parameters), PIECE):
                yield self._parameters[start : start + PIECE]
        else:
            yield self._head
            yield from self._parameters
        yield b"}"


def _is_closed(workload: answers.Workload) -> bool:
    return workload.accepting_jobs is False or workload.status.lower() in _OVER


def _result_path(task_id: str) -> str:
    return f"/jobs/{part(task_id)}/results"


def _result_of(task_id: str) -> str:
    return f"The result of task {task_id}"


def _waiting(seconds: int) -> dict[str, str]:
    """Return the header that offers to wait (RFC 7240)."""
    return {"Prefer": f"wait={seconds}"}


def _task(job: answers.Job) -> Task:
    text = job.state.status or job.status
    status = answers.status_of(job)
    if status is None:
        raise ServiceError(f"Task {job.id} is in a state that is not known: {answers.quote(text)!r}.")
    said = [answers.quote(words or "") for words in (job.state.reason, job.state.reason_solution)]
    if not any(said) and status is TaskStatus.CANCELLED:
        said = [answers.quote(text.partition(" - ")[2])]
    return Task(
        id=job.id,
        status=status,
        reason=sentences(*said),
        session_id=job.session_id,
        created_at=answers.time_of(job.created),
        tags=tuple(job.tags or ()),
    )
