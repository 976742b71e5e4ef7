# SPDX-License-Identifier: Apache-2.0
"""Sessions, summed up by user, account, QPU, day, month or job."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import msgspec

from qpu_slurm.system.users import user_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from qpu_slurm.journal.history import Use

KEYS: dict[str, Callable[[Use], str]] = {
    "user": lambda use: user_name(use.user_id),
    "account": lambda use: use.account,
    "qpu": lambda use: use.qpu,
    # As on the clock of this machine.
    "day": lambda use: use.opened_at.astimezone().strftime("%Y-%m-%d"),
    "month": lambda use: use.opened_at.astimezone().strftime("%Y-%m"),
    "job": lambda use: str(use.job_id),
}
"""What sessions can be summed up by."""

_IN_ORDER = ("day", "month", "job")
"""What is listed in its own order; the others begin with who locked the most."""


class Sum(msgspec.Struct, frozen=True, kw_only=True):
    """What some sessions were used for, together.

    Attributes:
        key: What they have in common, in the order that was asked for.
        jobs: How many jobs had them; each run of a requeued job is one.
        sessions: How many there are.
        tasks: How many tasks ran in them.
        locked_seconds: How long they had a QPU for themselves, which is what is paid for.
        executed_seconds: How long their tasks ran.
        idle_seconds: How long a QPU was locked, and executed nothing.
        share: Their part of all locked seconds, from 0 to 1; None if there are none.
        pending: How many of the sessions are open yet, or have ended and not been told of.
        unknown: Of how many sessions the service never told.
    """

    key: tuple[str, ...]
    jobs: int
    sessions: int
    tasks: int
    locked_seconds: float
    executed_seconds: float
    idle_seconds: float
    share: float | None
    pending: int
    unknown: int


class Sums(msgspec.Struct, frozen=True, kw_only=True):
    """A report: `by` names the parts of each row's key."""

    by: tuple[str, ...]
    rows: tuple[Sum, ...]
    total: Sum


def sum_up(uses: Iterable[Use], by: Sequence[str]) -> Sums:
    """Sum up what sessions were used for.

    Args:
        uses: The sessions.
        by: Names of `KEYS`.
    """
    uses = list(uses)
    groups: defaultdict[tuple[str, ...], list[Use]] = defaultdict(list)
    for use in uses:
        groups[tuple(KEYS[name](use) for name in by)].append(use)
    total = _sum((), uses, None)
    rows = [_sum(key, group, total.locked_seconds) for key, group in groups.items()]
    rows.sort(key=_natural if by[0] in _IN_ORDER else lambda row: (-row.locked_seconds, row.key))
    return Sums(by=tuple(by), rows=tuple(rows), total=_sum((), uses, total.locked_seconds))


def _sum(key: tuple[str, ...], uses: Sequence[Use], all_locked: float | None) -> Sum:
    known = [
        (use.locked_seconds, use.executed_seconds or 0.0) for use in uses if use.locked_seconds is not None
    ]
    locked = sum((seconds for seconds, _ in known), 0.0)
    unknown = sum(use.given_up for use in uses)
    return Sum(
        key=key,
        jobs=len({(use.job_id, use.run, use.user_id) for use in uses}),
        sessions=len(uses),
        tasks=sum(use.tasks for use in uses),
        locked_seconds=round(locked, 3),
        executed_seconds=round(sum((executed for _, executed in known), 0.0), 3),
        # Tasks of a batch session may run beside each other: then nothing was idle.
        idle_seconds=round(sum((max(seconds - executed, 0.0) for seconds, executed in known), 0.0), 3),
        share=round(locked / all_locked, 4) if all_locked else None,
        pending=len(uses) - len(known) - unknown,
        unknown=unknown,
    )


def _natural(row: Sum) -> tuple[tuple[int, str], ...]:
    """Sort numbers as numbers."""
    return tuple((int(part) if part.isdigit() else 0, part) for part in row.key)
