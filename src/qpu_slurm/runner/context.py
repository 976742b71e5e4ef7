# SPDX-License-Identifier: Apache-2.0
"""What all inputs of a call of task_runner have in common."""

from __future__ import annotations

import io
import sys
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qpu_slurm.runner.arguments import STDIO
from qpu_slurm.tasks import overrides, payload
from qpu_slurm.tasks.queue import TaskQueue

if TYPE_CHECKING:
    from collections.abc import Mapping

    from qpu_slurm.job.variables import JobQpu
    from qpu_slurm.providers.base import Provider
    from qpu_slurm.runner.arguments import Options
    from qpu_slurm.runner.console import Console
    from qpu_slurm.runner.signals import EndingSignals
    from qpu_slurm.tasks.calibration import Calibration
    from qpu_slurm.tasks.payload import Payload


class Context:
    """What all inputs of a call have in common.

    Args:
        options: What was asked for.
        environ: The step's environment.
        qpu: The QPU.
        console: What reports on the call.
        signals: What reports that the call has to end.
    """

    def __init__(
        self,
        options: Options,
        environ: Mapping[str, str],
        qpu: JobQpu,
        console: Console,
        signals: EndingSignals,
    ) -> None:
        self.options = options
        self.environ = environ
        self.qpu = qpu
        self.console = console
        self.signals = signals

    @cached_property
    def queue(self) -> TaskQueue[Any]:
        """The tasks that are with the service."""
        # A signal between a request and its answer would leave a task behind whose id nobody knows.
        return TaskQueue(self.qpu, self.environ, guard=self.signals.held)

    @property
    def provider(self) -> Provider:
        """The QPU's service."""
        return self.queue.provider

    @property
    def calibration(self) -> Calibration:
        """What tells whether inputs were transpiled for this QPU as it is now."""
        return self.queue.calibration

    def load(self, source: str) -> Payload:
        """Read and check an input, and change in it what the options say.

        Raises:
            PayloadError: It cannot be used.
        """
        if source == STDIO:
            stdin = sys.stdin.buffer if sys.stdin else io.BytesIO()
            task_input = payload.receive(stdin, source="standard input", qpu_type=self.qpu.type)
        else:
            task_input = payload.read(Path(source), qpu_type=self.qpu.type)
        shots = self.options.shots
        return task_input if shots is None else overrides.with_shots(task_input, shots)
