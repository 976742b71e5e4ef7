# SPDX-License-Identifier: Apache-2.0
"""The session that a job's tasks run in: the one that the job holds, or one that is opened for them.

task_runner and the Python API submit through this. Behind the gateway, whoever asks for a session gets the
lease's, and the gateway opens it. Without it, steps open sessions by themselves: those of one node take
turns, and leave a note of what they opened, since a session is found by its tasks only when it has one. The
end of the job ends them all.
"""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Final

from qpu_slurm.errors import RefusedError, ServiceError
from qpu_slurm.job.absence import make_sure_job_runs
from qpu_slurm.job.cache import JobCache
from qpu_slurm.providers.lifetime import later_session_ttl
from qpu_slurm.tasks.execution import Observer, job_tag

if TYPE_CHECKING:
    from collections.abc import Mapping

    from qpu_slurm.job.variables import JobQpu
    from qpu_slurm.providers.base import Provider
    from qpu_slurm.tasks.execution import Execution
    from qpu_slurm.tasks.payload import Payload

_TURN: Final = 90.0
"""Seconds to wait for another step that opens a session; after that, there may be two."""

_NOTE: Final = "session"
"""What the newest session is noted as."""

_ID: Final = re.compile(r"[A-Za-z0-9._~-]{1,128}")


class JobSession:
    """The session that a job's tasks on one QPU run in.

    Args:
        qpu: The job's QPU.
        provider: Its service, with the job's credential.
        environ: The step's environment.

    Raises:
        NoLeaseError: The job is only bound to the QPU, or over.
    """

    def __init__(self, qpu: JobQpu, provider: Provider, environ: Mapping[str, str]) -> None:
        qpu.may_execute()
        make_sure_job_runs(environ)
        self._qpu = qpu
        self._provider = provider
        self._tag = job_tag(qpu, environ)
        self._ends_at = environ.get("SLURM_JOB_END_TIME", "")
        # The gateway's key is another for each lease. With the session that the step began with, no note is
        # older than that.
        own = (qpu.name, qpu.endpoint, qpu.instance, qpu.api_key.reveal(), self._tag, qpu.session_id or "")
        self._notes = JobCache(environ, *own)
        self._session_id: str | None = None

    def current(self) -> str | None:
        """Return the session that the job has, without opening one; None if it has none.

        Raises:
            ServiceError: It cannot be told.
        """
        return self._known() or self._of_other_steps(None)

    def get(self, observer: Observer | None = None) -> str:
        """Return the session to submit to, and open one if the job has none.

        It may take no more tasks by now, which the service tells at the submission: see `submit`.

        Args:
            observer: Who wants to know of a session that is opened.

        Raises:
            RefusedError: The service will not open a session.
            UnavailableError: The service is away, for now.
        """
        self._session_id = self._known() or self._open(None, observer or Observer())
        return self._session_id

    def usable(self, observer: Observer | None = None) -> str:
        """Return a session that takes tasks now: the service is asked.

        It is for who cannot submit once more where one turns out to be over, such as Qiskit's own primitives.

        Args:
            observer: As for `get`.

        Raises:
            As `get` does.
        """
        session_id = self.get(observer)
        if self._qpu.hold is None or self._takes_tasks(session_id):
            return session_id
        return self._replace(session_id, observer or Observer())

    def submit(
        self, execution: Execution, payload: Payload, *, tags: tuple[str, ...], cost: int | None = None
    ) -> str:
        """Submit a task to the session; if that takes no more, to another one, which is opened for it.

        Args:
            execution: The task's.
            payload: The input.
            tags: See `new_tags`.
            cost: Seconds of QPU time that it may take.

        Returns:
            The session that the task is in.

        Raises:
            RefusedError: The service does not take it, or will not open a session.
            UnavailableError: The service is away, for now.
        """
        first = session_id = self.get(execution.observer)
        try:
            execution.submit(payload, session_id=first, tags=tags, cost=cost)
        except RefusedError as refusal:
            if self._qpu.hold is None or self._takes_tasks(first):
                raise
            execution.observer.refused(first)
            session_id = self._replace(first, execution.observer)
            if session_id == first:
                raise refusal from None
            execution.submit(payload, session_id=session_id, tags=tags, cost=cost)
        return session_id

    def may_go_on(self) -> bool:
        """Tell, when a task was not taken, whether another one may be: in this session or in a new one."""
        try:
            return self._session_id is not None and (
                self._takes_tasks(self._session_id) or self._qpu.hold is not None
            )
        except ServiceError:
            return False

    def _known(self) -> str | None:
        """Return the session that the job has, as far as nobody has to be asked: the newest counts."""
        return self._session_id or self._noted() or self._qpu.session_id

    def _noted(self) -> str | None:
        """Return the session that a step on this node has opened last."""
        text = (self._notes.read(_NOTE) or b"").decode(errors="replace")
        return text if _ID.fullmatch(text) else None

    def _takes_tasks(self, session_id: str) -> bool:
        try:
            return self._provider.session(session_id).accepting_tasks
        except RefusedError:
            return False  # it is not there any more, or not ours

    def _replace(self, session_id: str, observer: Observer) -> str:
        """Have another session than one that takes no more tasks."""
        self._session_id = None
        self._session_id = self._open(session_id, observer)
        return self._session_id

    def _open(self, instead_of: str | None, observer: Observer) -> str:
        """Return a session other than one that takes no more tasks: another step's, or a new one."""
        with self._notes.turn(_TURN):
            session_id = self._noted()
            if session_id is None or session_id == instead_of or not self._takes_tasks(session_id):
                session_id = self._of_other_steps(instead_of)
            if session_id is None:
                session_id = self._provider.open_session(self._max_ttl()).id
                observer.session_opened(session_id, instead_of)
            self._notes.write(_NOTE, session_id.encode())
            return session_id

    def _of_other_steps(self, instead_of: str | None) -> str | None:
        """Find the newest session that has tasks of this job, if it takes more."""
        if not self._tag:
            return None
        session_id = next(self._provider.sessions_of_tasks(self._tag), None)
        if session_id in {None, instead_of} or not self._takes_tasks(session_id):
            return None
        return session_id

    def _max_ttl(self) -> int:
        """Return the seconds that a new session may live: no longer than the job can, as far as is known."""
        left = int(self._ends_at) - int(time.time()) if self._ends_at.isdecimal() else None
        return later_session_ttl(self._qpu.max_ttl, left)
