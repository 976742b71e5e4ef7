# SPDX-License-Identifier: Apache-2.0
"""What a provider can do, in the words of the IBM Quantum System API."""

from __future__ import annotations

import uuid
from contextlib import suppress
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from qpu_slurm.errors import NotFoundError, RefusedError, UnavailableError
from qpu_slurm.providers.base import Features, QpuStatus, TaskStatus
from qpu_slurm.providers.gates import Gates, counts_among, gate_among, need_result
from qpu_slurm.providers.ibm import Patience
from qpu_slurm.providers.ibm import answers as ibm_answers
from qpu_slurm.providers.ibm.http import Http, part
from qpu_slurm.providers.ibm.iam import IamToken
from qpu_slurm.providers.ibm.once import once
from qpu_slurm.providers.ibm.pieces import pieces
from qpu_slurm.providers.ibm_system import answers, keys
from qpu_slurm.providers.ibm_system.storage import Bucket
from qpu_slurm.system.deadline import NEVER, Deadline

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import datetime

    from qpu_slurm.providers.base import Device, Pieces, Task, TaskTimes, TaskUsage
    from qpu_slurm.providers.ibm_system.access import SystemAccess

API_VERSION: Final = "2025-08-15"
"""The API's version that these requests and answers belong to; IBM's published simulator has it."""

_PROGRAMS: Final = ("sampler", "estimator")

_LONGEST_TASK: Final = 10_800
"""Seconds of QPU time that a task may take whose submitter does not say; the API asks for a number."""

_LOG_BYTES: Final = 4 << 20


class Prepared(NamedTuple):
    """A task whose input is in the storage.

    Attributes:
        id: Its id, which is its submitter's to choose.
        input: The name of its input there.
        body: What the service is sent.
    """

    id: str
    input: str
    body: bytes


