# SPDX-License-Identifier: Apache-2.0
"""How long jobs wait for a QPU: chosen when the job starts, beside named when it is submitted.

This is a simulation; nothing runs. Over a day, jobs arrive that want one of four QPUs, and programs of other
clusters use the same QPUs. A QPU runs one session at a time, first come, first served, and stops while it is
away. A job waits in Slurm's queue for its nodes first, as long under each policy. What is compared is the
time from there until its QPU works for it.

- `name`: the user asks as the job is submitted which QPU is online and has the fewest tasks waiting, as the
  `least_busy` of qrmi and Qiskit do, and names that one.
- `any`: `--qpu=any`. The choice is the product's own (`leases/choice.py`), with what the broker knows then.
- `error`: `--qpu=any:by=error`, likewise.

`python -m benchmarks.choice SEED` prints a table for one seed.
"""

from __future__ import annotations

import random
import sys
from bisect import bisect_right
from collections import deque
from statistics import fmean
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from benchmarks.figures import Figure
from qpu_slurm.errors import UnavailableError
from qpu_slurm.journal.pace import Pace
from qpu_slurm.leases.choice import Candidate, choose
from qpu_slurm.leases.choosing import expected_wait
from qpu_slurm.providers.base import QpuStatus
from qpu_slurm.qpu_option import Wish, wish_of

if TYPE_CHECKING:
    from collections.abc import Iterator

Policy = Literal["name", "any", "error"]

POLICIES: Final[tuple[Policy, ...]] = ("name", "any", "error")

SEEDS: Final = range(1, 21)

_DAY: Final = 86_400.0
_JOBS: Final = 288
_LOADS: Final = (150, 220, 288, 330, 360)
"""Jobs in a day, and in others: at 360, the QPUs are behind for most of the day."""

_OTHERS: Final = 500
_NODES: Final = 1800.0
"""Seconds that a job waits for its nodes, on average."""

_SESSION: Final = 420.0
_OTHER_TASK: Final = 90.0
"""Seconds that a job's session takes on a QPU of speed 1, and a task of others, on average."""

_UP, _DOWN = 6 * 3600.0, 3600.0
"""Seconds between two outages, and in one, on average."""

_LOOK: Final = 60.0
"""Seconds after which a job that waits in the queue is looked at again."""

_LAST: Final = 500
"""How many sessions the broker learns from; see `journal/pace.py`."""


class Spec(NamedTuple):
    """A QPU: how fast it is, how good, and how many of the others' programs go to it."""

    name: str
    speed: float
    error: float
    share: float


QPUS: Final = (
    Spec("ibm_fez", 1.0, 0.0030, 0.40),
    Spec("ibm_torino", 0.7, 0.0042, 0.25),
    Spec("ibm_marrakesh", 1.3, 0.0036, 0.25),
    Spec("ibm_kyiv", 0.5, 0.0110, 0.10),
)


class Job(NamedTuple):
    """A job: when it is submitted, when its nodes are free, and how much work its session is."""

    submitted: float
    ready: float
    work: float


class Day(NamedTuple):
    """What happens whatever the policy is."""

    jobs: list[Job]
    others: list[tuple[float, str, float]]
    outages: dict[str, list[tuple[float, float]]]


class Outcome(NamedTuple):
    """How a day went: each job's wait in seconds, and the error of its QPU."""

    waits: list[float]
    errors: list[float]


