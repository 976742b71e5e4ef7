# SPDX-License-Identifier: Apache-2.0
"""What the controller's hooks do when a job starts and when it ends.

Thin: Slurm's environment in, a broker's call, Slurm told, an exit code out. Whatever goes wrong is logged,
and never drains a node:

- a mistake of the user's ends a batch job with one sentence in its output (the SPANK plugin prints it as
  the job's first task starts), and an srun or salloc with the sentence on its terminal;
- an outage requeues a batch job with a growing delay, until it is given up on; it ends an srun or salloc;
- so does a QPU that is closed, away, or in use by as many jobs as may, but that is waited for, however long.
"""

from __future__ import annotations

import os
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

import structlog

from qpu_slurm import reach
from qpu_slurm.errors import (
    ConfigError,
    JournalError,
    MustWaitError,
    QpuSlurmError,
    RefusedError,
    RequestError,
    SlurmError,
    UnavailableError,
)
from qpu_slurm.journal.model import Hold, LeaseRequest, Refusal
from qpu_slurm.names import parse_qpu_option
from qpu_slurm.slurm.admin_comment import AdminComment, Granted
from qpu_slurm.slurm.control import Control
from qpu_slurm.slurm.job import HookJob
from qpu_slurm.slurm.query import connect

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from qpu_slurm.config import Config, OutageConfig
    from qpu_slurm.slurm.job import Gres, JobRecord
    from qpu_slurm.slurm.query import Query

GRES = "qpu"
"""The generic resource's name, in slurm.conf's GresTypes and in users' `--gres=qpu:1`."""

STARTED = frozenset({"RUNNING", "CONFIGURING", "SUSPENDED"})
"""The states of a job that has its nodes and was not ended."""

FAILED = 1
"""The exit code of a hook that could not do its work: whether the job has a QPU is not known, perhaps."""

NOT_STARTED = 10
"""The exit code of a prolog whose job has a QPU and must not start; see plugin/hooks/hook.sh.in. Python's own
failures never have it."""

_UNLIMITED = 10 * 366 * 86_400
_SLURM_CALLS = 6

_log = structlog.get_logger(__name__)


class Wanted(NamedTuple):
    """The QPUs that a job means: those to open a session on, and those that it is only bound to."""

    acquire: tuple[str, ...] = ()
    bind: tuple[str, ...] = ()


def wanted(option: str | None, gres: Sequence[Gres], config: Config) -> Wanted:
    """Decide which QPUs a job means.

    Args:
        option: The value of `--qpu`; None without one.
        gres: What the job asked for with `--gres`.
        config: The QPUs that there are, and what acquires (`acquire_on`).

    Raises:
        RequestError: It names a QPU that there is not, or asks for one without saying which.
    """
    named = parse_qpu_option(option) if option else ()
    asked = [item for item in gres if item.name == GRES and item.count > 0]
    typed = tuple(dict.fromkeys(item.type for item in asked if item.type))
    untyped = len(asked) > sum(1 for item in asked if item.type)
    if untyped and not named and not typed:
        typed = _only_qpu(config)
    for name in (*named, *typed):
        config.qpu(name)
    acquired = (*named, *typed) if untyped or config.acquire_on == "qpu" else typed
    return Wanted(tuple(dict.fromkeys(acquired)), tuple(name for name in named if name not in acquired))


def _only_qpu(config: Config) -> tuple[str, ...]:
    if len(config.qpus) > 1:
        raise RequestError(
            f"--gres={GRES}:1 does not say which QPU. Add --qpu=NAME; known: {', '.join(config.qpus)}."
        )
    return tuple(config.qpus)


def prolog(
    config: Config,
    environ: Mapping[str, str],
    *,
    query: Query | None = None,
    control: Control | None = None,
) -> int:
    """Open the sessions of a job that is about to start (PrologSlurmctld).

    Args:
        config: What the admin wrote.
        environ: The hook's environment.
        query: How Slurm is asked; by default what `config` says.
        control: How Slurm is told; likewise.

    Returns:
        The exit code: 0 lets the job start (or wait); `NOT_STARTED` has Slurm requeue a batch job after two
        minutes, and end an srun or salloc; so has `FAILED` if the job has `--qpu`, and lets any other start.
    """
    start = None
    try:
        job = HookJob.from_environ(environ)
        start = _Start(config, job, query or connect(config.slurm), control or Control(config.slurm))
        with _bounded(config.outage.acquire_timeout + _SLURM_CALLS * config.slurm.timeout, start.failure):
            return start.run()
    except QpuSlurmError as error:
        _log.error("prolog failed", job_id=environ.get("SLURM_JOB_ID"), why=str(error))
        return FAILED if start is None else start.failure()


