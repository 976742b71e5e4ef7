# SPDX-License-Identifier: Apache-2.0
"""Which QPUs are available. Jobs wait for the others in Slurm's queue, not on nodes.

After each run of the reaper, and when an admin closes or opens a QPU, the services are asked. Slurm follows:

- If QPUs are licenses, those of a QPU that is not available are reserved; see `slurm/licenses.py`.
- A job that was requeued because its QPU was not available starts as soon as the QPU is back.

Several processes may do this at the same time, with the same result.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING

import msgspec
import structlog

from qpu_slurm import providers
from qpu_slurm.errors import QpuSlurmError, RequestError, SlurmError, UnavailableError
from qpu_slurm.leases.access import outlook, places_of, refusal
from qpu_slurm.leases.asking import ask_services
from qpu_slurm.leases.choice import Candidate, could_start
from qpu_slurm.leases.choosing import attributes_of
from qpu_slurm.providers.base import QpuStatus
from qpu_slurm.qpu_option import Wish, wish_of
from qpu_slurm.slurm.admin_comment import AdminComment
from qpu_slurm.system.deadline import Deadline
from qpu_slurm.system.directory import DIRECTORY, Person

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from qpu_slurm.config import Config, QpuConfig
    from qpu_slurm.journal.closed_qpus import Closing
    from qpu_slurm.journal.journal import Journal
    from qpu_slurm.providers.base import Connect
    from qpu_slurm.slurm.control import Control
    from qpu_slurm.slurm.job import JobRecord
    from qpu_slurm.slurm.licenses import Licenses

_ANSWER_SECONDS = 5.0

_DIRECTORY_SECONDS = 2.0
"""Seconds that the system's directory of users may take for all QPUs. The client waits for five."""

_CLOSED_SECONDS = 365 * 86_400
_AWAY_SECONDS = 15 * 60
"""Seconds for which a license is reserved, unless that is renewed. After that, jobs try."""

_TOO_EARLY = 4
"""Seconds. If a job starts again sooner, its node takes the new run for the last one."""

_log = structlog.get_logger(__name__)


class QpuState(StrEnum):
    """Whether a QPU is available. AWAY: the service takes no tasks for it. CLOSED: an admin has closed it.

    UNKNOWN: only a user's own key can ask, or the service refuses to answer.
    """

    AVAILABLE = "available"
    CLOSED = "closed"
    AWAY = "away"
    UNKNOWN = "unknown"


class Cause(StrEnum):
    """Why a QPU is not available, in a word: `QpuReport.reason` has the sentence.

    CLOSED: by an admin. OFFLINE: its service says so. UNREACHABLE: the service does not answer. REFUSED: the
    service, or the configuration, does not let the gateway ask. MISSING: the service has no such QPU.
    USER_KEY: only a user's own key can tell. NOT_CHECKED: the service was not asked yet.
    """

    CLOSED = "closed"
    OFFLINE = "offline"
    UNREACHABLE = "unreachable"
    REFUSED = "refused"
    MISSING = "missing"
    USER_KEY = "user_key"
    NOT_CHECKED = "not_checked"


class QpuReport(msgspec.Struct, frozen=True, kw_only=True):
    """A QPU's state.

    Attributes:
        qpu: Its name.
        state: See `QpuState`.
        reason: Why it is not available.
        cause: The same in a word; None if it is available.
        closed_by: The id of the admin who closed it.
        closed_at: When.
        jobs: The jobs that have it.
        limit: How many may; None is any number.
        waiting: The jobs that wait for it in the queue; None if Slurm does not say.
        tasks: How many tasks of all users wait for it at the service; None if that is not known.
        access: Whether the user who asks may use it: `yes`, `no`, or what the user's jobs need for it; None
            if that was not asked.
        limits: What its kind of service does not do, a few words each.
    """

    qpu: str
    state: QpuState
    reason: str = ""
    cause: Cause | None = None
    closed_by: int | None = None
    closed_at: datetime | None = None
    jobs: tuple[int, ...] = ()
    limit: int | None = None
    waiting: tuple[int, ...] | None = None
    tasks: int | None = None
    access: str | None = None
    limits: tuple[str, ...] = ()

    @property
    def room(self) -> float:
        """How many more jobs may have it, if it is available."""
        return float("inf") if self.limit is None else max(0, self.limit - len(self.jobs))


