# SPDX-License-Identifier: Apache-2.0
"""Tasks, in the words of the IBM Quantum Compute Service: submitted, followed, read and cancelled."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from qpu_slurm.errors import NotFoundError, RefusedError, ServiceError, sentences
from qpu_slurm.providers.base import (
    Task,
    TaskStatus,
)
from qpu_slurm.providers.ibm import answers
from qpu_slurm.providers.ibm.http import Http, Patience, part
from qpu_slurm.providers.ibm.once import once
from qpu_slurm.providers.ibm.pieces import PIECE, pieces

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from urllib3 import BaseHTTPResponse

    from qpu_slurm.providers.base import Access, Pieces, TaskTimes
    from qpu_slurm.system.deadline import Deadline

_NO_CONTENT = 204

_UNDECIDED = (401, 403)

_LOG_BYTES = 4 << 20

_PAGE = 50


class Tasks:
    """The tasks on one QPU of the IBM Quantum Compute Service; see `service`."""

    _access: Access
    _http: Http
    _patience: Patience
    _waits = False

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
