# SPDX-License-Identifier: Apache-2.0
"""Ten thousand leases compared with what Slurm runs, and those ended that nobody holds any more.

The journal is written by the journal's own code, and read from disk. What Slurm says is what squeue would
print: that is read as always, only squeue itself is not run. One job in a hundred is over; its session is
open at the emulator, and ended there. What the emulator needed for its answers is taken off.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from benchmarks.broker import configuration
from benchmarks.figures import Figure
from benchmarks.processes import rounded
from benchmarks.step import HOURS, QPU
from benchmarks.throughput import MEMORY
from qpu_slurm.journal.journal import Journal
from qpu_slurm.journal.model import LeaseRequest
from qpu_slurm.leases.broker import Broker
from qpu_slurm.leases.reaper import Reaper
from qpu_slurm.slurm._command_line import FIELDS, parse
from qpu_slurm.system import logs
from qpu_slurm_devkit.emulator import Emulator

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qpu_slurm.config import Config
    from qpu_slurm.slurm.job import JobRecord

LEASES = 10_000
_OVER = LEASES // 100
_USER = 1000
_TIMES = 3


class _Recorded:
    """What Slurm knows, as squeue printed it."""

    def __init__(self, jobs: range) -> None:
        fixed = {
            "HetJobID": "N/A",
            "UserID": str(_USER),
            "State": "RUNNING",
            "BatchFlag": "1",
            "TimeLeft": "1:00:00",
            "TimeLimit": "1:00:00",
            "tres-per-node": "gres:qpu:1",
            "admin_comment": '{"qpu_slurm":{"sessions":{"ibm_fez":"00000000-0000-0000-0000-000000000000"}}}',
        }
        lines = [
            "".join(str(fixed.get(name, job)).ljust(width) for name, width in FIELDS.items()) for job in jobs
        ]
        self._output = "".join(f"{line}\n" for line in lines).encode()

    def jobs(self) -> list[JobRecord]:
        """List all jobs."""
        return list(parse(self._output))

    def components(self, job_id: int) -> list[JobRecord]:
        """Look up a job, which is its only component."""
        return [job for job in self.jobs() if job.job_id == job_id]

    def job(self, job_id: int) -> JobRecord | None:
        """Look up a job."""
        return next(iter(self.components(job_id)), None)


def measure() -> Iterator[Figure]:
    """Reconcile, a few times."""
    query = _Recorded(range(_OVER + 1, LEASES + 1))
    own, idle, service, slurm = [], [], [], []
    with ExitStack() as stack:
        emulator = stack.enter_context(Emulator(interactive_ttl=HOURS, idle_ttl=HOURS, backends=(QPU,)))
        disk = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="qpu-bench-")))
        memory = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=MEMORY)))
        logs.configure("info", disk / "reaper.log")
        config = configuration(disk, emulator.url, emulator.accounts[0])
        for _ in range(_TIMES):
            _write_journal(config, memory / "journal.sqlite")
            shutil.copy(memory / "journal.sqlite", config.journal)
            before = len(emulator.requests())
            with Journal(config.journal) as journal:
                reaper = Reaper(config, Broker(config, journal), journal, query)
                begin = time.perf_counter()
                report = reaper.run()
                took = time.perf_counter() - begin
                begin = time.perf_counter()
                reaper.run()
                idle.append(time.perf_counter() - begin)
            if (report.leases, len(report.reaped), report.complete) != (LEASES, _OVER, True):
                raise RuntimeError(f"{report.leases} leases, {len(report.reaped)} ended; {report.trouble}")
            service.append(sum(request.seconds for request in emulator.requests()[before:]))
            own.append(took - service[-1])
            begin = time.perf_counter()
            query.jobs()
            slurm.append(time.perf_counter() - begin)
            for path in (*memory.iterdir(), *disk.glob("journal.sqlite*")):
                path.unlink()
    number = own.index(sorted(own)[_TIMES // 2])
    each = (own[number] - idle[number]) / _OVER
    yield Figure(
        key="reconcile.seconds_10k",
        what=f"{LEASES} leases reconciled, {_OVER} of them ended",
        value=own[number],
        at_most=2,
        unit="s",
        details={
            "seconds": rounded(own),
            "nothing_to_end_seconds": rounded(idle),
            "slurm_seconds": rounded(slurm),
            "service_seconds": rounded(service),
        },
        note=(
            "The service's own time is excluded. "
            f"With nothing to end, this takes {idle[number]:.2f} s, of which {slurm[number]:.2f} s are for "
            f"reading squeue. Ending a lease takes {each * 1e3:.1f} ms. If all jobs had ended at once, that "
            f"would be {each * LEASES:.0f} s."
        ),
    )


def _write_journal(config: Config, path: Path) -> None:
    """Write a journal of leases that are all held, in memory, where that is quick."""
    ends = datetime.now(UTC) + timedelta(seconds=HOURS)
    with Journal(path) as journal:
        broker = Broker(msgspec.structs.replace(config, journal=path), journal)
        for job in range(1, LEASES + 1):
            if job <= _OVER:
                broker.acquire(LeaseRequest(job_id=job, user_id=_USER, qpus=(QPU,), seconds_left=HOURS))
            else:
                lease = journal.intend(job_id=job, user_id=_USER, qpu=QPU, expires_at=ends)
                journal.hold(lease.id, f"session-{job}", ends)
