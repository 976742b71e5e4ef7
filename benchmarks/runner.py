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
"""Seconds of a task that takes almost no time, yet longer than the first poll takes to come."""

_SLOW_PAIRS = 9
_FAST_PAIRS = 21


def measure() -> Iterator[Figure]:
    """Compare with upstream, and with the bare requests."""
    with Step(task_seconds=_BLINK, result_bytes=1000) as step:
        found = pairs(lambda: step.run_ours().seconds, lambda: step.run_theirs().seconds, _SLOW_PAIRS)
        ours, theirs = found.medians
        yield Figure(
            key="runner.wall_vs_upstream",
            what=f"start to result file, a task of {_BLINK:g} s, against upstream",
            value=found.ratio,
            at_most=0.2,
            details=_details(found, "upstream_seconds"),
            note=f"{ours:.3f} s against {theirs:.3f} s. Upstream polls the task once a second.",
        )
    with Step(result_bytes=1000) as step:
        found = pairs(lambda: step.run_ours().seconds, lambda: step.run_theirs().seconds, _FAST_PAIRS)
        ours, theirs = found.medians
        yield Figure(
            key="runner.wall_vs_upstream_at_once",
            what="the same, with a task that ends before the first poll",
            value=found.ratio,
            details=_details(found, "upstream_seconds"),
            note=(
                f"{ours:.3f} s against {theirs:.3f} s. No real task is that short: this compares how two "
                "programs start. Upstream's is written in Rust, with a built-in HTTP client. Ours is written "
                "in Python, and spends a third of the time importing one."
            ),
        )
        found = pairs(lambda: step.run_ours().seconds, lambda: step.run_bare().seconds, _FAST_PAIRS)
        ours, bare = found.medians
        yield Figure(
            key="runner.wall_vs_limit",
            what="the same, against the bare requests",
            value=found.ratio,
            at_most=1.3,
            details=_details(found, "limit_seconds"),
            note=(
                f"{ours:.3f} s against {bare:.3f} s. The bare requests check nothing, and exit through "
                "Python's shutdown. task_runner skips that shutdown, which makes up for its other work."
            ),
        )


def _details(found: Pairs, other: str) -> dict[str, Any]:
    return {"seconds": rounded(found.one), other: rounded(found.other)}
