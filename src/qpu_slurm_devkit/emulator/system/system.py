# SPDX-License-Identifier: Apache-2.0
"""The state behind the IBM Quantum System API: its tasks, each in a lane, and the storage."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qpu_slurm_devkit.emulator.accounts import owned
from qpu_slurm_devkit.emulator.system import answers
from qpu_slurm_devkit.emulator.system.storage import Storage
from qpu_slurm_devkit.emulator.system.tasks import PROGRAMS, SystemTask, SystemTaskRequest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from qpu_slurm_devkit.emulator.backends import Backend
    from qpu_slurm_devkit.emulator.clock import Clock
    from qpu_slurm_devkit.emulator.qpu import Qpu
    from qpu_slurm_devkit.emulator.settings import Account, Settings


class System:
    """What the requests of this API act on.

    Args:
        settings: How it behaves.
        clock: The emulator's time.
        qpus: The QPUs, by name.
    """

    def __init__(self, settings: Settings, clock: Clock, qpus: Mapping[str, Qpu[Backend]]) -> None:
        self._settings = settings
        self._clock = clock
        self._qpus = qpus
        self.storage = Storage(settings.accounts)
        self.tasks: dict[str, SystemTask] = {}

    @property
    def lanes(self) -> int:
        """How many tasks a QPU holds at once."""
        return self._settings.lanes

    def qpu(self, name: str) -> Qpu[Backend]:
        """Find a QPU.

        Raises:
            ApiError: There is none of that name.
        """
        if name not in self._qpus:
            raise answers.no_backend(name)
        return self._qpus[name]

    def task(self, account: Account, task_id: str) -> SystemTask:
        """Find a task.

        Raises:
            ApiError: There is none, or it is another instance's.
        """
        return owned(self.tasks.get(task_id), account, answers.no_task(task_id))

    def submit(self, account: Account, request: SystemTaskRequest) -> None:
        """Take a task into a lane, whoever holds the others.

        Raises:
            ApiError: No such QPU or program, the id is taken, or every lane is.
        """
        qpu = self.qpu(request.backend)
        if request.program_id not in PROGRAMS:
            raise answers.no_program(request.program_id)
        if request.id in self.tasks:
            raise answers.duplicate(request.id)
        if sum(task.backend == request.backend for task in self.tasks.values()) >= self.lanes:
            raise answers.no_lane(request.backend)
        task = SystemTask(account, request, directory=self._settings.directory, now=self._clock.now())
        self.tasks[task.id] = task
        qpu.submit(task)

    def cancel(self, task: SystemTask) -> None:
        """End a task that has not ended.

        Raises:
            ApiError: It has.
        """
        if not task.status.pending:
            raise answers.task_is_over(task.id)
        self.qpu(task.backend).cancel(task)

    def delete(self, task: SystemTask) -> None:
        """Forget a task that is over: its lane is free.

        Raises:
            ApiError: It is not over.
        """
        if task.status.pending:
            raise answers.task_is_pending(task.id)
        self._forget(task)

    def reset(self) -> None:
        """Be as new."""
        for task in list(self.tasks.values()):
            self._forget(task)
        self.storage.reset()

    def _forget(self, task: SystemTask) -> None:
        del self.tasks[task.id]
        for path in (task.input, task.result):
            path.unlink(missing_ok=True)
