# SPDX-License-Identifier: Apache-2.0
"""Restores the leases of a lost journal from Slurm and from the service.

A job's AdminComment, which only Slurm's operators can write, names the leases that the job was granted, and
the sessions that it began with. A granted lease that the journal lacks is recorded again under its old
number, so the keys of the job's steps stay valid. The session of an ended job is recorded, too, and the next
run of the reaper ends it.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

import structlog

from qpu_slurm.errors import ConfigError, NotFoundError, RequestError, ServiceError
from qpu_slurm.journal.model import Hold
from qpu_slurm.providers.lifetime import session_ttl
from qpu_slurm.system.deadline import Deadline

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from qpu_slurm.config import Config, QpuConfig
    from qpu_slurm.journal.journal import Journal
    from qpu_slurm.journal.model import Lease
    from qpu_slurm.leases.broker import Broker
    from qpu_slurm.leases.comments import Commented
    from qpu_slurm.slurm.admin_comment import Granted
    from qpu_slurm.slurm.job import JobRecord

_ANSWER_SECONDS = 10.0

_RUNS = frozenset({"RUNNING", "SUSPENDED", "STOPPED"})
"""The states of a job whose prolog has ended. While the prolog runs, the comment is that of the last run."""

_STARTS = "CONFIGURING"

_log = structlog.get_logger(__name__)


class _Claim(NamedTuple):
    """The entry of one QPU in a job's AdminComment."""

    job: JobRecord
    qpu: QpuConfig
    hold: Hold
    session_id: str | None
    granted: Granted | None

    @property
    def runs(self) -> bool:
        return self.job.state in _RUNS


class Takeover:
    """Records granted leases that the journal lacks.

    Args:
        config: The configuration.
        broker: Returns the provider of each QPU.
        journal: The broker's journal.
    """

    def __init__(self, config: Config, broker: Broker, journal: Journal) -> None:
        self._config = config
        self._broker = broker
        self._journal = journal

    def run(self, jobs: Iterable[Commented], leases: Iterable[Lease], deadline: Deadline) -> Iterator[Lease]:
        """Compare Slurm's jobs with the journal.

        Args:
            jobs: Slurm's jobs.
            leases: The journal's open leases. The journal is asked only about claims to others.
            deadline: When to leave the rest to the next run.

        Yields:
            The leases that were recorded.

        Raises:
            JournalError: The journal cannot be read or written.
        """
        known = {(lease.job_id, lease.qpu) for lease in leases}
        for claim in self._claims(jobs):
            job = claim.job
            if (job.leader, claim.qpu.name) in known:
                continue
            if not self._journal.is_news(job.leader, claim.qpu.name, job.run, claim.session_id):
                continue
            if deadline.passed:
                return
            try:
                session_id = self._open_session(claim)
            except (ServiceError, ConfigError, RequestError) as error:
                _log.warning("a lease is not taken over yet", job_id=job.leader, why=str(error))
                continue
            if session_id is None and not claim.runs:
                continue
            lease = self._write(claim, session_id)
            if lease is not None:
                _log.warning(
                    "lease taken over",
                    job_id=lease.job_id,
                    qpu=lease.qpu,
                    session_id=session_id,
                    why="Slurm knows of it, and the journal did not.",
                )
                yield lease

    def _claims(self, jobs: Iterable[Commented]) -> Iterator[_Claim]:
        for job, _, comment in jobs:
            if job.state == _STARTS:
                continue
            for name, session_id in comment.sessions.items():
                qpu = self._config.qpus.get(name)
                if qpu is None or not (session_id or job.state in _RUNS):
                    continue
                hold = Hold(comment.holds(name) or "none")
                yield _Claim(job, qpu, hold, session_id, comment.leases.get(name))

    def _open_session(self, claim: _Claim) -> str | None:
        """Return the job's open session, as the service reports it; None if it has ended.

        Of several sessions, the newest counts. Later ones are found by the job's tasks.
        """
        qpu, session_id = claim.qpu, claim.session_id
        if qpu.needs_user_key:
            return session_id if claim.runs else None  # only the job has the key
        provider = self._broker.provider_of(qpu, deadline=Deadline.after(_ANSWER_SECONDS))
        later = None
        if claim.granted is not None and claim.granted.tag and claim.hold is not Hold.NONE:
            later = next(provider.sessions_of_tasks(claim.granted.tag, since=claim.granted.created_at), None)
        for known in dict.fromkeys(filter(None, (later, session_id))):
            try:
                if provider.session(known).accepting_tasks:
                    return known
            except NotFoundError:
                continue
        return None

    def _write(self, claim: _Claim, session_id: str | None) -> Lease | None:
        job, granted = claim.job, claim.granted
        now = datetime.now(UTC)
        ends_at = None if job.time_left is None else now + timedelta(seconds=job.time_left)
        expires_at = now + timedelta(seconds=session_ttl(claim.qpu.max_ttl, job.time_left))
        return self._journal.take_over(
            qpu=claim.qpu.name,
            hold=claim.hold,
            session_id=session_id,
            expires_at=None if session_id is None else expires_at,
            number=granted.id if granted else None,
            created_at=granted.created_at if granted else None,
            job_id=job.leader,
            user_id=job.user_id,
            run=job.run,
            account=job.account,
            submitted_at=job.submitted_at,
            job_ends_at=ends_at,
            tag=granted.tag if granted else "",
        )
