# SPDX-License-Identifier: Apache-2.0
"""The start of a job: which QPUs it gets, or why it has to wait or to end.

Whatever goes wrong drains no node:

- a mistake of the user's ends a batch job with one sentence in its output (the SPANK plugin prints it as
  the job's first task starts), and an srun or salloc with the sentence on its terminal;
- an outage requeues a batch job with a growing delay, until it is given up on; it ends an srun or salloc;
- so does a QPU that is closed, away, or in use by as many jobs as may, but that is waited for, however long.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import structlog

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
from qpu_slurm.leases.access import places_of
from qpu_slurm.leases.comments import of_leases
from qpu_slurm.qpu_option import Wish, is_wish, parse, text_of
from qpu_slurm.slurm.admin_comment import AdminComment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from contextlib import AbstractContextManager

    from qpu_slurm.config import Config, OutageConfig
    from qpu_slurm.journal.model import Lease
    from qpu_slurm.lifecycle.leasing import Leasing
    from qpu_slurm.slurm.control import Control
    from qpu_slurm.slurm.job import Gres, HookJob, JobRecord
    from qpu_slurm.slurm.query import Query

GRES = "qpu"
"""The generic resource's name, in slurm.conf's GresTypes and in users' `--gres=qpu:1`."""

STARTED = frozenset({"RUNNING", "CONFIGURING", "SUSPENDED"})
"""The states of a job that has its nodes and was not ended."""

FAILED = 1
"""The exit code of a hook that could not do its work: whether the job has a QPU is not known, perhaps."""

NOT_STARTED = 10
"""The exit code of a prolog whose job has a QPU and must not start; see plugin/client/hook.c. Python's own
failures never have it."""

_UNLIMITED = 10 * 366 * 86_400

_log = structlog.get_logger(__name__)


class Wanted(NamedTuple):
    """The QPUs that a job means: those to open a session on, and those that it is only bound to.

    Each is a name, or a wish as the user wrote it.
    """

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
    items = parse(option) if option else ()
    named = tuple(map(text_of, items))
    asked = [item for item in gres if item.name == GRES and item.count > 0]
    typed = tuple(dict.fromkeys(item.type for item in asked if item.type))
    untyped = len(asked) > sum(1 for item in asked if item.type)
    if untyped and not named and not typed:
        typed = _only_qpu(config)
    for item in (*items, *typed):
        for name in item.names if isinstance(item, Wish) else (item,):
            if config.qpus:  # otherwise, only the gateway knows them
                config.qpu(name)
    acquired = (*named, *typed) if untyped or config.acquire_on == "qpu" else typed
    # A wish may be there twice: it is met by two QPUs then.
    acquired = tuple(
        name for place, name in enumerate(acquired) if is_wish(name) or name not in acquired[:place]
    )
    return Wanted(acquired, tuple(name for name in named if name not in acquired))


def _only_qpu(config: Config) -> tuple[str, ...]:
    config.require_qpus()
    if len(config.qpus) > 1:
        raise RequestError(
            f"--gres={GRES}:1 does not say which QPU. Add --qpu=NAME; known: {', '.join(config.qpus)}."
        )
    return tuple(config.qpus)


