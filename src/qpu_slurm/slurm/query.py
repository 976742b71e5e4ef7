# SPDX-License-Identifier: Apache-2.0
"""Asking Slurm what it knows about jobs."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Protocol

from qpu_slurm.slurm._command_line import CommandLine
from qpu_slurm.slurm._pyslurm import Pyslurm

if TYPE_CHECKING:
    from collections.abc import Iterable

    from qpu_slurm.config import SlurmConfig
    from qpu_slurm.slurm.job import JobRecord


class Query(Protocol):
    """What Slurm knows about jobs; ended ones it forgets after slurm.conf's MinJobAge.

    All raise `SlurmError` if Slurm does not answer.
    """

    def job(self, job_id: int) -> JobRecord | None:
        """Look up a job, or a component of a heterogeneous job; None if Slurm does not know it."""

    def components(self, job_id: int) -> list[JobRecord]:
        """Look up all components of a heterogeneous job, in their order, by the id of any of them.

        A job that is none is its only component; of one that Slurm does not know, there are none.
        """

    def jobs(self) -> list[JobRecord]:
        """List all jobs, each component of a heterogeneous job by itself, in no particular order.

        What they asked for as `gres` is left out.
        """


class BatchQuery(Query, Protocol):
    """The same, for many jobs at once."""

    def many(self, job_ids: Iterable[int]) -> dict[int, list[JobRecord]]:
        """Look up the components of several jobs; see `components`.

        Returns:
            The components, by the ids that were asked for; none for a job that Slurm does not know.
        """


def connect(config: SlurmConfig) -> BatchQuery:
    """Choose the way to ask: with pyslurm's help where it is installed, Slurm's commands alone elsewhere.

    pyslurm is built against one Slurm release and linked to its library, so where it can be imported it
    fits.

    Args:
        config: Where Slurm's commands are, which cluster to ask, and how long to wait for an answer.
    """
    command_line = CommandLine(config)
    if importlib.util.find_spec("pyslurm") is None:
        return command_line
    return Pyslurm(config.conf, command_line)