class QuantumSystem(Gates):
    """One QPU on a centre's own premises, with one API key; see `providers.base.Provider`.

    Args:
        access: How it is reached.
        deadline: When everything gives up at the latest.
        patience: How long is waited.
        beside: Another one of the same account: they share its token and its connections.
    """

    features = Features(sessions=False, keeps_tasks=True)

    def __init__(
        self,
        access: SystemAccess,
        *,
        deadline: Deadline = NEVER,
        patience: Patience | None = None,
        beside: QuantumSystem | None = None,
    ) -> None:
        self._access = access
        self.backend = access.backend
        self._patience = patience = patience or Patience()
        self._token: IamToken
        if beside is None:
            neighbour = Http(
                access.iam_endpoint,
                {"Accept": "application/json", "Content-Type": "application/x-www-form-urlencoded"},
                patience=patience,
            )
            self._token = IamToken(neighbour, access.api_key)
        else:
            neighbour, self._token = beside._http, beside._token  # noqa: SLF001 - our own kind
        self._http: Http = Http(
            access.endpoint,
            {
                "Accept": "application/json",
                "Content-Type": "application/json",
                "IBM-API-Version": API_VERSION,
                "Service-CRN": access.instance,
            },
            patience=patience,
            credential=self._token,
            deadline=deadline,
            beside=neighbour,
        )
        self._bucket: Bucket = Bucket(
            access.storage,
            patience=patience,
            deadline=deadline,
            beside=None if beside is None else beside._bucket,  # noqa: SLF001 - likewise
        )

    def status(self) -> QpuStatus:
        """Ask whether the QPU takes tasks; those that wait cannot be told from those that run."""
        backend = self._http.call("GET", self._path(), ibm_answers.reading(answers.Backend))
        return _status(backend, self._pending())

    def statuses(self) -> dict[str, QpuStatus]:
        """Ask the same of all QPUs of the system, in two requests."""
        listing = self._http.call("GET", "/v1/backends", ibm_answers.reading(answers.Backends))
        pending = self._pending()
        return {backend.name: _status(backend, pending) for backend in listing.backends}

    def device(self) -> Device:
        """Ask what circuits have to fit; see the protocol."""
        from qpu_slurm.providers.ibm import device  # noqa: PLC0415 - seldom

        return device.read(self.configuration())

    def calibrated_at(self) -> datetime | None:
        """Ask when the QPU was last calibrated; see the protocol."""
        return ibm_answers.calibrated_at(self.properties())

    def slots(self) -> int:
        """Ask how many lanes the centre has on the QPU; a task holds one until it is deleted."""
        lanes = self._http.call("GET", self._path("/lanes"), ibm_answers.reading(answers.Lanes))
        return max(lanes.hpc_workload_manager.lanes, 0)

    def pending_tasks(self, tag: str) -> list[str]:
        """List the tasks that have a tag and are not over; see the protocol."""
        return [job.id for job in reversed(self.jobs(tag)) if answers.status_of(job) is TaskStatus.RUNNING]

    def tasks_of(self, tag: str) -> list[TaskUsage]:
        """List the tasks that have a tag, or went through a gate; see `Gates`."""
        return [answers.usage_of(job) for job in self.jobs(tag)]

    def tagged(self, tag: str) -> list[Task]:
        """List the same tasks, with their tags; see `Gates`."""
        return [answers.task_of(job, self._bucket.name) for job in self.jobs(tag)]

    def kept_gates(self) -> set[str]:
        """List the gates of the tasks that the service keeps; see `Gates`."""
        tasks = (job for job in self._jobs() if job.backend == self.backend)
        return {gate for job in tasks if (gate := gate_among(job.tags(self._bucket.name)))}

    def submit(
        self,
        program_id: str,
        parameters: bytes | Pieces,
        *,
        session_id: str | None,
        tags: Sequence[str],
        cost: int | None = None,
    ) -> str:
        """Submit a task; see the protocol.

        While every lane is taken, the submission is repeated until it is time to give up.

        Raises:
            RefusedError: The service has no such program, or the tags are too long.
        """
        return self.send(
            self.prepare(program_id, parameters, session_id=session_id, tags=tags, cost=cost), patient=True
        )

    def prepare(
        self,
        program_id: str,
        parameters: bytes | Pieces,
        *,
        session_id: str | None,
        tags: Sequence[str],
        cost: int | None = None,
    ) -> Prepared:
        """Put a task's input into the storage, and do not submit the task yet; see `submit`."""
        if program_id not in _PROGRAMS:
            raise RefusedError(
                f"An IBM Quantum System runs no {program_id!r}, only {' and '.join(_PROGRAMS)}."
            )
        task_id = str(uuid.uuid4())
        names = {name: keys.key_of(name, task_id, session_id, tags) for name in keys.PARTS}
        self._bucket.put(names["input"], parameters)
        body = {
            "id": task_id,
            "backend": self.backend,
            "program_id": program_id,
            "timeout_secs": cost or _LONGEST_TASK,
            "log_level": "info",
            "storage": {
                name: {
                    "type": "s3_compatible",
                    "presigned_url": self._bucket.presign("GET" if name == "input" else "PUT", key),
                }
                for name, key in names.items()
            },
        }
        return Prepared(task_id, names["input"], msgspec.json.encode(body))

    def send(self, task: Prepared, *, patient: bool) -> str:
        """Submit a task whose input is in the storage; return its id.

        Args:
            task: The task.
            patient: Whether to wait for a lane; see `submit`.

        Raises:
            ThrottledError: Every lane is taken (unless `patient`); the task may be sent again.
        """

        def send(deadline: Deadline) -> str:
            self._http.call(
                "POST",
                "/v1/jobs",
                ibm_answers.read,
                body=task.body,
                once=True,
                deadline=deadline,
                throttled=not patient,
            )
            return task.id

        def look() -> str | None:
            with suppress(NotFoundError):
                return self.job(task.id).id
            return None

        try:
            return once(send, look, settle=self._patience.settle, deadline=self._http.deadline())
        except RefusedError as error:
            if error.status == answers.DUPLICATE:
                # Nobody else has this id: an earlier try took effect, and showed up late.
                return task.id
            with suppress(RefusedError, UnavailableError):
                self.discard(task)
            raise

    def discard(self, task: Prepared) -> None:
        """Delete the input of a task that is not submitted after all."""
        self._bucket.delete(task.input)

    def task(self, task_id: str) -> Task:
        """Read a task's state."""
        return answers.task_of(self.job(task_id), self._bucket.name)

    def result(self, task_id: str) -> Iterator[bytes]:
        """Read a completed task's result text, in pieces; one that breaks off is taken up where it did."""
        job = self.job(task_id)
        need_result(answers.task_of(job, self._bucket.name))
        return self._pieces(self._key(job, "results"), task_id)

    def logs(self, task_id: str) -> str:
        """Read what the service logged of a task."""
        return self._text(self._key(self.job(task_id), "logs"))

    def times(self, task_id: str) -> TaskTimes:
        """Read what a task has used; see the protocol."""
        return answers.times_of(self.job(task_id))

    def cancel_task(self, task_id: str) -> None:
        """Cancel a task. One that is over already is fine."""
        try:
            self._http.call("POST", f"/v1/jobs/{part(task_id)}/cancel", ibm_answers.read)
        except RefusedError as error:
            if error.status != answers.DUPLICATE or not self.task(task_id).status.final:
                raise

    def delete_task(self, task_id: str) -> None:
        """Delete a task that is over, and its objects; see `Gates`."""
        try:
            job = self.job(task_id)
        except NotFoundError:
            return
        for name in keys.PARTS:
            if (key := job.key(name, self._bucket.name)) is not None:
                self._bucket.delete(key)
        # The task goes last: it alone says where its objects are.
        self.retire_task(task_id)

    def retire_task(self, task_id: str) -> None:
        """Free the lane of a task that is over; its result and its log stay. Retired already is fine.

        Raises:
            RefusedError: It is not over.
        """
        with suppress(NotFoundError):
            self._http.call("DELETE", f"/v1/jobs/{part(task_id)}", ibm_answers.read)

    def forget_session(self, session_id: str) -> None:
        """Delete a gate's tasks, and all that went through the gate, whether the service knows it or not."""
        super().forget_session(session_id)
        self._bucket.delete_all(keys.folder_of(session_id))

    def retired_result(self, gate: str, task_id: str) -> Iterator[bytes]:
        """Read the result text of a task that was retired; see `result`.

        Raises:
            NotFoundError: There is none.
        """
        return self._pieces(keys.key_of("results", task_id, gate), task_id)

    def retired_logs(self, gate: str, task_id: str) -> str:
        """Read what the service logged of a task that was retired."""
        return self._text(keys.key_of("logs", task_id, gate))

    def configuration(self) -> bytes:
        """Read the QPU's configuration: JSON text, as in the cloud."""
        return self._http.call("GET", self._path("/configuration"), ibm_answers.read)

    def properties(self) -> bytes:
        """Read the QPU's last calibration: JSON text, as in the cloud."""
        return self._http.call("GET", self._path("/properties"), ibm_answers.read)

    def jobs(self, tag: str) -> list[answers.Job]:
        """List a gate's tasks, or those that have a tag, as the service describes them, the oldest first."""
        return [
            job
            for job in self._jobs()
            if job.backend == self.backend and counts_among(job.tags(self._bucket.name), tag)
        ]

    def job(self, task_id: str) -> answers.Job:
        """Read a task as the service describes it."""
        return self._http.call("GET", f"/v1/jobs/{part(task_id)}", ibm_answers.reading(answers.Job))

    # What the above is made of.

    def _path(self, what: str = "") -> str:
        return f"/v1/backends/{part(self.backend)}{what}"

    def _jobs(self) -> list[answers.Job]:
        """List the system's tasks, the oldest first."""
        return self._http.call("GET", "/v1/jobs", ibm_answers.reading(answers.Jobs)).jobs

    def _pending(self) -> Mapping[str, int]:
        """Count the tasks that are not over, by QPU."""
        pending: dict[str, int] = {}
        for job in self._jobs():
            if answers.status_of(job) is TaskStatus.RUNNING:
                pending[job.backend] = pending.get(job.backend, 0) + 1
        return pending

    def _key(self, job: answers.Job, name: keys.Part) -> str:
        """Return the name of one of a task's objects.

        Raises:
            NotFoundError: It is not in our bucket.
        """
        found = job.key(name, self._bucket.name)
        if found is None:
            raise NotFoundError(f"The data of task {ibm_answers.quote(job.id)} are in another storage.")
        return found

    def _pieces(self, key: str, task_id: str) -> Iterator[bytes]:
        return pieces(lambda: self._bucket.open(key), f"The result of task {task_id}")

    def _text(self, key: str) -> str:
        return self._bucket.head(key, _LOG_BYTES).decode(errors="replace")


def _status(backend: answers.Backend, pending: Mapping[str, int]) -> QpuStatus:
    return ibm_answers.qpu_status(backend.status, backend.message, pending.get(backend.name, 0))
