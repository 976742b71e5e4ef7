# SPDX-License-Identifier: Apache-2.0
"""task_runner from its start to its end, with a task that takes no time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.figures import Figure
from benchmarks.processes import pairs, rounded
from benchmarks.step import Step

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from benchmarks.processes import Pairs

_BLINK = 0.02
"""Seconds of a task that takes no time; so long that nobody finds it over when he first asks."""

_SLOW_PAIRS = 9
_FAST_PAIRS = 21


def measure() -> Iterator[Figure]:
    """Compare with upstream, and with the bare requests."""
    with Step(task_seconds=_BLINK, result_bytes=1000) as step:
        found = pairs(lambda: step.run_ours().seconds, lambda: step.run_theirs().seconds, _SLOW_PAIRS)
        ours, theirs = found.medians
        yield Figure(
            key="runner.wall_vs_upstream",
            what=f"process start to result file, a task of {_BLINK:g} s, against upstream's task_runner",
            value=found.ratio,
            at_most=0.2,
            details=_details(found, "upstream_seconds"),
            note=f"{ours:.3f} s against {theirs:.3f} s: upstream asks once a second for the task's state.",
        )
    with Step(result_bytes=1000) as step:
        found = pairs(lambda: step.run_ours().seconds, lambda: step.run_theirs().seconds, _FAST_PAIRS)
        ours, theirs = found.medians
        yield Figure(
            key="runner.wall_vs_upstream_at_once",
            what="the same, the task being over before anybody can ask",
            value=found.ratio,
            details=_details(found, "upstream_seconds"),
            note=(
                f"{ours:.3f} s against {theirs:.3f} s. No real task is over that soon: this compares how two "
                "programs start. Upstream's is Rust, with its HTTP client in it; ours is Python, which needs "
                "a third of the time to import one."
            ),
        )
        found = pairs(lambda: step.run_ours().seconds, lambda: step.run_bare().seconds, _FAST_PAIRS)
        ours, bare = found.medians
        yield Figure(
            key="runner.wall_vs_limit",
            what="the same, against the bare requests (benchmarks/limit.py)",
            value=found.ratio,
            at_most=1.3,
            details=_details(found, "limit_seconds"),
            note=(
                f"{ours:.3f} s against {bare:.3f} s. The bare requests check nothing and end as Python ends; "
                "task_runner leaves without taking Python apart, which pays for all that it does more."
            ),
        )


def _details(found: Pairs, other: str) -> dict[str, Any]:
    return {"seconds": rounded(found.one), other: rounded(found.other)}
