# SPDX-License-Identifier: Apache-2.0
"""Asking Slurm with pyslurm, which calls Slurm's own library: no process to start."""

from __future__ import annotations

import importlib
import os
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from qpu_slurm.errors import SlurmError
from qpu_slurm.slurm._command_line import FIELDS
from qpu_slurm.slurm.job import ArrayElement, JobRecord, parse_licenses
from qpu_slurm.system.pace import paced

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path
    from types import ModuleType

    from qpu_slurm.slurm._command_line import CommandLine

_YEAR = 365 * 24 * 3600


class Pyslurm:
    """What Slurm knows, as its library tells it, for who lists all jobs again and again.

    About a single job the commands are asked. They have answered before pyslurm is imported (squeue takes
    10 ms, the import 20), and pyslurm leaves out of a job's gres what it cannot read, without a word: a
    type without a count, as in `--gres=qpu:ibm_fez`.

    How long it waits for an answer is slurm.conf's MessageTimeout.

    Args:
        conf: The cluster's slurm.conf.
        command_line: The commands.
    """

    def __init__(self, conf: Path, command_line: CommandLine) -> None:
        self._conf = conf
        self._command_line = command_line

    def job(self, job_id: int) -> JobRecord | None:
        """Look up a job, or a component of a heterogeneous job; see `Query`."""
        return self._command_line.job(job_id)

    def components(self, job_id: int) -> list[JobRecord]:
        """Look up a heterogeneous job; see `Query`."""
        return self._command_line.components(job_id)

    def many(self, job_ids: Iterable[int]) -> dict[int, list[JobRecord]]:
        """Look up several jobs; see `Query`."""
        return self._command_line.many(job_ids)

    def jobs(self) -> list[JobRecord]:
        """List all jobs; see `Query`."""
        pyslurm = _import(self._conf)
        if pyslurm is None:
            return self._command_line.jobs()
        try:
            return [record(job) for job in paced(pyslurm.Jobs.load().values())]
        except pyslurm.RPCError as error:
            raise SlurmError(f"pyslurm: {error}") from error
        except UnicodeDecodeError:  # an AdminComment that is no text
            return self._command_line.jobs()


def _import(conf: Path) -> ModuleType | None:
    """Import pyslurm for a cluster; None if it cannot be."""
    # Slurm's library reads SLURM_CONF once, when pyslurm is imported, and ends the whole process if there
    # is no such file: the commands give an error instead.
    if "pyslurm" in sys.modules:
        return sys.modules["pyslurm"] if os.environ.get("SLURM_CONF") == str(conf) else None
    if not conf.is_file():
        return None
    os.environ["SLURM_CONF"] = str(conf)
    try:
        return importlib.import_module("pyslurm")
    except ImportError:  # its libslurm is not on this machine (any more)
        return None


def record(job: Any) -> JobRecord:  # noqa: ANN401 - pyslurm.Job, which has no type information
    """Read a `pyslurm.Job`."""
    # The limit is in minutes, and None without one; the run time of a job that was suspended at once is None.
    time_left = None if job.time_limit is None else max(0, job.time_limit * 60 - (job.run_time or 0))
    return JobRecord(
        job_id=job.id,
        het_job_id=job.heterogeneous_id or None,
        element=_element(job),
        user_id=job.user_id,
        state=job.state,
        batch=job.is_batch_job,
        gres=(),
        licenses=parse_licenses(",".join(job.licenses)),
        time_left=None if time_left is not None and time_left > _YEAR else time_left,
        submitted_at=datetime.fromtimestamp(job.submit_time, UTC),
        account=_cut("Account", job.account or ""),
        partition=_cut("Partition", job.partition or ""),
        qos=_cut("QOS", job.qos or ""),
        reason=_cut("Reason", job.state_reason or "None"),
        admin_comment=job.admin_comment or "",
    )


def _element(job: Any) -> ArrayElement | None:  # noqa: ANN401 - likewise
    if not job.array_id:
        return None
    if job.array_tasks_waiting:
        # These have not started yet; squeue as well names the last of them.
        only = job.array_tasks_waiting
        return ArrayElement(job.array_id, int(only)) if only.isdigit() else None
    # pyslurm shows element 0 as none.
    return ArrayElement(job.array_id, job.array_task_id or 0)


def _cut(field: str, value: str) -> str:
    """Return as much of a text as squeue is asked for."""
    return value.encode()[: FIELDS[field]].decode(errors="replace").rstrip()
