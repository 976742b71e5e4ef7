# SPDX-License-Identifier: Apache-2.0
"""What is known of the QPUs as a job starts that leaves the choice to us, and the choice made of it.

choice     the choice itself, a pure function
asking     how the services are asked
Chooser    what is known: the configuration, the services' answers, the journal
Choosing   the choice for one job, made again without a QPU that turned out not to be available
"""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import msgspec
import structlog

from qpu_slurm.errors import (
    BudgetReservedError,
    BudgetSpentError,
    ConfigError,
    MustWaitError,
    QpuSlurmError,
    RequestError,
    UnavailableError,
)
from qpu_slurm.journal.model import Hold, LeaseState
from qpu_slurm.journal.pace import Pace
from qpu_slurm.leases.access import refuse_denied, who_may
from qpu_slurm.leases.asking import Answer, ask_services
from qpu_slurm.leases.choice import Candidate, choose, could_start
from qpu_slurm.leases.limits import named_jobs, refuse_blocked
from qpu_slurm.providers.base import QpuStatus, Traits
from qpu_slurm.qpu_option import is_wish, wish_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from qpu_slurm.config import Config, QpuConfig
    from qpu_slurm.journal.journal import Journal
    from qpu_slurm.journal.model import LeaseRequest
    from qpu_slurm.leases.budgets import Budgets
    from qpu_slurm.leases.choice import Bar
    from qpu_slurm.providers.base import Connect
    from qpu_slurm.qpu_option import Value, Wish
    from qpu_slurm.system.deadline import Deadline
    from qpu_slurm.system.secret import Secret

_ANSWER_SECONDS: Final = 5.0
_CURRENT: Final = 15.0
"""Seconds for which it is known how the QPUs are."""

_PACE_CURRENT: Final = 60.0
_DEVICE_CURRENT: Final = 3600.0
"""Seconds for which it is known how long things take, and what a QPU's configuration says."""

_OF_DEVICE: Final = {"qubits": "qubits", "max_shots": "max_shots"}
"""The attributes that a QPU's configuration has, and what they are called in `Device`."""

_TURN, _LOOK_AGAIN = 5.0, 0.2
"""Seconds to wait for a QPU that has as many jobs as may, and between two looks."""

_log = structlog.get_logger(__name__)

Failure = UnavailableError | BudgetSpentError
"""Why a QPU that was chosen could not be had, though another one may be."""

Said = QpuStatus | QpuSlurmError | None
"""See `Answer.says`."""


