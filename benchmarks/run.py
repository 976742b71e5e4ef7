# SPDX-License-Identifier: Apache-2.0
"""One run of a workflow, as the emulator saw it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from qpu_slurm_devkit.emulator import EventKind

if TYPE_CHECKING:
    from qpu_slurm_devkit.demo import Workflow
    from qpu_slurm_devkit.emulator import Event


class Run(NamedTuple):
    """One workflow as it went.

    Attributes:
        workflow: Which one.
        submitted: When its first job was submitted, in seconds since the epoch.
        ended: When its last job was over.
        events: What happened at the quantum service meanwhile.
    """

    workflow: Workflow
    submitted: float
    ended: float
    events: list[Event]

    def locked(self) -> float:
        """Return the seconds that the QPU was locked: a session was active."""
        freed = {EventKind.SESSION_INACTIVE, EventKind.SESSION_CLOSED}
        return self._between({EventKind.SESSION_ACTIVE}, freed)

    def executing(self) -> float:
        """Return the seconds that a task ran on it."""
        return self._between({EventKind.TASK_RUNNING}, {EventKind.TASK_DONE})

    def _between(self, begins: set[EventKind], ends: set[EventKind]) -> float:
        total, since = 0.0, None
        for event in self.events:
            if event.kind in begins and since is None:
                since = event.time
            elif event.kind in ends and since is not None:
                total, since = total + event.time - since, None
        return total