def as_now(reports: Iterable[QpuReport], journal: Journal) -> tuple[QpuReport, ...]:
    """Bring the reports of the last check up to date with the journal, without asking the services.

    Args:
        reports: The reports.
        journal: Has the QPUs that were closed and opened since, and the jobs that have them.

    Raises:
        JournalError: It cannot be read.
    """
    closed = journal.closings.all()

    def now(report: QpuReport) -> QpuReport:
        if report.qpu in closed:
            state = _closed(closed[report.qpu])
        elif report.state is QpuState.CLOSED:
            why = "It was opened a moment ago."
            state = QpuReport(qpu=report.qpu, state=QpuState.UNKNOWN, reason=why, cause=Cause.NOT_CHECKED)
        else:
            state = report
        return msgspec.structs.replace(
            state,
            limit=report.limit,
            jobs=tuple(sorted(journal.jobs_on(report.qpu))),
            waiting=report.waiting,
            limits=report.limits,
        )

    return tuple(map(now, reports))


def with_access(reports: Iterable[QpuReport], config: Config, user_id: int) -> tuple[QpuReport, ...]:
    """Add to reports what a user may use."""
    person = Person(user_id, DIRECTORY, Deadline.after(_DIRECTORY_SECONDS))

    def access(report: QpuReport) -> str | None:
        qpu = config.qpus.get(report.qpu)
        try:
            return None if qpu is None else outlook(qpu.access_rules, person)
        except UnavailableError as error:
            _log.warning("what a user may use is not known", user_id=user_id, why=str(error))
            return None

    return tuple(msgspec.structs.replace(report, access=access(report)) for report in reports)


def not_checked(config: Config) -> tuple[QpuReport, ...]:
    """Return the reports before the first check, when only the QPUs' names are known."""
    return tuple(
        msgspec.structs.replace(
            _unknown(qpu, "the service was not asked yet", Cause.NOT_CHECKED), limit=qpu.limit
        )
        for qpu in config.qpus.values()
    )


