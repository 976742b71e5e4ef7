# SPDX-License-Identifier: Apache-2.0
"""The whole service in memory: accounts, QPUs, sessions, tasks, faults and the record of it all."""

from __future__ import annotations

from functools import partial
from itertools import chain
from typing import TYPE_CHECKING

from aiohttp import web

from qpu_slurm_devkit.emulator import answers
from qpu_slurm_devkit.emulator.accounts import Identity, owned
from qpu_slurm_devkit.emulator.backends import Backend
from qpu_slurm_devkit.emulator.clock import Clock
from qpu_slurm_devkit.emulator.faults import Faults
from qpu_slurm_devkit.emulator.iqm.server import IqmServer
from qpu_slurm_devkit.emulator.qpu import Qpu
from qpu_slurm_devkit.emulator.record import Record
from qpu_slurm_devkit.emulator.sessions import Session
from qpu_slurm_devkit.emulator.simulator import Simulator
from qpu_slurm_devkit.emulator.system.system import System
from qpu_slurm_devkit.emulator.system.tasks import SystemTask
from qpu_slurm_devkit.emulator.tasks import Outcome, Task, TaskRequest

if TYPE_CHECKING:
    from collections.abc import Iterable

    from qpu_slurm_devkit.emulator.iqm.chip import Chip
    from qpu_slurm_devkit.emulator.settings import Account, Settings


class Service:
    """What the emulator's requests act on.

    Args:
        settings: How it behaves.

    Raises:
        LookupError: There is no snapshot of one of the QPUs.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.clock = Clock()
        self.record = Record()
        self.faults = Faults()
        self.identity = Identity(settings.accounts, settings.token_ttl, self.clock)
        self.simulator = Simulator(settings, self.clock)
        self.sessions: dict[str, Session] = {}
        self.tasks: dict[str, Task] = {}
        self.qpus: dict[str, Qpu[Backend]] = {}
        for name in settings.backends:
            backend = Backend(name)
            execute = partial(self._execute, backend=backend)
            self.qpus[name] = Qpu(backend, settings, self.clock, self.record, execute)
        self.system = System(settings, self.clock, self.qpus)
        self.iqm = IqmServer(settings, self.clock, self.record, self.simulator)

    def qpu(self, name: str) -> Qpu[Backend]:
        """Find a QPU.

        Raises:
            ApiError: There is none of that name.
        """
        if name not in self.qpus:
            raise answers.no_backend(name)
        return self.qpus[name]

    def any_qpu(self, name: str) -> Qpu[Backend] | Qpu[Chip]:
        """Find a QPU of any API.

        Raises:
            ApiError: There is none of that name.
        """
        return self.iqm.qpus.get(name) or self.qpu(name)

    def all_tasks(self) -> Iterable[Task]:
        """List every account's tasks, of all APIs."""
        return chain(self.tasks.values(), self.system.tasks.values(), self.iqm.tasks.values())

    def session(self, account: Account, session_id: str) -> Session:
        """Find a session.

        Raises:
            ApiError: There is none, or it is another instance's.
        """
        return owned(self.sessions.get(session_id), account, answers.no_session(session_id))

    def task(self, account: Account, task_id: str) -> Task:
        """Find a task.

        Raises:
            ApiError: There is none, or it is another instance's.
        """
        return owned(self.tasks.get(task_id), account, answers.no_task(task_id))

    def open_session(self, account: Account, backend: str, mode: str, max_ttl: float | None) -> Session:
        """Create a session.

        Raises:
            ApiError: The account may not, or there is no such QPU.
        """
        if account.plan == "open" and mode == "dedicated":
            raise answers.no_dedicated_sessions()
        qpu = self.qpu(backend)
        session = Session(
            account,
            backend,
            mode,
            max_ttl=max_ttl or self.settings.max_ttl,
            interactive_ttl=self.settings.interactive_ttl,
            now=self.clock.now(),
        )
        self.sessions[session.id] = session
        qpu.open(session)
        return session

    def submit(self, account: Account, request: TaskRequest) -> Task:
        """Take a task.

        Raises:
            ApiError: It names no QPU that there is, or a session that does not take it.
        """
        session = self.session(account, request.session_id) if request.session_id else None
        if session is not None and not session.accepting_tasks:
            raise answers.session_closed()
        backend = request.backend or (session.backend if session else None)
        if backend is None:
            raise answers.invalid("backend is required")
        if session is not None and backend != session.backend:
            raise answers.invalid(f"the session is on {session.backend}, not on {backend}")
        qpu = self.qpu(backend)
        task = Task(
            account, backend, request, session, directory=self.settings.directory, now=self.clock.now()
        )
        task.input.write_bytes(request.params)
        self.tasks[task.id] = task
        qpu.submit(task)
        return task

    def delete(self, task: Task) -> None:
        """Forget a task that is over."""
        del self.tasks[task.id]
        for path in (task.input, task.result):
            path.unlink(missing_ok=True)

    async def _execute(self, task: Task, backend: Backend) -> Outcome:
        """Execute a task; one of the IBM Quantum System API fetches its input first."""
        simulate = partial(self.simulator.execute, backend=backend)
        return await (task.execute(simulate) if isinstance(task, SystemTask) else simulate(task))

    def reset(self) -> None:
        """Be as new: no sessions, tasks, faults or record; tokens stay valid."""
        for qpu in self.qpus.values():
            qpu.reset()
        self.clock.reset()
        self.faults.clear()
        self.record.events.clear()
        self.record.requests.clear()
        self.sessions.clear()
        for task in list(self.tasks.values()):
            self.delete(task)
        self.system.reset()
        self.iqm.reset()


SERVICE = web.AppKey("service", Service)
