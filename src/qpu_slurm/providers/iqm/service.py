# SPDX-License-Identifier: Apache-2.0
"""What a provider can do, in the words of IQM Server's API."""

from __future__ import annotations

import logging
import re
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Final

from qpu_slurm.errors import AnswerLostError, NotFoundError, RefusedError, UnavailableError
from qpu_slurm.providers.base import Features
from qpu_slurm.providers.gates import Gates, need_result
from qpu_slurm.providers.ibm import Patience
from qpu_slurm.providers.ibm import answers as ibm_answers
from qpu_slurm.providers.ibm.http import Http, part
from qpu_slurm.providers.ibm.pieces import pieces
from qpu_slurm.providers.iqm import answers, device
from qpu_slurm.providers.iqm.ledger import Ledger
from qpu_slurm.system.deadline import NEVER, Deadline

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from qpu_slurm.providers.base import Device, Pieces, QpuStatus, Task, TaskTimes, TaskUsage
    from qpu_slurm.providers.iqm.access import IqmAccess
    from qpu_slurm.providers.iqm.ledger import Entry
    from qpu_slurm.system.secret import Secret

PROGRAMS: Final = {"circuit": False, "circuit:timeslot": True}
"""What can be submitted, and whether it waits for a timeslot that the account has booked."""

_FORBIDDEN: Final = 403

_ID: Final = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")

_log = logging.getLogger(__name__)


class _Token:
    """The token is the API key itself: there is no other to renew it by."""

    def __init__(self, key: Secret) -> None:
        self._key = key

    def bearer(self, *, deadline: Deadline) -> Secret:
        """Return it."""
        del deadline
        return self._key

    def renew(self, refused: Secret) -> None:
        """Do nothing: the next request is refused as well, and says why."""