class Chooser:
    """Knows of the cluster's QPUs what a choice takes. Threads may share it.

    Args:
        config: What the admin wrote.
        journal: Which QPUs are closed, who has them, and how long things take.
        connect: How a QPU's provider is had.
        budgets: What budgets say of sessions.
    """

    def __init__(self, config: Config, journal: Journal, connect: Connect, budgets: Budgets) -> None:
        self._config = config
        self._budgets = budgets
        self._journal = journal
        self._connect = connect
        self._lock = threading.Lock()
        self._seen: dict[str, Answer] = {}
        self._devices: dict[str, tuple[float, dict[str, Value]]] = {}
        self._paces: tuple[float, dict[str, Pace]] = (float("-inf"), {})

    def candidates(
        self,
        request: LeaseRequest,
        wishes: Sequence[Wish],
        *,
        deadline: Deadline,
        without: Mapping[str, Failure],
    ) -> list[Candidate]:
        """Say of each QPU that wishes may mean what it is like, and whether the job can have it now.

        Args:
            request: Who asks.
            wishes: For what: services of other QPUs are not asked.
            deadline: When to give up.
            without: QPUs that turned out not to be available, and why.

        Raises:
            JournalError: The journal cannot be read.
        """
        closed = self._journal.closings.all()
        held = {
            lease.qpu
            for lease in self._journal.leases(job_id=request.job_id)
            if lease.is_of(request.run) and lease.state is not LeaseState.RELEASING
            if lease.hold is not Hold.NONE or not request.qpus
        }
        meant = None if any(not wish.names for wish in wishes) else {n for wish in wishes for n in wish.names}
        qpus = {name: qpu for name, qpu in self._config.qpus.items() if meant is None or name in meant}
        asked_for = {term.attribute for wish in wishes for term in wish.terms}
        answers, paces = self._answers(qpus.values(), request.api_key, deadline), self._pace()
        found = []
        for name, qpu in qpus.items():
            others = self._journal.jobs_on(name) - {request.job_id}
            answer = answers[name]
            barred = bar_of(qpu, answer)
            if name in without:
                barred = _bar_of(without[name])
            elif name in held:
                barred = None
            elif (denied := self._denied(qpu, request, deadline)) is not None:
                barred = denied
            elif barred is None and (spent := self._spent(name, request)) is not None:
                barred = spent
            elif name in closed:
                barred = "wait", f"is closed: {closed[name].reason.rstrip('.')}"
            elif barred is None and request.qpus and qpu.limit is not None and len(others) >= qpu.limit:
                barred = "wait", f"is in use by {named_jobs(others)}"
            try:
                attributes = self._attributes(qpu, answer, asked_for, request.api_key, deadline)
            except QpuSlurmError as error:
                _log.warning("what a QPU is like is not known", qpu=name, why=str(error))
                attributes = attributes_of(qpu, answer)
                if barred is None or barred[0] != "never":
                    barred = "away", barred[1] if barred else f"does not say what it is like: {error}"
            bar, why = barred or ("", "")
            found.append(
                Candidate(
                    name=name,
                    attributes=attributes,
                    wait=expected_wait(answer, len(others), paces.get(name, Pace())),
                    bar=bar,
                    why=why,
                    held=name in held,
                )
            )
        return found

    def _answers(
        self, qpus: Iterable[QpuConfig], api_key: Secret | None, deadline: Deadline
    ) -> dict[str, Said]:
        """Ask the services how the QPUs are, unless that is known; one job asks for all."""
        deadline = deadline.sooner(_ANSWER_SECONDS)
        qpus = list(qpus)
        own = [qpu for qpu in qpus if qpu.needs_user_key]
        found = ask_services(own, self._connect, deadline=deadline, api_key=api_key)
        with self._lock:
            now = datetime.now(UTC)
            asked = [
                qpu
                for qpu in qpus
                if not qpu.needs_user_key and not _is_current(self._seen.get(qpu.name), now)
            ]
            answers = ask_services(asked, self._connect, deadline=deadline)
            self._seen |= answers
            for name, (asked_at, says) in answers.items():
                if isinstance(says, QpuStatus):
                    # The session that follows need not ask.
                    self._journal.seen_qpus.note(
                        name, asked_at=asked_at, online=says.online, reason=says.reason
                    )
            return {name: answer.says for name, answer in (self._seen | found).items()}

    def _attributes(
        self,
        qpu: QpuConfig,
        answer: Said,
        asked_for: Collection[str],
        api_key: Secret | None,
        deadline: Deadline,
    ) -> dict[str, Value]:
        """Say what a QPU is like; its service is asked for its configuration only if a wish takes that.

        Raises:
            QpuSlurmError: The service does not tell.
        """
        found = attributes_of(qpu, answer)
        missing = _OF_DEVICE.keys() & set(asked_for) - found.keys()
        if not missing or not isinstance(answer, QpuStatus):
            return found
        with self._lock:
            kept, traits = self._devices.get(qpu.name, (float("-inf"), {}))
            if time.monotonic() - kept > _DEVICE_CURRENT:
                provider = self._connect(qpu.access(api_key), deadline=deadline.sooner(_ANSWER_SECONDS))
                device = provider.device()
                traits = {
                    name: value
                    for name, member in _OF_DEVICE.items()
                    if (value := getattr(device, member)) is not None
                }
                self._devices[qpu.name] = (time.monotonic(), traits)
        return traits | found

    def _denied(self, qpu: QpuConfig, request: LeaseRequest, deadline: Deadline) -> tuple[Bar, str] | None:
        """Say why the admin's rules keep a QPU from a job; None if they do not."""
        try:
            refuse_denied([qpu], request.user_id, request.places, deadline)
        except RequestError:
            return "never", f"is not for this job: it is {who_may(qpu.access_rules)}"
        except UnavailableError as error:
            return "away", f"may not be for this job: {error}"
        return None

    def _spent(self, name: str, request: LeaseRequest) -> tuple[Bar, str] | None:
        """Say why no budget lets a job open a session on a QPU; None if it may."""
        if not request.qpus:
            return None  # It only wants to know what the QPU is like.
        try:
            self._budgets.check(name, request)
        except (BudgetSpentError, BudgetReservedError) as error:
            return _bar_of(error)
        return None

    def _pace(self) -> dict[str, Pace]:
        """Read how long things take, once a minute."""
        with self._lock:
            read_at, paces = self._paces
            if time.monotonic() - read_at > _PACE_CURRENT:
                paces = self._journal.paces.by_qpu()
                self._paces = (time.monotonic(), paces)
            return paces


