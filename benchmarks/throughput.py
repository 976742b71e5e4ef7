# SPDX-License-Identifier: Apache-2.0
"""Many small tasks through one session, in one call."""

from __future__ import annotations

import os
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.figures import Figure
from benchmarks.processes import pairs, rounded
from benchmarks.step import QPU, Step, sampler_input

if TYPE_CHECKING:
    from collections.abc import Iterator

TASKS = 200
_PAIRS = 9
_SYNCS = 50
MEMORY = Path("/dev/shm")  # noqa: S108 - a file system in memory, in a directory of our own


def measure() -> Iterator[Figure]:
    """Compare with the bare requests, one task after the other."""
    with Step(result_bytes=1000) as step, tempfile.TemporaryDirectory(dir=MEMORY) as memory:
        yield _figure(
            step,
            step.directory,
            "runner.throughput_vs_limit",
            f"tasks a second, in one call of {TASKS}, against the bare requests",
            at_least=0.8,
        )
        yield _figure(
            step,
            Path(memory),
            "runner.throughput_in_memory_vs_limit",
            "the same, with results in memory",
        )


def _figure(step: Step, directory: Path, key: str, what: str, *, at_least: float | None = None) -> Figure:
    inputs = [step.directory / f"input-{number}.json" for number in range(TASKS)]
    for path in inputs:
        path.write_text(sampler_input())
    results, bare_results = directory / "results", directory / "bare-results"

    def ours() -> float:
        _empty(results)
        seconds = step.run_ours(QPU, "--output-dir", results, *inputs).seconds
        written = sum((results / source.name).exists() for source in inputs)
        if written < TASKS:
            raise RuntimeError(f"only {written} of {TASKS} results were written")
        return seconds

    def bare() -> float:
        _empty(bare_results)
        paths = [path for source in inputs for path in (source, bare_results / source.name)]
        return step.run_bare(QPU, *paths).seconds

    found = pairs(bare, ours, _PAIRS)
    limit, seconds = found.medians
    return Figure(
        key=key,
        what=what,
        value=found.ratio,
        at_least=at_least,
        details={"seconds": rounded(found.other), "limit_seconds": rounded(found.one)},
        note=(
            f"{TASKS / seconds:.0f} tasks a second; the bare requests reach {TASKS / limit:.0f}. task_runner "
            "checks and records each task, and syncs each result to disk. A repeated call executes none of "
            f"them again. A sync took {_sync_seconds(directory) * 1e3:.2f} ms. Syncing in a thread was "
            "tried, and gained nothing. Syncing all results at the end took a tenth of the time, but "
            "promises less."
        ),
    )


def _sync_seconds(directory: Path) -> float:
    """Measure how long the file system takes to bring a small new file to disk."""
    taken = []
    for number in range(_SYNCS):
        with (directory / f"sync-{number}").open("wb", buffering=0) as file:
            file.write(bytes(1000))
            begin = time.perf_counter()
            os.fsync(file.fileno())
            taken.append(time.perf_counter() - begin)
    return statistics.median(taken)


def _empty(directory: Path) -> None:
    """Begin with an empty directory, and with a disk that has nothing to do yet.

    Else ours, which waits for the disk, would wait for what was written and deleted before as well.
    """
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    os.sync()