class Availability:
    """Keeps Slurm's queue in step with the QPUs.

    Args:
        config: What the admin wrote.
        journal: The leases, and what is closed.
        control: Starts jobs.
        licenses: Reserves licenses.
        connect: Returns a QPU's provider.

    Attributes:
        reports: The result of the last check, even if Slurm could not be changed; None before the first.
    """

    def __init__(
        self,
        config: Config,
        journal: Journal,
        control: Control,
        licenses: Licenses,
        connect: Connect = providers.connect,
    ) -> None:
        self._config = config
        self._journal = journal
        self._control = control
        self._licenses = licenses
        self._connect = connect
        self.reports: tuple[QpuReport, ...] | None = None
        self._answers: dict[str, tuple[datetime, QpuStatus]] = {}

    def look(self, jobs: Collection[JobRecord] | None) -> tuple[QpuReport, ...]:
        """Query the state of all QPUs, and change nothing.

        Args:
            jobs: What Slurm has in its queue; None if it does not say.

        Raises:
            JournalError: The journal cannot be read.
        """
        closed = self._journal.closings.all()
        waiting = _waiting(jobs or (), self._config)
        found = self._ask([qpu for name, qpu in self._config.qpus.items() if name not in closed])
        return tuple(
            msgspec.structs.replace(
                _closed(closed[name]) if name in closed else found[name],
                limit=qpu.limit,
                jobs=tuple(sorted(self._journal.jobs_on(name))),
                waiting=None if jobs is None else tuple(sorted(waiting.get(name, ()))),
                limits=qpu.limits,
            )
            for name, qpu in self._config.qpus.items()
        )

    def keep(self, jobs: Collection[JobRecord] | None, *, opened: str = "") -> tuple[QpuReport, ...]:
        """Query the state of all QPUs, and hold jobs back in Slurm's queue, or start them, accordingly.

        Args:
            jobs: What Slurm has in its queue; None if it does not say.
            opened: A QPU that the admin has just opened. Jobs that wait for it start even if its state is not
                known.

        Raises:
            JournalError: The journal cannot be read.
            SlurmError: Slurm could not be changed.
        """
        self._answers.clear()
        self.reports = reports = self.look(jobs)
        # Jobs that start need not ask, then.
        for name, (asked_at, status) in self._answers.items():
            self._journal.seen_qpus.note(name, asked_at=asked_at, online=status.online, reason=status.reason)
        self._hold_back(reports)
        self._start(reports, jobs or (), opened)
        return reports

    def _ask(self, qpus: Iterable[QpuConfig]) -> dict[str, QpuReport]:
        """Query the services for the state of QPUs, with one request for all QPUs of an account."""
        reports: dict[str, QpuReport] = {}
        asked = {}
        for qpu in qpus:
            if qpu.needs_user_key:
                reports[qpu.name] = _unknown(qpu, "only a user's own key can tell", Cause.USER_KEY)
            else:
                asked[qpu.name] = qpu
        deadline = Deadline.after(_ANSWER_SECONDS)
        for name, answer in ask_services(asked.values(), self._connect, deadline=deadline).items():
            reports[name] = _report(asked[name], answer.says)
            if isinstance(answer.says, QpuStatus):
                self._answers[name] = (answer.asked_at, answer.says)
        return reports

    def _hold_back(self, reports: Iterable[QpuReport]) -> None:
        """Reserve the licenses of QPUs that are not available, and free those of all others."""
        totals = self._licenses.totals()
        withheld = self._licenses.withheld() if totals else {}
        for report in reports:
            total = totals.get(report.qpu, 0)
            log = _log.bind(qpu=report.qpu, why=report.reason)
            if total and report.state in {QpuState.CLOSED, QpuState.AWAY}:
                seconds = _CLOSED_SECONDS if report.state is QpuState.CLOSED else _AWAY_SECONDS
                if self._licenses.withhold(report.qpu, total, report.reason, seconds=seconds):
                    log.warning("jobs are held back", state=report.state)
            elif report.qpu in withheld and self._licenses.give_back(report.qpu):
                log.info("jobs are not held back any more", state=report.state)

    def _start(self, reports: Iterable[QpuReport], jobs: Iterable[JobRecord], opened: str) -> None:
        """Start requeued jobs whose QPUs are all available again, as many as there is room for.

        What was postponed as something failed waits for `outage.delay` at least: that a QPU is up does not
        say that all else works, and tries are counted.
        """
        room = {
            report.qpu: report.room
            for report in reports
            if report.state is QpuState.AVAILABLE
            or (report.qpu == opened and report.state is QpuState.UNKNOWN)
        }
        now = datetime.now(UTC)
        started: set[int] = set()
        jobs = sorted(jobs, key=lambda job: job.leader)
        leaders = {job.job_id: job for job in jobs}
        for job in jobs:
            left = _left_by_requeue(job)
            if left is None or not left.qpus or job.leader in started or job.reason != "BeginTime":
                continue
            names = self._would_get(left.qpus, room, job)
            if names is None or not all(room.get(name, 0) >= 1 for name in names):
                continue
            rest = self._config.outage.delay if left.tries else _TOO_EARLY
            if job.submitted_at is not None and now - job.submitted_at < timedelta(seconds=rest):
                continue
            try:
                self._control.start_now(leaders.get(job.leader, job))
            except SlurmError as error:
                # Cancelled or started meanwhile; or Slurm is away, and the next look does it.
                _log.warning("a job could not be started", job_id=job.leader, why=str(error))
                continue
            started.add(job.leader)
            _log.info("a job that waited is started", job_id=job.leader, qpus=left.qpus)
            for name in names:
                room[name] -= 1

    def _would_get(
        self, texts: Iterable[str], room: Mapping[str, float], job: JobRecord
    ) -> tuple[str, ...] | None:
        """Name the QPUs that a job would get if it started now; None if there is none to choose.

        Args:
            texts: What it waits for: names and wishes.
            room: How many jobs more may have each QPU that is available.
            job: Slurm's record of the job.
        """
        items = [wish_of(text) or text for text in texts]
        names = tuple(item for item in items if isinstance(item, str))
        wishes = [item for item in items if isinstance(item, Wish)]
        if not wishes:
            return names
        candidates = [
            Candidate(
                name=name,
                attributes=attributes_of(qpu, self._answers[name][1] if name in self._answers else None),
                bar="" if room.get(name, 0) >= 1 else "wait",
            )
            for name, qpu in self._config.qpus.items()
            if _may_use(qpu, job)
        ]
        got = could_start(wishes, candidates, taken=names)
        return None if got is None else (*names, *got)


