# SPDX-License-Identifier: Apache-2.0
"""Acquire and release, beside the bare requests that they need: the same ones, in the same order.

The broker runs in this process, as it does in the gateway. What it does more than to ask is to write down
what it is about to do and what it has done, and to wait until the disk has it that there may be a session; so
there are three pairs: with the journal on disk, with the journal in memory, and on disk with a service that
takes as long to answer as one that is far away.
"""

from __future__ import annotations

import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Self

from benchmarks import limit
from benchmarks.figures import Figure
from benchmarks.processes import Pairs, rounded
from benchmarks.step import HOURS, QPU
from benchmarks.throughput import MEMORY
from qpu_slurm import config, logs
from qpu_slurm.devkit.emulator import Emulator, Fault
from qpu_slurm.leases.broker import Broker
from qpu_slurm.leases.journal import Journal
from qpu_slurm.leases.model import LeaseRequest, LeaseState

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qpu_slurm.config import Config
    from qpu_slurm.devkit.emulator import Account

_ROUNDS = 41
_FAR_SECONDS = 0.03
_FAR_ROUNDS = 9

_CONFIG = """\
journal = "{directory}/journal.sqlite"
[gateway]
url = "http://127.0.0.1:8470"
[[qpu]]
name = "{qpu}"
endpoint = "{url}/api/v1"
iam_endpoint = "{url}"
instance = "{account.crn}"
credentials = "gateway"
key_file = "{directory}/ibm.key"
"""

_NOTE = (
    "{ours:.2f} ms against {bare:.2f} ms for 3 requests to a service on the same machine, which answers each "
    "in less than half a millisecond. Ours takes the account's lock, and writes down what it is about to do "
    "and what it has done. Tried: to wait for the disk once only, and to write less; both are in it. The "
    "last rows show a service that is farther away."
)
_DISK = {
    "acquire": "Before it opens a session, the disk has it that there may be one.",
    "release": "For the disk it does not wait: what a power loss makes it forget is ended again.",
}
_NOTE_MEMORY = "{ours:.2f} ms against {bare:.2f} ms: the rest of the difference is the disk's."
_NOTE_FAR = "{ours:.0f} ms against {bare:.0f} ms. A real service is farther away than that."


def configuration(directory: Path, url: str, account: Account) -> Config:
    """Write the configuration of a broker, with all that belongs to it in a directory."""
    key, path = directory / "ibm.key", directory / "config.toml"
    key.touch(mode=0o600)
    key.write_text(account.api_key)
    path.write_text(_CONFIG.format(directory=directory, qpu=QPU, url=url, account=account))
    return config.load(path)


class _Bare:
    """The requests of an acquire and of a release, and nothing else."""

    def __init__(self, url: str, account: Account) -> None:
        self._way = (url, account.api_key, account.crn)
        self._session = ""

    def acquire(self) -> None:
        self._session = limit.acquire(*self._way, QPU, str(HOURS))

    def release(self) -> None:
        limit.release(*self._way, self._session)


class _Ours:
    """A broker, with a journal in a directory."""

    def __init__(self, directory: Path, url: str, account: Account) -> None:
        self._config = configuration(directory, url, account)
        self._job = 0

    def __enter__(self) -> Self:
        self._journal = Journal(self._config.journal)
        self._broker = Broker(self._config, self._journal)
        return self

    def __exit__(self, *_: object) -> None:
        self._journal.close()

    def acquire(self) -> None:
        self._job += 1
        request = LeaseRequest(job_id=self._job, user_id=1000, qpus=(QPU,), seconds_left=HOURS)
        self._expect(self._broker.acquire(request)[0].state, LeaseState.HELD)

    def release(self) -> None:
        self._expect(self._broker.release(self._job, "The job ended.")[0].state, LeaseState.RELEASED)

    @staticmethod
    def _expect(state: LeaseState, expected: LeaseState) -> None:
        if state is not expected:
            raise RuntimeError(f"the lease is {state}")


class _Site:
    """An emulator, both ways to it, and what they took: by what was done, in milliseconds."""

    def __init__(self, emulator: Emulator, directory: Path) -> None:
        account = emulator.accounts[0]
        self._emulator = emulator
        self._bare = _Bare(emulator.url, account)
        self._ours = _Ours(directory, emulator.url, account)

    def measure(self, rounds: int) -> dict[str, Pairs]:
        """Acquire and release in turn, after a first time of each that does not count."""
        found = {"acquire": Pairs([], []), "release": Pairs([], [])}
        with self._ours:
            for number in range(rounds + 1):
                asked = []
                for who in (self._ours, self._bare):
                    before = len(self._emulator.requests())
                    for what, pairs in found.items():
                        begin = time.perf_counter()
                        getattr(who, what)()
                        took = (time.perf_counter() - begin) * 1e3
                        if number:
                            (pairs.one if who is self._ours else pairs.other).append(took)
                    made = self._emulator.requests()[before:]
                    asked.append([(one.method, one.path.split("/")[1]) for one in made])
                if asked[0] != asked[1]:
                    raise RuntimeError(f"not the same requests: {asked[0]} and {asked[1]}")
        return found


def measure() -> Iterator[Figure]:
    """Compare with the bare requests."""
    with ExitStack() as stack:
        emulator = stack.enter_context(Emulator(interactive_ttl=HOURS, idle_ttl=HOURS, backends=(QPU,)))
        disk = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="qpu-bench-")))
        memory = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=MEMORY)))
        logs.configure("info", disk / "broker.log")
        near = _Site(emulator, disk).measure(_ROUNDS)
        for what, found in near.items():
            yield _figure(
                f"{what}.wall_vs_limit",
                f"{what} (broker, journal on disk), against its bare requests",
                found,
                1.3,
                note=f"{_NOTE} {_DISK[what]}",
            )
        for what, found in _Site(emulator, memory).measure(_ROUNDS).items():
            yield _figure(
                f"{what}.wall_in_memory_vs_limit", "the same, journal in memory", found, note=_NOTE_MEMORY
            )
        emulator.inject(Fault(times=None, delay=_FAR_SECONDS))
        for what, found in _Site(emulator, disk).measure(_FAR_ROUNDS).items():
            yield _figure(
                f"{what}.wall_far_vs_limit",
                f"the same, journal on disk, a service that takes {_FAR_SECONDS * 1e3:g} ms to answer",
                found,
                note=_NOTE_FAR,
            )


def _figure(key: str, what: str, found: Pairs, at_most: float | None = None, *, note: str) -> Figure:
    ours, bare = found.medians
    return Figure(
        key=key,
        what=what,
        value=found.ratio,
        at_most=at_most,
        details={"milliseconds": rounded(found.one, 2), "limit_milliseconds": rounded(found.other, 2)},
        note=note.format(ours=ours, bare=bare),
    )
