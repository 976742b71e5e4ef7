# SPDX-License-Identifier: Apache-2.0
"""The state behind IQM Server's API: its QPUs, and the jobs in their queues."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import msgspec

from qpu_slurm_devkit.emulator.iqm import answers
from qpu_slurm_devkit.emulator.iqm.chip import Chip
from qpu_slurm_devkit.emulator.iqm.tasks import Batch, IqmTask
from qpu_slurm_devkit.emulator.qpu import Qpu

if TYPE_CHECKING:
    from qpu_slurm_devkit.emulator.clock import Clock
    from qpu_slurm_devkit.emulator.record import Record
    from qpu_slurm_devkit.emulator.settings import Account, Settings
    from qpu_slurm_devkit.emulator.simulator import Simulator

LONGEST_TAG = 50


class IqmServer:
    """What the requests of this API act on.

    Args:
        settings: How it behaves.
        clock: The emulator's time.
        record: Where events go.
        simulator: What executes jobs.

    Raises:
        LookupError: There is no chip of one of the QPUs' names.
    """

    def __init__(self, settings: Settings, clock: Clock, record: Record, simulator: Simulator) -> None:
        self._settings = settings
        self._clock = clock
        self.tasks: dict[str, IqmTask] = {}
        self.chips = {name: Chip(name) for name in settings.iqm_backends}
        self.qpus = {
            name: Qpu(chip, settings, clock, record, partial(simulator.execute, backend=chip))
            for name, chip in self.chips.items()
        }

    def chip(self, name: str) -> Chip:
        """Find a QPU by its alias or its id.

        Raises:
            IqmError: There is none.
        """
        for chip in self.chips.values():
            if name in {chip.name, chip.id}:
                return chip
        raise answers.no_qpu(name)

    def task(self, account: Account, task_id: str) -> IqmTask:
        """Find a job.

        Raises:
            IqmError: There is none, or it is another account's.
        """
        task = self.tasks.get(task_id)
        if task is None or task.account.api_key != account.api_key:
            raise answers.no_job(task_id)
        return task

    def submit(
        self, account: Account, chip: Chip, payload: bytes, *, tag: str | None, timeslot: bool
    ) -> IqmTask:
        """Take a job.

        Raises:
            IqmError: It is no batch of circuits, or its tag is too long.
        """
        try:
            batch = msgspec.json.decode(payload, type=Batch)
        except msgspec.MsgspecError as error:
            raise answers.bad_payload(str(error)) from None
        if not batch.circuits or batch.shots < 1:
            raise answers.bad_payload("expected circuits, and one shot at least")
        if tag is not None and len(tag) > LONGEST_TAG:
            raise answers.bad_input(f"A tag has {LONGEST_TAG} characters at most.")
        task = IqmTask(
            account,
            chip,
            payload,
            tag=tag,
            timeslot=timeslot,
            directory=self._settings.directory,
            now=self._clock.now(),
        )
        self.tasks[task.id] = task
        self.qpus[chip.name].submit(task)
        return task

    def ahead(self, task: IqmTask) -> int | None:
        """Tell how many jobs are before one in its queue."""
        position = self.qpus[task.backend].position(task)
        return None if position is None else position - 1

    def cancel(self, task: IqmTask) -> None:
        """End a job that has not ended.

        Raises:
            IqmError: It has.
        """
        if not task.status.pending:
            raise answers.job_is_over(task.word)
        self.qpus[task.backend].cancel(task)

    def delete(self, task: IqmTask) -> None:
        """Forget a job, and end it before if that has to be."""
        if task.status.pending:
            self.qpus[task.backend].cancel(task)
        del self.tasks[task.id]
        for path in (task.input, task.result):
            path.unlink(missing_ok=True)

    def reset(self) -> None:
        """Be as new."""
        for qpu in self.qpus.values():
            qpu.reset()
        for task in list(self.tasks.values()):
            self.delete(task)
