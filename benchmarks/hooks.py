# SPDX-License-Identifier: Apache-2.0
"""What hooks and plugin cost those who use no QPU.

Throw-away clusters run at once and take turns: the same batch of small jobs on one, then on the other. One
has our hooks in slurm.conf and the plugin in plugstack.conf, one has neither, and one has hooks that are
/bin/true: what Slurm itself takes for having any.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.figures import Figure
from benchmarks.processes import Pairs, rounded
from qpu_slurm.devkit.cluster import Cluster
from qpu_slurm.devkit.lab import Lab

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_JOBS = 100
_SRUNS = 10
_ROUNDS = 5
_LONGEST_SECONDS = 60
_CHECKOUT = Path(__file__).parents[1]
_EMPTY = {"PrologSlurmctld": "/bin/true", "EpilogSlurmctld": "/bin/true"}

_BATCH = """\
for number in $(seq {count}); do sbatch --quiet --output=/dev/null --wrap=true >/dev/null; done
while [ -n "$(squeue --noheader)" ]; do sleep 0.01; done
"""
"""A job is in the queue until its EpilogSlurmctld is over."""

_SRUN = "for number in $(seq {count}); do srun --quiet true; done\n"

_NOTE = "{ours:.1f} a second against {other:.1f}: {more:+.1f} ms a job. "
_NOTE_SRUN = (
    "With any PrologSlurmctld, an srun that makes its own allocation asks every 0.1 s whether it is over: "
    "see the next row. Steps of a job that runs do not, and sbatch does not."
)


def measure() -> Iterator[Figure]:
    """Run batches of small jobs with hooks, without, and with hooks that do nothing."""
    with ExitStack() as stack:
        ours = stack.enter_context(Lab(_CHECKOUT, credentials="user")).cluster
        plain = stack.enter_context(Cluster())
        empty = stack.enter_context(Cluster(settings=_EMPTY))
        batches = _take_turns((ours, plain, empty), _BATCH, _JOBS)
        yield _figure(
            "cost.throughput_with_hooks",
            f"jobs without a QPU a second, {_JOBS} `sbatch --wrap=true`: hooks and plugin against neither",
            Pairs(batches[0], batches[1]),
            _JOBS,
            at_least=0.95,
        )
        yield _figure(
            "cost.throughput_vs_empty_hooks",
            "the same, against hooks that are /bin/true",
            Pairs(batches[0], batches[2]),
            _JOBS,
        )
        sruns = _take_turns((ours, plain, empty), _SRUN, _SRUNS)
        yield _figure(
            "cost.srun_with_hooks",
            f"the same, {_SRUNS} times `srun true`, one after the other",
            Pairs(sruns[0], sruns[1]),
            _SRUNS,
            note=_NOTE_SRUN,
        )
        yield _figure(
            "cost.srun_vs_empty_hooks",
            "the same, against hooks that are /bin/true",
            Pairs(sruns[0], sruns[2]),
            _SRUNS,
        )


def _take_turns(clusters: Sequence[Cluster], text: str, count: int) -> list[list[float]]:
    """Measure each cluster in turn, after a first time of each that does not count."""
    taken: list[list[float]] = [[] for _ in clusters]
    for number in range(_ROUNDS + 1):
        for cluster, seconds in zip(clusters, taken, strict=True):
            begin = time.perf_counter()
            done = cluster.run(["/bin/sh", "-ec", text.format(count=count)], timeout=_LONGEST_SECONDS)
            if done.returncode:
                raise RuntimeError(done.stderr)
            if number:
                seconds.append(time.perf_counter() - begin)
            cluster.wait_until_idle(_LONGEST_SECONDS)
    return taken


def _figure(
    key: str, what: str, found: Pairs, count: int, *, at_least: float | None = None, note: str = ""
) -> Figure:
    ours, other = found.medians
    said = _NOTE.format(ours=count / ours, other=count / other, more=(ours - other) / count * 1e3)
    return Figure(
        key=key,
        what=what,
        value=1 / found.ratio,
        at_least=at_least,
        details={"seconds": rounded(found.one), "other_seconds": rounded(found.other)},
        note=(said + note).rstrip(),
    )