class IqmServer(Gates):
    """One QPU of an IQM Server, with one API key; see `providers.base.Provider`.

    Args:
        access: How it is reached.
        deadline: When everything gives up at the latest.
        patience: How long is waited.
        beside: Another one of the same account: they share connections.
    """

    features = Features(sessions=False, keeps_tasks=True, lists_tasks=False)

    def __init__(
        self,
        access: IqmAccess,
        *,
        deadline: Deadline = NEVER,
        patience: Patience | None = None,
        beside: IqmServer | None = None,
    ) -> None:
        self.backend = access.backend
        self._patience = patience = patience or Patience()
        self._http: Http = Http(
            f"{access.endpoint.rstrip('/')}/api/v1",
            {"Accept": "application/json", "Content-Type": "application/json"},
            patience=patience,
            credential=_Token(access.api_key),
            deadline=deadline,
            beside=None if beside is None else beside._http,  # noqa: SLF001 - our own kind
        )
        self._ledger = Ledger(Path(access.ledger), access.backend)

    def status(self) -> QpuStatus:
        """Ask whether the QPU takes tasks."""
        return self._status(self.backend)

    def statuses(self) -> dict[str, QpuStatus]:
        """Ask the same of all QPUs of the server, a request for each."""
        listing = self._http.call("GET", "/quantum-computers", ibm_answers.reading(answers.Listing))
        return {found.alias: self._status(found.alias) for found in listing.quantum_computers}

    def device(self) -> Device:
        """Ask what circuits have to fit; see the protocol."""
        limits = answers.Limits()
        with suppress(NotFoundError):
            limits = self._http.call("GET", self._path("/limits"), ibm_answers.reading(answers.Limits))
        return device.read(self.architecture(), limits.max_shots_per_circuit)

    def architecture(self) -> bytes:
        """Read the dynamic quantum architecture of the calibration that is the default now: JSON text."""
        path = f"/calibration-sets/{part(self.backend)}/default/dynamic-quantum-architecture"
        return self._http.call("GET", path, ibm_answers.read)

    def calibrated_at(self) -> datetime | None:
        """Ask when the QPU was last calibrated; see the protocol."""
        path = f"/calibration-sets/{part(self.backend)}/default"
        found = self._http.call("GET", path, ibm_answers.reading(answers.CalibrationSet))
        return ibm_answers.time_of(found.end_timestamp) or ibm_answers.time_of(found.created_timestamp)

    def slots(self) -> None:
        """Say that there is no bound: the server has a queue for each QPU."""

    def pending_tasks(self, tag: str) -> list[str]:
        """List the tasks that have a tag and are not over; see the protocol."""
        return [
            usage.id
            for usage in reversed(self.tasks_of(tag))
            if usage.status is not None and not usage.status.final
        ]

    def tasks_of(self, tag: str) -> list[TaskUsage]:
        """List the tasks that have a tag, or went through a gate; see `Gates`."""
        found = (self._usage(entry) for entry in self._ledger.tagged(tag))
        return [usage for usage in found if usage is not None]

    def tagged(self, tag: str) -> list[Task]:
        """List the same tasks, with their tags; see `Gates`."""
        found = []
        for entry in self._ledger.tagged(tag):
            with suppress(NotFoundError):
                found.append(answers.task_of(self.job(entry.id), entry.gate, entry.tags))
        return found

    def kept_gates(self) -> set[str]:
        """List the gates whose tasks are not forgotten, as far as they are written down; see `Gates`."""
        return set(self._ledger.gates())

    def submit(
        self,
        program_id: str,
        parameters: bytes | Pieces,
        *,
        session_id: str | None,
        tags: Sequence[str],
        cost: int | None = None,  # noqa: ARG002 - the protocol's; the API knows no bound
    ) -> str:
        """Submit a task, once: a submission whose answer was lost cannot be looked up.

        The server's tag of the task is the gate. So an admin finds the tasks of a job by the server's own
        means, also those that are not known here.

        Raises:
            RefusedError: The server has no such program, or the task has no gate.
            AnswerLostError: There may be a task.
        """
        if program_id not in PROGRAMS:
            raise RefusedError(f"An IQM Server runs no {program_id!r}, only {' and '.join(PROGRAMS)}.")
        if session_id is None:
            raise RefusedError("A task for an IQM Server goes through a gate, and has none.")
        mark = self._ledger.expect(session_id)
        try:
            job = self._http.call(
                "POST",
                f"/jobs/{part(self.backend)}/circuit",
                ibm_answers.reading(answers.Job),
                params={"use_timeslot": str(PROGRAMS[program_id]).lower(), "tag": session_id},
                body=parameters,
                once=True,
                read=self._patience.submit,
            )
        except AnswerLostError as error:
            raise AnswerLostError(
                f"{error.message} The task may run: IQM Server lists no tasks, so it cannot be looked up.",
                status=error.status,
                admin_advice=f"Its tag at the server is {session_id}.",
            ) from None
        except (RefusedError, UnavailableError):
            self._ledger.refused(session_id, mark)
            raise
        self._ledger.add(session_id, mark, job.id, tags)
        return job.id

    def task(self, task_id: str) -> Task:
        """Read a task's state."""
        job, entry = self.look_up(task_id)
        if entry is None:
            return answers.task_of(job, None, ())
        return answers.task_of(job, entry.gate, entry.tags)

    def result(self, task_id: str) -> Iterator[bytes]:
        """Read a completed task's result text, in pieces.

        It is an object of the two artifacts, as QRMI's task_runner writes it; each is the server's text.
        """
        need_result(answers.task_of(self.job(task_id), None, ()))
        return chain(
            (b'{"measurements": ',),
            self._artifact(task_id, "measurements"),
            (b', "measurement_counts": ',),
            self._artifact(task_id, "measurement_counts"),
            (b"}\n",),
        )

    def logs(self, task_id: str) -> str:
        """Read what the service logged of a task."""
        return answers.log_of(self.job(task_id))

    def times(self, task_id: str) -> TaskTimes:
        """Read where a task's time went; see the protocol."""
        return answers.times_of(self.job(task_id))

    def cancel_task(self, task_id: str) -> None:
        """Cancel a task. One that is over already is fine."""
        try:
            self._http.call("POST", f"{_job(task_id)}/cancel", ibm_answers.read)
        except RefusedError as error:
            if error.status != _FORBIDDEN or not self.task(task_id).status.final:
                raise

    def delete_task(self, task_id: str) -> None:
        """Delete a task that is over; see `Gates`."""
        with suppress(NotFoundError):
            # The server would cancel one that is not.
            status = self.task(task_id).status
            if not status.final:
                raise RefusedError(f"Task {task_id} is not deleted: it is {status}.")
            self._http.call("DELETE", _job(task_id), ibm_answers.read)
        entry = self._ledger.find(task_id)
        if entry is not None:
            self._ledger.deleted(entry.gate, task_id)

    def forget_session(self, session_id: str) -> None:
        """Delete a gate's tasks, and what was written down of them."""
        super().forget_session(session_id)
        if lost := self._ledger.lost(session_id):
            _log.warning(
                "%d tasks with the tag %s may be left at the server: answers were lost", lost, session_id
            )
        self._ledger.forget(session_id)

    def gate_of(self, task_id: str, gates: Sequence[str]) -> str | None:
        """Return the one of some gates that a task went through; None if it is none of them."""
        return next((gate for gate in gates if task_id in self.ids(gate)), None)

    def look_up(self, task_id: str) -> tuple[answers.Job, Entry | None]:
        """Read a task as the server describes it, and what is written down of it."""
        job, entry = self.job(task_id), self._ledger.find(task_id)
        if entry is not None:
            self._note(entry, job)
        return job, entry

    def of_gate(self, gate: str) -> list[tuple[answers.Job, Entry]]:
        """Read a gate's tasks likewise, the oldest first."""
        found = []
        for entry in self._ledger.of_gate(gate):
            with suppress(NotFoundError):
                found.append((self.job(entry.id), entry))
        return found

    def ids(self, gate: str) -> list[str]:
        """List the ids of a gate's tasks, the oldest first; nothing is asked of the server."""
        return [entry.id for entry in self._ledger.of_gate(gate)]

    def job(self, task_id: str) -> answers.Job:
        """Read a task as the server describes it."""
        return self._http.call("GET", _job(task_id), ibm_answers.reading(answers.Job))

    # What the above is made of.

    def _path(self, what: str = "") -> str:
        return f"/quantum-computers/{part(self.backend)}{what}"

    def _status(self, backend: str) -> QpuStatus:
        path = f"/quantum-computers/{part(backend)}"
        try:
            found = self._http.call("GET", path, ibm_answers.reading(answers.Details))
        except NotFoundError:
            # Servers of an earlier release tell no more than this.
            health = self._http.call("GET", f"{path}/health", ibm_answers.reading(answers.Health))
            found = answers.Details(health=health)
        return answers.qpu_status(found)

    def _usage(self, entry: Entry) -> TaskUsage | None:
        """Read what a task was; None if the server has forgotten it."""
        if entry.over is not None:
            return entry.over
        try:
            job = self.job(entry.id)
        except NotFoundError:
            return None
        self._note(entry, job)
        return answers.usage_of(job)

    def _note(self, entry: Entry, job: answers.Job) -> None:
        """Write down that a task is over, if it is."""
        usage = answers.usage_of(job)
        if entry.over is None and usage.status is not None and usage.status.final:
            self._ledger.over(entry.gate, usage)

    def _artifact(self, task_id: str, name: str) -> Iterator[bytes]:
        """Read an artifact's text; `null` if there is none."""
        path = f"{_job(task_id)}/artifacts/{name}"
        try:
            yield from pieces(
                lambda: self._http.call("GET", path, lambda response: response),
                f"The result of task {task_id}",
            )
        except NotFoundError:
            yield b"null"


def _job(task_id: str) -> str:
    """Return the path of a task.

    Raises:
        NotFoundError: No task has such an id.
    """
    if not _ID.fullmatch(task_id):
        raise NotFoundError(f"There is no task {task_id[:64]!r}.")
    return f"/jobs/{task_id}"