def epilog(config: Config, environ: Mapping[str, str], *, query: Query | None = None) -> int:
    """Close the sessions of a job that has ended (EpilogSlurmctld).

    Args:
        config: What the admin wrote.
        environ: The hook's environment.
        query: How Slurm is asked; by default what `config` says.

    Returns:
        The exit code, which Slurm only logs: 1 if not even the journal could be written.
    """
    try:
        job = HookJob.from_environ(environ)
        log = _log.bind(job_id=job.job_id, leader=job.leader)
        with _bounded(60 + _SLURM_CALLS * config.slurm.timeout):
            record = _record(job.leader, query or connect(config.slurm))
            if record is not None and (record.state in STARTED or record.user_id != job.user_id):
                # A component ended; or this hook comes late, and the number is a later run's by now.
                log.info("the job goes on, or runs anew", state=record.state)
                return 0
            with reach.broker(config) as broker:
                leases = broker.release(
                    job.leader,
                    "The job ended.",
                    run=record.run if record else "",
                    # Until a job's own epilogs are done, it is COMPLETING: this is its next run.
                    others=record is not None and record.state == "PENDING",
                )
            log.info("released", leases={lease.qpu: lease.state for lease in leases})
            return 0
    except UnavailableError as error:
        _log.warning("released later, by the gateway", job_id=job.job_id, leader=job.leader, why=str(error))
        return 0
    except QpuSlurmError as error:
        _log.error("epilog failed", job_id=environ.get("SLURM_JOB_ID"), why=str(error))
        return FAILED


def _record(job_id: int, query: Query) -> JobRecord | None:
    """Look up a job; a Slurm that does not answer counts as one that does not know it."""
    try:
        return query.job(job_id)
    except SlurmError as error:
        _log.warning("Slurm was asked in vain", job_id=job_id, why=str(error))
        return None


