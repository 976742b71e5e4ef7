# SPDX-License-Identifier: Apache-2.0
"""Accounts for ended sessions in the background: in the journal, the metrics and Slurm's records."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, NoReturn

import msgspec
import structlog

from qpu_slurm.errors import QpuSlurmError, SlurmError
from qpu_slurm.leases.accountant import Accountant
from qpu_slurm.slurm.admin_comment import AdminComment, Usage
from qpu_slurm.slurm.control import Control
from qpu_slurm.slurm.query import connect
from qpu_slurm.system.deadline import Deadline

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qpu_slurm.gateway.gateway import Gateway
    from qpu_slurm.journal.journal import Journal
    from qpu_slurm.journal.model import Lease
    from qpu_slurm.leases.accountant import Used
    from qpu_slurm.slurm.query import Query

_LOOK_SECONDS = 2.0
"""Seconds between two searches for sessions that ended without a release, such as after their last task."""

_REFUSED_SECONDS = 30.0
"""Seconds before Slurm is asked again to write a record that it refused."""

_RUNNING = frozenset({"RUNNING", "SUSPENDED"})
_COMPLETING = "COMPLETING"

_log = structlog.get_logger(__name__)


async def keep_account(gateway: Gateway) -> NoReturn:
    """Account for sessions as they end. Those that ended while the gateway was down come first."""
    config = gateway.config
    accountant = Accountant(config, gateway.background, gateway.connections.connect)
    record = SlurmsRecord(gateway.background, connect(config.slurm), Control(config.slurm))
    while True:
        gateway.ended.clear()
        if config is not gateway.config:  # it was reloaded
            config = gateway.config
            accountant = Accountant(config, gateway.background, gateway.connections.connect)
        try:
            found = await gateway.pools.background.run(accountant.run)
            for used in found:
                _count(gateway, used)
                record.add(used.lease)
            await gateway.pools.background.run(record.write)
        except QpuSlurmError as error:
            _log.error("the accountant failed", why=str(error))
        except Exception:  # noqa: BLE001 - it has to try again, whatever it was
            _log.exception("the accountant failed")
        with suppress(TimeoutError):
            async with asyncio.timeout(_LOOK_SECONDS):
                await gateway.ended.wait()


def _count(gateway: Gateway, used: Used) -> None:
    gateway.metrics.note_use(
        used.lease.qpu,
        gateway.config.budgets,
        locked=used.locked_seconds,
        executed=used.executed_seconds,
    )


class SlurmsRecord:
    """Writes the QPU time of jobs into Slurm's own records: into AdminComment, where possible.

    Slurm takes the comment of a running job. Of an ended job, only slurmdbd's record can be changed, and
    slurmctld overwrites that once when the job ends. A gateway that is not SlurmUser may change only ended
    jobs, as an Operator. A failure here loses nothing: the account is in the journal.

    Args:
        journal: Holds the use of each session.
        query: Queries Slurm.
        control: Changes Slurm's records.
    """

    def __init__(self, journal: Journal, query: Query, control: Control) -> None:
        self._journal = journal
        self._query = query
        self._control = control
        self._database = True  # until sacctmgr reports that there is none
        self._untold: dict[int, Lease] = {}
        self._refused: dict[int, Deadline] = {}

    def add(self, lease: Lease) -> None:
        """Put the job of a lease on the list of records to write."""
        self._untold[lease.job_id] = lease

    def write(self) -> None:
        """Write the records that Slurm takes now."""
        budget = Deadline.after(_REFUSED_SECONDS)
        for lease in list(self._untold.values()):
            job_id = lease.job_id
            if budget.passed:
                return  # Slurm is slow: the next call continues
            if job_id in self._refused and not self._refused[job_id].passed:
                continue
            try:
                done = self._write(lease)
            except SlurmError as error:
                if job_id not in self._refused:
                    _log.info("Slurm's record has no usage yet", job_id=job_id, why=str(error))
                # While the job runs, only SlurmUser may; once it is over, an Operator may.
                self._refused[job_id] = Deadline.after(_REFUSED_SECONDS)
                continue
            if done:
                del self._untold[job_id]
                self._refused.pop(job_id, None)

    def _write(self, lease: Lease) -> bool:
        """Write the QPU time of a job; return whether its record is complete."""
        job = self._query.job(lease.job_id)
        if job is None or not lease.is_of(job.run):
            return True
        if job.state == _COMPLETING:
            return not self._database
        left = AdminComment.from_comment(job.admin_comment)
        left = msgspec.structs.replace(left, usage=dict(self._usage(lease.job_id)))
        comment = left.into_comment(job.admin_comment)
        if job.state in _RUNNING:
            self._control.set_admin_comment(job.job_id, comment)
        elif self._database:
            self._database = self._control.set_admin_comment_of_ended(job, comment)
        return True

    def _usage(self, job_id: int) -> Iterator[tuple[str, Usage]]:
        """Add up a job's use of each QPU, as far as the service has reported it."""
        for past in self._journal.history.leases(job_id):
            told = [one.session for one in past.sessions if one.session.locked_seconds is not None]
            if told:
                yield (
                    past.lease.qpu,
                    Usage(
                        locked=round(sum(session.locked_seconds or 0.0 for session in told), 3),
                        executed=round(sum(session.executed_seconds or 0.0 for session in told), 3),
                    ),
                )