def a_day(seed: int, jobs_a_day: int = _JOBS) -> Day:
    """Make up a day; the same for every policy."""
    rng = random.Random(seed)  # noqa: S311 - no secret
    jobs = []
    for _ in range(jobs_a_day):
        # More by day than by night.
        submitted = rng.triangular(0, _DAY, 0.55 * _DAY)
        ready = submitted + rng.expovariate(1 / _NODES)
        jobs.append(Job(submitted, ready, rng.expovariate(1 / _SESSION)))
    names, shares = [spec.name for spec in QPUS], [spec.share for spec in QPUS]
    others = [
        (rng.uniform(0, _DAY), rng.choices(names, shares)[0], rng.expovariate(1 / _OTHER_TASK))
        for _ in range(_OTHERS)
    ]
    outages = {}
    for name in names:
        found, now = [], rng.expovariate(1 / _UP)
        while now < 2 * _DAY:
            end = now + rng.expovariate(1 / _DOWN)
            found.append((now, end))
            now = end + rng.expovariate(1 / _UP)
        outages[name] = found
    return Day(sorted(jobs), sorted(others), outages)


class Qpu:
    """A QPU at work: first come, first served."""

    def __init__(self, spec: Spec, outages: list[tuple[float, float]]) -> None:
        self.spec = spec
        self._outages = outages
        self._free_at = 0.0
        self._own: deque[float] = deque()
        self._others: deque[float] = deque()
        self._sessions: deque[tuple[float, float]] = deque(maxlen=_LAST)
        self._tasks: deque[tuple[float, float]] = deque(maxlen=_LAST)

    def outage(self, now: float) -> tuple[float, float] | None:
        """Return the outage that goes on, if one does."""
        place = bisect_right(self._outages, (now, float("inf"))) - 1
        return self._outages[place] if place >= 0 and now < self._outages[place][1] else None

    def take(self, now: float, work: float, *, own: bool) -> float:
        """Have something done; return when it begins."""
        begin = self._next_up(max(now, self._free_at))
        end, left = begin, work / self.spec.speed
        while True:
            following = next((down for down in self._outages if down[0] >= end), None)
            if following is None or end + left <= following[0]:
                break
            left -= following[0] - end
            end = following[1]
        self._free_at = end = end + left
        (self._own if own else self._others).append(end)
        (self._sessions if own else self._tasks).append((end, work / self.spec.speed))
        return begin

    def waiting(self, now: float) -> tuple[int, int]:
        """Count the cluster's jobs that have it, and the others' tasks that wait or run."""
        for ends in (self._own, self._others):
            while ends and ends[0] <= now:
                ends.popleft()
        return len(self._own), len(self._others)

    def pace(self, now: float) -> Pace:
        """Return what has been learnt of it until now."""
        sessions = [seconds for end, seconds in self._sessions if end <= now]
        tasks = [seconds for end, seconds in self._tasks if end <= now]
        usual = Pace()
        return Pace(
            session=fmean(sessions) if sessions else usual.session, task=fmean(tasks) if tasks else usual.task
        )

    def candidate(self, now: float) -> Candidate:
        """Say what a broker knows of it."""
        own, others = self.waiting(now)
        away = self.outage(now) is not None
        answer = QpuStatus(online=not away, reason="maintenance" if away else "", queue_length=others)
        return Candidate(
            name=self.spec.name,
            attributes={"name": self.spec.name, "error": self.spec.error},
            wait=expected_wait(answer, own, self.pace(now)),
            bar="wait" if away else "",
            why="is not available: maintenance" if away else "",
        )

    def _next_up(self, now: float) -> float:
        outage = self.outage(now)
        return now if outage is None else outage[1]


def play(day: Day, policy: Policy) -> Outcome:
    """Play a day under a policy."""
    qpus = {spec.name: Qpu(spec, day.outages[spec.name]) for spec in QPUS}
    wish = wish_of("any:by=error" if policy == "error" else "any") or Wish("any")
    named: dict[Job, str] = {}
    waits, errors = [], []
    # Each: when, what kind, and what. A job under `any` that finds no QPU comes again.
    events: list[tuple[float, int, object]] = [
        *((arrives, 0, (name, work)) for arrives, name, work in day.others),
        *((job.submitted, 1, job) for job in day.jobs if policy == "name"),
        *((job.ready, 2, job) for job in day.jobs),
    ]
    events.sort(key=lambda event: event[:2], reverse=True)
    while events:
        now, _, what = events.pop()
        if isinstance(what, Job) and policy == "name" and what not in named:
            named[what] = _least_busy(qpus, now)
        elif isinstance(what, Job):
            name = named.get(what) or _chosen(wish, qpus, now)
            if name is None:
                events.append((now + _LOOK, 2, what))
                events.sort(key=lambda event: event[:2], reverse=True)
                continue
            waits.append(qpus[name].take(now, what.work, own=True) - what.ready)
            errors.append(qpus[name].spec.error)
        elif isinstance(what, tuple):
            name, work = what
            qpus[name].take(now, work, own=False)
    return Outcome(waits, errors)


