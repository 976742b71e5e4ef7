# SPDX-License-Identifier: Apache-2.0
"""The controller's hooks without a gateway: they take an environment, and return an exit code.

`lifecycle/` decides what a start and an end do. Failures are logged, and drain no node.
"""

from __future__ import annotations

import os
import threading
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

import structlog

from qpu_slurm import reach
from qpu_slurm.errors import QpuSlurmError, UnavailableError
from qpu_slurm.lifecycle.end import End
from qpu_slurm.lifecycle.start import FAILED, Start, look_up
from qpu_slurm.slurm.control import Control
from qpu_slurm.slurm.job import HookJob
from qpu_slurm.slurm.query import connect

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from qpu_slurm.config import Config
    from qpu_slurm.slurm.query import Query

_SLURM_CALLS = 6

_log = structlog.get_logger(__name__)


def prolog(
    config: Config,
    environ: Mapping[str, str],
    *,
    query: Query | None = None,
    control: Control | None = None,
) -> int:
    """Open the sessions of a job that is about to start (PrologSlurmctld).

    Args:
        config: The configuration.
        environ: The hook's environment.
        query: Queries Slurm; by default as `config` says.
        control: Changes jobs in Slurm; by default as `config` says.

    Returns:
        The exit code. 0 lets the job start, or wait. With `NOT_STARTED`, Slurm requeues a batch job after two
        minutes, and ends an srun or salloc. `FAILED` does the same to a job with `--qpu`, and lets any other
        job start.
    """
    start = None
    try:
        job = HookJob.from_environ(environ)
        query, control = query or connect(config.slurm), control or Control(config.slurm)
        start = Start(config, job, query, control, partial(reach.broker, config))
        with _bounded(config.outage.acquire_timeout + _SLURM_CALLS * config.slurm.timeout, start.failure):
            return start.run()
    except QpuSlurmError as error:
        _log.error("prolog failed", job_id=environ.get("SLURM_JOB_ID"), why=str(error))
        return FAILED if start is None else start.failure()


def epilog(config: Config, environ: Mapping[str, str], *, query: Query | None = None) -> int:
    """Close the sessions of a job that has ended (EpilogSlurmctld).

    Args:
        config: The configuration.
        environ: The hook's environment.
        query: Queries Slurm; by default as `config` says.

    Returns:
        The exit code, which Slurm only logs: 1 if even the journal could not be written.
    """
    try:
        job = HookJob.from_environ(environ)
        with _bounded(60 + _SLURM_CALLS * config.slurm.timeout):
            end = End.of(job, look_up(job.leader, query or connect(config.slurm)))
            if end is not None:
                with reach.broker(config) as broker:
                    end.release(broker.release)
            return 0
    except UnavailableError as error:
        _log.warning("released later, by the gateway", job_id=job.job_id, leader=job.leader, why=str(error))
        return 0
    except QpuSlurmError as error:
        _log.error("epilog failed", job_id=environ.get("SLURM_JOB_ID"), why=str(error))
        return FAILED


@contextmanager
def _bounded(seconds: float, code: Callable[[], int] = lambda: FAILED) -> Iterator[None]:
    """Kill this process if it takes too long: the last resort for calls without a timeout.

    For example, the C library resolves names without one. Dying is safe at any point; see the broker.
    """

    def give_up() -> None:
        _log.error("the hook took too long", seconds=seconds)
        os._exit(code())

    timer = threading.Timer(seconds, give_up)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
