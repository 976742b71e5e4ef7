# SPDX-License-Identifier: Apache-2.0
"""Commands, and what they take: time and memory."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

_LONGEST_SECONDS = 180

_LAUNCHER = """\
import json, os, sys, time
begin = time.perf_counter()
pid = os.fork()
if pid == 0:
    os.execv(sys.argv[1], sys.argv[1:])
_, status, usage = os.wait4(pid, 0)
took = time.perf_counter() - begin
print(json.dumps([took, usage.ru_maxrss / 1024, usage.ru_utime + usage.ru_stime, status]), file=sys.stderr)
"""
"""Starts the command that is measured. A process's peak memory is at least that of the one that it was forked
from, so that one has to be small: Python with nothing imported."""

_SCRIPT = """\
#!{python}
import sys
from {module} import {function}
if __name__ == "__main__":
    sys.exit({function}())
"""
"""What pip installs for an entry point. Both packages have a command task_runner, and only one file of that
name can be in a virtual environment."""


class CommandFailedError(RuntimeError):
    """A command that is measured did not do what it should."""


class Cost(NamedTuple):
    """What a command took.

    Attributes:
        seconds: From its start to its end.
        rss_mib: Its peak memory.
        cpu_seconds: What it kept a core busy.
    """

    seconds: float
    rss_mib: float
    cpu_seconds: float


class Pairs(NamedTuple):
    """Measurements of one and of the other, taken in turn."""

    one: list[float]
    other: list[float]

    @property
    def ratio(self) -> float:
        """The median of the pairs' ratios."""
        return statistics.median(a / b for a, b in zip(self.one, self.other, strict=True))

    @property
    def medians(self) -> tuple[float, float]:
        """The median of each."""
        return statistics.median(self.one), statistics.median(self.other)


def run(argv: Sequence[object], *, env: Mapping[str, str], cwd: Path, user: str | None = None) -> Cost:
    """Run a command to its end.

    Raises:
        CommandFailedError: Its exit code is not 0.
    """
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", _LAUNCHER, *map(str, argv)],
        env=env,
        cwd=cwd,
        user=user,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_LONGEST_SECONDS,
        check=False,
    )
    *said, cost = done.stderr.splitlines() or ["null"]
    seconds, rss, cpu, status = json.loads(cost)
    if status:
        raise CommandFailedError(f"{argv[0]} ended with status {status}:\n" + "\n".join(said[-20:]))
    return Cost(seconds, rss, cpu)


def pairs(one: Callable[[], float], other: Callable[[], float], count: int) -> Pairs:
    """Measure one and the other in turn, after a first time of each that does not count."""
    one()
    other()
    taken = [(one(), other()) for _ in range(count)]
    return Pairs([a for a, _ in taken], [b for _, b in taken])


def rounded(values: Iterable[float], digits: int = 4) -> list[float]:
    """Round for bench.json."""
    return [round(value, digits) for value in values]


def script(path: Path, module: str, function: str) -> Path:
    """Write a command as pip does."""
    path.write_text(_SCRIPT.format(python=sys.executable, module=module, function=function))
    path.chmod(0o755)
    return path
