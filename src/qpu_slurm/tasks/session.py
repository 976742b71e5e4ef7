# SPDX-License-Identifier: Apache-2.0
"""The session that a job's tasks run in: the one that the job holds, or one that is opened for them.

task_runner and the Python API submit through this. Behind the gateway, whoever asks for a session gets the
lease's, and the gateway opens it. Without it, steps open sessions by themselves: those of one node take
turns, and leave a note of what they opened, since a session is found by its tasks only when it has one. The
end of the job ends them all.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from stat import S_ISDIR
from typing import TYPE_CHECKING, Final

from qpu_slurm.errors import Refused, ServiceError
from qpu_slurm.leases.files import locked, open_private
from qpu_slurm.slurm.job import JOB_TAG
from qpu_slurm.tasks.execute import Observer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from qpu_slurm.environment import JobQpu
    from qpu_slurm.providers.base import Provider
    from qpu_slurm.tasks.execute import Execution
    from qpu_slurm.tasks.payload import Payload

_TURN: Final = 90.0
"""Seconds to wait for another step that opens a session; after that, there may be two."""

_LONGEST_LIFE: Final = 28_800
"""Seconds after which a note is worth nothing: no session lives longer."""

_RUN: Final = ("SLURM_CLUSTER_NAME", "SLURM_JOB_ID", "SLURM_RESTART_COUNT", "SLURM_JOB_START_TIME")
"""What tells one run of one job; older Slurms do not set all of them."""

_ID: Final = re.compile(r"[A-Za-z0-9._~-]{1,128}")


class JobSession:
    """The session that a job's tasks on one QPU run in.

    Args:
        qpu: The job's QPU.
        provider: Its service, with the job's credential.
        environ: The step's environment.

    Raises:
        NoLease: The job is only bound to the QPU.
    """

    def __init__(self, qpu: JobQpu, provider: Provider, environ: Mapping[str, str]) -> None:
        qpu.may_execute()
        self._qpu = qpu
        self._provider = provider
        self._job_id = environ.get("SLURM_JOB_ID", "")
        self._ends_at = environ.get("SLURM_JOB_END_TIME", "")
        directory = Path(environ.get("TMPDIR") or "/tmp") / f"qpu_slurm-{os.geteuid()}"  # noqa: S108 - checked
        self._note = _Note(directory, _name(qpu, environ) if self._job_id else "")
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
            Refused: The service will not open a session.
            Unavailable: The service is away, for now.
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
            Refused: The service does not take it, or will not open a session.
            Unavailable: The service is away, for now.
        """
        first = session_id = self.get(execution.observer)
        try:
            execution.submit(payload, session_id=first, tags=tags, cost=cost)
        except Refused as refusal:
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
        return self._session_id or self._note.read() or self._qpu.session_id

    def _takes_tasks(self, session_id: str) -> bool:
        try:
            return self._provider.session(session_id).accepting_tasks
        except Refused:
            return False  # it is not there any more, or not ours

    def _replace(self, session_id: str, observer: Observer) -> str:
        """Have another session than one that takes no more tasks."""
        self._session_id = None
        self._session_id = self._open(session_id, observer)
        return self._session_id

    def _open(self, instead_of: str | None, observer: Observer) -> str:
        """Return a session other than one that takes no more tasks: another step's, or a new one."""
        with self._note.turn():
            session_id = self._note.read()
            if session_id is None or session_id == instead_of or not self._takes_tasks(session_id):
                session_id = self._of_other_steps(instead_of)
            if session_id is None:
                session_id = self._provider.open_session(self._max_ttl()).id
                observer.session_opened(session_id, instead_of)
            self._note.write(session_id)
            return session_id

    def _of_other_steps(self, instead_of: str | None) -> str | None:
        """Find the newest session that has tasks of this job, if it takes more."""
        if not self._job_id:
            return None
        session_id = next(self._provider.sessions_of_tasks(f"{JOB_TAG}{self._job_id}"), None)
        if session_id in {None, instead_of} or not self._takes_tasks(session_id):
            return None
        return session_id

    def _max_ttl(self) -> int:
        """Return the seconds that a new session may live: no longer than the job can, as far as is known."""
        longest = self._qpu.max_ttl
        left = int(self._ends_at) - int(time.time()) if self._ends_at.isdecimal() else longest
        # A job that runs beyond its end was given more time since.
        return min(left, longest) if left > 0 else longest


def _name(qpu: JobQpu, environ: Mapping[str, str]) -> str:
    """Name a QPU of this run of this job, as far as that can be told from others: Slurm uses an id again."""
    run = [environ.get(name, "") for name in _RUN]
    # The gateway's key is another for each lease; what the job began with is another for each run.
    own = [qpu.name, qpu.endpoint, qpu.instance, qpu.api_key.reveal(), qpu.session_id or ""]
    return hashlib.sha256("\0".join(run + own).encode(errors="replace")).hexdigest()[:32]


class _Note:
    """What tells the steps of a job, on one node, which session was opened last: a file of the user's own.

    It saves steps from opening a session each, and the service a question. Where it cannot be kept, they do.

    Args:
        directory: Where notes are; used only if it is this user's alone.
        name: The note's; empty keeps none.
    """

    def __init__(self, directory: Path, name: str) -> None:
        self._directory = directory
        self._path = directory / name if name else None

    def read(self) -> str | None:
        """Return the session that was opened last, if a step has."""
        if self._path is None or not self._is_ours():
            return None
        try:
            text = self._path.read_text(encoding="ascii")
        except (OSError, ValueError):
            return None
        return text if _ID.fullmatch(text) else None

    def write(self, session_id: str) -> None:
        """Note a session."""
        if self._path is None or not self._is_ours():
            return
        draft = self._path.with_name(f".{self._path.name}.{os.urandom(8).hex()}")
        with suppress(OSError):
            with os.fdopen(open_private(draft), "w", encoding="ascii") as file:
                file.write(session_id)
            draft.rename(self._path)

    def turn(self) -> ExitStack:
        """Take a turn: no other step of the job on this node opens a session meanwhile."""
        turn = ExitStack()
        if self._path is not None:
            with suppress(OSError):  # a `TimeoutError` is one, too
                self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
                if self._is_ours():
                    self._tidy()
                    lock = self._path.with_name(f"{self._path.name}.lock")
                    turn.enter_context(locked(lock, deadline=time.monotonic() + _TURN))
        return turn

    def _is_ours(self) -> bool:
        """Tell whether nobody else can have put anything here."""
        try:
            found = self._directory.lstat()
        except OSError:
            return False
        return S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o077

    def _tidy(self) -> None:
        """Remove what jobs have left that are over for long."""
        since = time.time() - 2 * _LONGEST_LIFE
        for path in self._directory.iterdir():
            if path.lstat().st_mtime < since:
                path.unlink(missing_ok=True)