def _least_busy(qpus: dict[str, Qpu], now: float) -> str:
    """Name the QPU that is online and has the fewest tasks; the first one if none is online."""
    online = [name for name, qpu in qpus.items() if qpu.outage(now) is None] or list(qpus)
    return min(online, key=lambda name: sum(qpus[name].waiting(now)))


def _chosen(wish: Wish, qpus: dict[str, Qpu], now: float) -> str | None:
    try:
        (name,) = choose([wish], [qpu.candidate(now) for qpu in qpus.values()])
    except UnavailableError:
        return None
    return name


def measure() -> Iterator[Figure]:
    """Play twenty days under each policy."""
    days = [a_day(seed) for seed in SEEDS]
    found = {policy: [play(day, policy) for day in days] for policy in POLICIES}
    waits = {policy: fmean(fmean(day.waits) for day in played) for policy, played in found.items()}
    errors = {policy: fmean(fmean(day.errors) for day in played) for policy, played in found.items()}
    pairs = zip(found["any"], found["name"], strict=True)
    ratios = sorted(fmean(ours.waits) / fmean(theirs.waits) for ours, theirs in pairs)
    details = {
        "waits": waits,
        "errors": errors,
        "ratios": ratios,
        "seeds": list(SEEDS),
        "by_jobs_a_day": {jobs: _ratio_at(jobs) for jobs in _LOADS},
    }
    yield Figure(
        key="choice.wait_vs_name",
        what="`--qpu=any`: mean wait for a QPU over a simulated day, beside the least busy at submission",
        value=waits["any"] / waits["name"],
        at_most=0.7,
        details=details,
    )
    yield Figure(
        key="choice.error_vs_name",
        what="`--qpu=any`: mean error of the chosen QPUs, beside the least busy at submission",
        value=errors["any"] / errors["name"],
    )
    yield Figure(
        key="choice.by_error_wait_vs_name",
        what="`--qpu=any:by=error`: mean wait, beside the least busy at submission",
        value=waits["error"] / waits["name"],
    )
    yield Figure(
        key="choice.by_error_error_vs_name",
        what="`--qpu=any:by=error`: mean error, beside the least busy at submission",
        value=errors["error"] / errors["name"],
    )


def _ratio_at(jobs: int) -> float:
    """Compare `any` with `name` on busier and quieter days."""
    days = [a_day(seed, jobs) for seed in SEEDS[:5]]
    policies: tuple[Policy, ...] = ("any", "name")
    waits = {policy: fmean(fmean(play(day, policy).waits) for day in days) for policy in policies}
    return waits["any"] / waits["name"]


def main() -> None:
    """Print how one day goes under each policy."""
    seed = int(sys.argv[1]) if len(sys.argv) > 1 else SEEDS[0]
    day = a_day(seed)
    for policy in POLICIES:
        outcome = play(day, policy)
        late = sorted(outcome.waits)[int(0.95 * len(outcome.waits))]
        sys.stdout.write(
            f"{policy:6} mean wait {fmean(outcome.waits):7.0f} s, 95 % below {late:7.0f} s, "
            f"mean error {fmean(outcome.errors):.4f}\n"
        )


if __name__ == "__main__":
    main()