class Start:
    """The start of one job, or of one component: `ask`, then either `grant` or `fail`.

    Args:
        config: What the admin wrote.
        job: What Slurm tells its hooks of the job.
        query: How Slurm is asked.
        control: How Slurm is told.
        leasing: How the broker is reached.

    Attributes:
        handover: What the job's steps, and Slurm's record, are told of it; None as long as that is not known,
            and where the job is not starting any more.
    """

    def __init__(
        self,
        config: Config,
        job: HookJob,
        query: Query,
        control: Control,
        leasing: Callable[[], AbstractContextManager[Leasing]],
    ) -> None:
        self._config = config
        self._job = job
        self._query = query
        self._control = control
        self._leasing = leasing
        self._log = _log.bind(
            job_id=job.job_id, leader=job.leader, user_id=job.user_id, restarts=job.restarts
        )
        self._has_qpu = False
        self._names = Wanted()
        self._tries = 0
        self._record: JobRecord
        self._leader: JobRecord
        self.handover: AdminComment | None = None

    def failure(self) -> int:
        """Return the exit code if this fails now: what has a QPU must not start without it."""
        return NOT_STARTED if self._has_qpu else FAILED

    def run(self) -> int:
        """Do all of it; return the hook's exit code.

        Raises:
            SlurmError: Slurm does not answer, or does not know the job.
        """
        try:
            request = self.ask(self._query.components(self._job.leader))
            if request is None:
                return 0
            with self._leasing() as broker:
                leases = broker.acquire(request)
            self.write(self.grant(leases))
        except QpuSlurmError as error:
            return self.fail(error)
        return 0

    def ask(self, components: Iterable[JobRecord]) -> LeaseRequest | None:
        """Say what to ask the broker for; None for a job that wants no QPU.

        Args:
            components: Slurm's record of the job; of a heterogeneous job, of all components.

        Raises:
            SlurmError: Slurm does not know the job.
            RequestError: It names a QPU that there is not, or asks for one without saying which.
        """
        found = {record.job_id: record for record in components}
        record, leader = found.get(self._job.job_id), found.get(self._job.leader)
        if record is None or leader is None:
            raise SlurmError(f"Slurm does not know job {self._job.job_id}.")
        self._record, self._leader = record, leader
        self._tries = max(map(_outages, found.values()))
        names = wanted(self._job.qpu_option, record.gres, self._config)
        if names == Wanted():
            self.handover = AdminComment()
            return None
        self._names, self._has_qpu = names, True
        return LeaseRequest(
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
            places=places_of(found.values()),
            api_key=self._job.api_key,
        )

    def grant(self, leases: Sequence[Lease]) -> AdminComment:
        """Return what to write into the job's AdminComment (`write`), which has got these leases."""
        handover = of_leases(leases)
        self.handover = handover
        chosen = {name: choice.asked for name, choice in handover.chosen.items()}
        self._log.info("the job has its QPUs", sessions=handover.sessions, hold=handover.hold, chosen=chosen)
        return handover

    def write(self, handover: AdminComment) -> None:
        """Write into the job's AdminComment.

        Raises:
            SlurmError: Slurm refuses it, or does not answer.
        """
        text = handover.into_comment(self._record.admin_comment)
        self._control.set_admin_comment(self._record.job_id, text)

    def fail(self, error: QpuSlurmError) -> int:
        """Have a job that cannot have what it wants end, or wait; return the hook's exit code.

        Raises:
            QpuSlurmError: The error, where nothing is known of the job; or another.
        """
        if not hasattr(self, "_record"):
            raise error
        if isinstance(error, RequestError | RefusedError):
            return self._refuse(str(error))
        if isinstance(error, UnavailableError | ConfigError | JournalError | SlurmError):
            return self._postpone(error)
        raise error

    def _refuse(self, sentence: str) -> int:
        """End the job with a sentence for its user, and leave a record of it.

        A run that is over by now is left alone.
        """
        self.handover = None
        record, leader = self._record, self._leader
        if self._is_over(record):
            # Its node went DOWN, say: Slurm runs the epilog beside this hook, and may requeue the job.
            self._log.info("the job is not starting any more", why=sentence)
            return 0
        self._log.warning("the job is refused", why=sentence)
        code = 0
        if record.batch:
            self.handover = AdminComment(error=sentence)
            self.write(self.handover)
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
            with self._leasing() as broker:
                broker.refuse(refusal)
        except QpuSlurmError as error:
            # The user has been told; what is away may be why the job is refused.
            self._log.warning("the refusal is not in the journal", why=str(error))
        return code

    def _postpone(self, error: QpuSlurmError) -> int:
        """Have the job start later, unless an outage has lasted for too long."""
        self.handover = None
        outage, tries = self._config.outage, self._tries
        waits = isinstance(error, MustWaitError)
        if not self._record.batch:
            return self._refuse(str(error))
        if not waits and tries >= outage.tries:
            return self._refuse(f"{error} The job was given up after {tries} new starts.")
        if not self._still_starts():
            # Cancelled, or requeued for another component; `scontrol requeue` would revive it.
            self._log.info("the job is not starting any more", why=str(error))
            return 0
        delay = requeue_delay(outage, self._job.leader, 0 if waits else tries)
        tries += not waits
        self.write(AdminComment(waiting=str(error), qpus=self._names.acquire, tries=tries))
        try:
            self._control.requeue(self._leader, delay)
        except SlurmError as failure:
            if not self._still_starts():
                return 0
            return self._refuse(f"{error} The job could not be requeued: {failure}")
        self._log.warning("the job is requeued", why=str(error), delay=delay, tries=tries)
        return 0

    def _is_over(self, started: JobRecord) -> bool:
        """Tell whether the run that this hook starts has ended already, as far as Slurm says."""
        record = look_up(self._job.job_id, self._query)
        return record is not None and (record.state not in STARTED or record.run != started.run)

    def _still_starts(self) -> bool:
        record = look_up(self._job.job_id, self._query)
        return record is not None and record.state in STARTED


def look_up(job_id: int, query: Query) -> JobRecord | None:
    """Look up a job; a Slurm that does not answer counts as one that does not know it."""
    try:
        return query.job(job_id)
    except SlurmError as error:
        _log.warning("Slurm was asked in vain", job_id=job_id, why=str(error))
        return None


def _asked_for(option: str | None, gres: Sequence[Gres]) -> tuple[str, ...]:
    """Name what a job asked for, for the record: a question mark for none, and for what is no name."""
    try:
        named = tuple(map(text_of, parse(option))) if option else ()
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