class Choosing:
    """The choice for one job.

    Args:
        chooser: What is known of the QPUs.
        journal: Who is blocked.
        request: What the job asks for, wishes among it.
    """

    def __init__(self, chooser: Chooser, journal: Journal, request: LeaseRequest) -> None:
        self._chooser = chooser
        self._journal = journal
        self._request = request
        self._without: dict[str, Failure] = {}
        self._spare = False

    def attempt(self, deadline: Deadline) -> Deadline:
        """Return how long to try what was chosen: while there is another choice, not all of the time."""
        return deadline.sooner(deadline.left / 2) if self._spare else deadline

    def next(self, *, deadline: Deadline) -> LeaseRequest:
        """Return the request with a QPU's name in the place of each wish.

        Raises:
            RequestError: A wish can never be met, or an admin has blocked the user.
            UnavailableError: None of the QPUs that meet a wish is available now.
            JournalError: The journal cannot be read.
        """
        request = self._request
        refuse_blocked(self._journal, request.user_id)
        turn = deadline.sooner(_TURN)
        while True:
            try:
                return self._choose(deadline)
            except MustWaitError:
                # A QPU is free for the next job a moment before the last one's epilog is done.
                if turn.passed or self._without:
                    raise
            time.sleep(_LOOK_AGAIN)

    def failed(self, error: Failure, chosen: LeaseRequest, *, deadline: Deadline) -> None:
        """Note that what was chosen could not be had: `next` makes another choice.

        Raises:
            ServiceError: The error, if another choice does not help, or there is no time for it.
        """
        to_blame = {error.qpu} & chosen.chosen.keys() if error.qpu else chosen.chosen.keys()
        if deadline.passed or not to_blame:
            raise error
        _log.info("another QPU is chosen", job_id=chosen.job_id, without=sorted(to_blame), why=str(error))
        self._without |= dict.fromkeys(to_blame, error)

    def _choose(self, deadline: Deadline) -> LeaseRequest:
        request = self._request
        wanted = (*request.qpus, *request.bind)
        wishes = {text: wish for text in wanted if (wish := wish_of(text)) is not None}
        names = [text for text in wanted if text not in wishes]
        asked = [wishes[text] for text in wanted if text in wishes]
        candidates = self._chooser.candidates(request, asked, deadline=deadline, without=self._without)
        chosen = choose(asked, candidates, taken=names)
        others = [candidate for candidate in candidates if candidate.name not in chosen]
        self._spare = could_start(asked, others, taken=names) is not None
        met = iter(chosen)
        named = [next(met) if text in wishes else text for text in wanted]
        _log.info(
            "QPUs are chosen", job_id=request.job_id, chosen={name: one.why for name, one in chosen.items()}
        )
        return msgspec.structs.replace(
            request,
            qpus=tuple(named[: len(request.qpus)]),
            bind=tuple(named[len(request.qpus) :]),
            chosen=chosen,
        )


def _is_current(answer: Answer | None, now: datetime) -> bool:
    """Return whether an answer tells how a QPU is now; a clock that was set back makes it old."""
    return answer is not None and 0 <= (now - answer.asked_at).total_seconds() <= _CURRENT


def has_wishes(request: LeaseRequest) -> bool:
    """Return whether a request leaves a choice to us."""
    return any(map(is_wish, (*request.qpus, *request.bind)))


def attributes_of(qpu: QpuConfig, answer: Said) -> dict[str, Value]:
    """Say what a QPU is like: by its service, and where that says nothing, by the admin."""
    traits = answer.traits if isinstance(answer, QpuStatus) else Traits()
    found: dict[str, Value] = {"name": qpu.name, "type": qpu.type}
    for field in Traits.__struct_fields__:
        said = getattr(traits, field)
        value = getattr(qpu.attributes, field) if said is None else said
        if value is not None:
            found[field] = value
    return found


def bar_of(qpu: QpuConfig, answer: Said) -> tuple[Bar, str] | None:
    """Say why a QPU cannot be had by what its service has said; None if it can."""
    if answer is None:
        return "never", f"is none of the QPUs of its instance ({qpu.backend})"
    if isinstance(answer, QpuSlurmError):
        return _bar_of(answer)
    return None if answer.online else ("wait", f"is not available: {answer.reason}")


def _bar_of(error: QpuSlurmError) -> tuple[Bar, str]:
    """Say why a QPU cannot be had that could not be asked for, or opened."""
    if isinstance(error, BudgetSpentError):
        return "never", f"is beyond a budget: {error}"
    if isinstance(error, BudgetReservedError):
        return "wait", f"is beyond a budget for now: {error}"
    if isinstance(error, MustWaitError):
        return "wait", f"could not be had: {error}"
    if isinstance(error, UnavailableError | ConfigError):
        return "away", f"does not answer: {error}"
    if isinstance(error, RequestError):
        return "never", "needs your own API key, and the job has none"
    return "never", f"refuses: {error}"


def expected_wait(answer: Said, jobs: int, pace: Pace) -> float:
    """Return the seconds until a task of a job that starts now is expected to run.

    Args:
        answer: How the QPU is: the tasks that wait at the service come first.
        jobs: The other jobs that have the QPU: each has it locked as long as usual.
        pace: How long things take on it.
    """
    waiting = answer.queue_length if isinstance(answer, QpuStatus) else 0
    return waiting * pace.task + jobs * pace.session