class _Start:
    """The start of one job, or of one component."""

    def __init__(self, config: Config, job: HookJob, query: Query, control: Control) -> None:
        self._config = config
        self._job = job
        self._query = query
        self._control = control
        self._log = _log.bind(
            job_id=job.job_id, leader=job.leader, user_id=job.user_id, restarts=job.restarts
        )
        self._has_qpu = False

    def failure(self) -> int:
        """Return the exit code if this fails now: what has a QPU must not start without it."""
        return NOT_STARTED if self._has_qpu else FAILED

    def run(self) -> int:
        components = {record.job_id: record for record in self._query.components(self._job.leader)}
        record, leader = components.get(self._job.job_id), components.get(self._job.leader)
        if record is None or leader is None:
            raise SlurmError(f"Slurm does not know job {self._job.job_id}.")
        try:
            names = wanted(self._job.qpu_option, record.gres, self._config)
            if names == Wanted():
                return 0
            self._has_qpu = True
            handover = self._acquire(names, record, leader)
            self._hand_over(handover, record)
        except (RequestError, RefusedError) as error:
            return self._refuse(str(error), record, leader)
        except (UnavailableError, ConfigError, JournalError, SlurmError) as error:
            tries = max(_outages(component) for component in components.values())
            return self._postpone(error, record, leader, names, tries)
        self._log.info("the job has its QPUs", sessions=handover.sessions, hold=handover.hold)
        return 0

    def _acquire(self, names: Wanted, record: JobRecord, leader: JobRecord) -> AdminComment:
        request = LeaseRequest(
            job_id=self._job.leader,
            user_id=self._job.user_id,
            qpus=names.acquire,
            bind=names.bind,
            hold=Hold(self._job.hold) if self._job.hold else None,
            seconds_left=_UNLIMITED if record.time_left is None else record.time_left,
            run=leader.run,
            account=leader.account,
            submitted_at=leader.submitted_at,
            cluster=self._job.cluster,
            api_key=self._job.api_key,
        )
        with reach.broker(self._config) as broker:
            leases = broker.acquire(request)
        return AdminComment(
            sessions={lease.qpu: lease.session_id for lease in leases},
            hold={
                lease.qpu: "task" for lease in leases if lease.session_id is None and lease.hold is Hold.TASK
            },
            leases={
                lease.qpu: Granted(id=lease.id, created_at=lease.created_at, tag=lease.tag)
                for lease in leases
            },
        )

    def _hand_over(self, handover: AdminComment, record: JobRecord) -> None:
        self._control.set_admin_comment(record.job_id, handover.into_comment(record.admin_comment))

    def _refuse(self, sentence: str, record: JobRecord, leader: JobRecord) -> int:
        """End the job with a sentence for its user, and leave a record of it.

        A run that is over by now is left alone.
        """
        if self._is_over(record):
            # Its node went DOWN, say: Slurm runs the epilog beside this hook, and may requeue the job.
            self._log.info("the job is not starting any more", why=sentence)
            return 0
        self._log.warning("the job is refused", why=sentence)
        code = 0
        if record.batch:
            self._hand_over(AdminComment(error=sentence), record)
        else:
            self._control.notify(self._job.job_id, f"qpu_slurm: {sentence}")
            code = NOT_STARTED
        refusal = Refusal(
            job_id=self._job.leader,
            user_id=self._job.user_id,
            qpus=_asked_for(self._job.qpu_option, record.gres),
            reason=sentence,
            run=leader.run,
            account=leader.account,
            submitted_at=leader.submitted_at,
        )
        try:
            with reach.broker(self._config) as broker:
                broker.refuse(refusal)
        except QpuSlurmError as error:
            # The user has been told; what is away may be why the job is refused.
            self._log.warning("the refusal is not in the journal", why=str(error))
        return code

    def _postpone(
        self, error: QpuSlurmError, record: JobRecord, leader: JobRecord, names: Wanted, tries: int
    ) -> int:
        """Have the job start later, unless an outage has lasted for too long."""
        outage = self._config.outage
        waits = isinstance(error, MustWaitError)
        if not record.batch:
            return self._refuse(str(error), record, leader)
        if not waits and tries >= outage.tries:
            return self._refuse(f"{error} The job was given up after {tries} new starts.", record, leader)
        if not self._still_starts():
            # Cancelled, or requeued for another component; `scontrol requeue` would revive it.
            self._log.info("the job is not starting any more", why=str(error))
            return 0
        delay = requeue_delay(outage, self._job.leader, 0 if waits else tries)
        tries += not waits
        self._hand_over(AdminComment(waiting=str(error), qpus=names.acquire, tries=tries), record)
        try:
            self._control.requeue(leader, delay)
        except SlurmError as failure:
            if not self._still_starts():
                return 0
            return self._refuse(f"{error} The job could not be requeued: {failure}", record, leader)
        self._log.warning("the job is requeued", why=str(error), delay=delay, tries=tries)
        return 0

    def _is_over(self, started: JobRecord) -> bool:
        """Tell whether the run that this hook starts has ended already, as far as Slurm says."""
        record = _record(self._job.job_id, self._query)
        return record is not None and (record.state not in STARTED or record.run != started.run)

    def _still_starts(self) -> bool:
        record = _record(self._job.job_id, self._query)
        return record is not None and record.state in STARTED


def _asked_for(option: str | None, gres: Sequence[Gres]) -> tuple[str, ...]:
    """Name what a job asked for, for the record: a question mark for none, and for what is no name."""
    try:
        named = parse_qpu_option(option) if option else ()
    except RequestError:
        named = ()
    typed = tuple(item.type for item in gres if item.name == GRES and item.type)
    return tuple(dict.fromkeys((*named, *typed))) or ("?",)


def _outages(record: JobRecord) -> int:
    """Tell how many outages in a row have requeued a job, by what the last one's hook has left."""
    try:
        return AdminComment.from_comment(record.admin_comment).tries
    except SlurmError:
        return 0


def requeue_delay(outage: OutageConfig, job_id: int, tries: int) -> int:
    """Return the seconds until a requeued job may start again.

    The delay doubles at each try, up to `max_delay`. Up to a tenth more, different from job to job, keeps
    those that were requeued at once from coming back at once.
    """
    delay = min(outage.delay << min(tries, 32), outage.max_delay)
    return delay + delay * (job_id % 16) // 160


@contextmanager
def _bounded(seconds: float, code: Callable[[], int] = lambda: FAILED) -> Iterator[None]:
    """Kill this process if it takes too long: the last resort, for what knows no time-out of its own.

    Names are resolved in C, for as long as the resolver likes. Dying is safe at any point; see the broker.
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