def _may_use(qpu: QpuConfig, job: JobRecord) -> bool:
    """Return whether the admin's rules give a job a QPU, as far as that is known."""
    try:
        return refusal(qpu.name, qpu.access_rules, Person(job.user_id, DIRECTORY), places_of([job])) is None
    except UnavailableError as error:
        _log.warning("what a user may use is not known", user_id=job.user_id, why=str(error))
        return False


def _report(qpu: QpuConfig, status: QpuStatus | QpuSlurmError | None) -> QpuReport:
    if status is None:
        return _unknown(qpu, f"{qpu.backend} is none of the QPUs of its instance", Cause.MISSING)
    if isinstance(status, UnavailableError):
        return _away(qpu, str(status), Cause.UNREACHABLE)
    if isinstance(status, QpuSlurmError):
        return _unknown(qpu, str(status), Cause.REFUSED)
    if not status.online:
        return _away(qpu, status.reason, Cause.OFFLINE)
    return QpuReport(qpu=qpu.name, state=QpuState.AVAILABLE, tasks=status.queue_length)


def _away(qpu: QpuConfig, why: str, cause: Cause) -> QpuReport:
    return QpuReport(qpu=qpu.name, state=QpuState.AWAY, reason=why, cause=cause)


def _unknown(qpu: QpuConfig, why: str, cause: Cause) -> QpuReport:
    return QpuReport(qpu=qpu.name, state=QpuState.UNKNOWN, reason=why, cause=cause)


def _closed(closing: Closing) -> QpuReport:
    return QpuReport(
        qpu=closing.qpu,
        state=QpuState.CLOSED,
        reason=closing.reason,
        cause=Cause.CLOSED,
        closed_by=closing.user_id,
        closed_at=closing.closed_at,
    )


def _waiting(jobs: Iterable[JobRecord], config: Config) -> dict[str, set[int]]:
    """Tell which jobs wait for which license or QPU; one that leaves a choice waits for each of them."""
    found: dict[str, set[int]] = {}
    for job in jobs:
        if job.state == "PENDING":
            left = _left_by_requeue(job)
            names = [*job.licenses]
            for text in left.qpus if left else ():
                wish = wish_of(text)
                names += [text] if wish is None else wish.names or config.qpus
            for name in names:
                found.setdefault(name, set()).add(job.leader)
    return found


def _left_by_requeue(job: JobRecord) -> AdminComment | None:
    """Return what was written down as a job was put back into the queue, if it was."""
    if job.state != "PENDING" or not job.admin_comment:
        return None
    try:
        handover = AdminComment.from_comment(job.admin_comment)
        for text in handover.qpus:
            wish_of(text)
    except (SlurmError, RequestError):
        return None
    return handover if handover.waiting else None
