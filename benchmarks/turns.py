# SPDX-License-Identifier: Apache-2.0
"""Runs the gateway, and writes down how long the turns of its event loop take.

    python -m benchmarks.turns FILE --config CONFIG gateway

A turn is what happens between two waits for something to do: no request is answered meanwhile. Its length is
counted without the time for which the kernel had the thread wait for a free CPU (schedstat of proc(5)):
benchmarks share their machine with clients and with the service. What remains is the gateway's own: what it
computes, and what it waits for, Python's lock (the GIL) included.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import selectors
import sys
import threading
import time
from pathlib import Path

import msgspec

from qpu_slurm.cli import main

LONG = 0.02
"""Seconds from which on a turn is written down by itself."""


class Turn(msgspec.Struct, frozen=True):
    """A long turn.

    Attributes:
        at: When it ended, in seconds since the epoch.
        seconds: How long it took.
        starved: How long it waited for a CPU besides.
    """

    at: float
    seconds: float
    starved: float


class Turns(msgspec.Struct):
    """All turns.

    Attributes:
        count: How many there were.
        long: The long ones.
    """

    count: int = 0
    long: list[Turn] = []


class _Selector(selectors.EpollSelector):
    """Follows the turns of the loop that waits with it."""

    def __init__(self) -> None:
        super().__init__()
        self.turns = Turns()
        thread = threading.get_native_id()
        self._schedule = os.open(f"/proc/self/task/{thread}/schedstat", os.O_RDONLY)
        self._woke: tuple[float, float] | None = None

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if self._woke is not None:
            woke, starved = self._woke
            waited = self._starved() - starved
            took = time.perf_counter() - woke - waited
            self.turns.count += 1
            if took >= LONG:
                self.turns.long.append(Turn(time.time(), took, waited))
        ready = super().select(timeout)
        self._woke = time.perf_counter(), self._starved()
        return ready

    def _starved(self) -> float:
        return int(os.pread(self._schedule, 100, 0).split()[1]) / 1e9


class _Policy(asyncio.DefaultEventLoopPolicy):
    def __init__(self, selector: _Selector) -> None:
        super().__init__()
        self._selector = selector

    def new_event_loop(self) -> asyncio.AbstractEventLoop:
        return asyncio.SelectorEventLoop(self._selector)


def read(path: Path) -> Turns:
    """Read what was written down, once the gateway has ended."""
    return msgspec.json.decode(path.read_bytes(), type=Turns)


def _run(path: Path, arguments: list[str]) -> int:
    selector = _Selector()
    atexit.register(lambda: path.write_bytes(msgspec.json.encode(selector.turns)))
    asyncio.set_event_loop_policy(_Policy(selector))
    sys.argv = ["qpu-slurm", *arguments]
    return main()


if __name__ == "__main__":
    sys.exit(_run(Path(sys.argv[1]), sys.argv[2:]))
