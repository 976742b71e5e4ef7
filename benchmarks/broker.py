# SPDX-License-Identifier: Apache-2.0
"""Acquire and release, beside the bare requests that they need, in the same order.

The broker runs in this process, as it does in the gateway, and keeps what the gateway keeps of an account:
its token and its connections. Beside it there are a broker that keeps nothing, as in a hook where there is
no gateway; the bare requests from nothing; and those with a token and a connection from before.

What the broker does more than to ask is to write down what it is about to do and what it has done, and to
wait until the disk has it that there may be a session.
"""

from __future__ import annotations

import itertools
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from benchmarks import limit
from benchmarks.figures import Figure
from benchmarks.processes import Pairs, rounded
from benchmarks.step import HOURS, QPU
from qpu_slurm import config as configurations
from qpu_slurm import providers
from qpu_slurm.journal.journal import Journal
from qpu_slurm.journal.model import LeaseRequest, LeaseState
from qpu_slurm.leases.broker import Broker
from qpu_slurm.providers import Connections
from qpu_slurm.system import logs
from qpu_slurm_devkit.emulator import Emulator, Fault

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qpu_slurm.config import Config
    from qpu_slurm.providers.base import Connect
    from qpu_slurm_devkit.emulator import Account

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
    "{ours:.2f} ms against {bare:.2f} ms. The gateway reuses the account's token and a connection. "
    "The bare requests have neither, so they are three. "
)
_DISK = {
    "acquire": "Before it opens a session, it syncs to disk that there may be one.",
    "release": "It does not wait for the disk: a release that is lost in a power failure is repeated.",
}
_NOTE_KEPT = (
    "{ours:.2f} ms against {bare:.2f} ms for 2 requests to a service on the same machine, which answers each "
    "in a quarter of a millisecond. The broker takes the account's lock, and records what it is about to "
    "do and what it did. It already waits for the disk only once, and writes as little as it can."
)
_NOTE_ALONE = "{ours:.2f} ms against {bare:.2f} ms: the same three requests."
_NOTE_FAR = "{ours:.0f} ms against {bare:.0f} ms. A real service is even farther away."


def configuration(directory: Path, url: str, account: Account) -> Config:
    """Write the configuration of a broker, with all that belongs to it in a directory."""
    key, path = directory / "ibm.key", directory / "config.toml"
    key.touch(mode=0o600)
    key.write_text(account.api_key)
    path.write_text(_CONFIG.format(directory=directory, qpu=QPU, url=url, account=account))
    return configurations.load(path)


class _Bare:
    """The requests of an acquire and of a release, and nothing else."""

    def __init__(self, url: str, account: Account) -> None:
        self._way = (url, account.api_key, account.crn)
        self._session = ""

    def acquire(self) -> None:
        self._session = limit.acquire(*self._way, QPU, str(HOURS))

    def release(self) -> None:
        limit.release(*self._way, self._session)


class _Kept(_Bare):
    """The same with a token and a connection from before."""

    def __init__(self, url: str, account: Account) -> None:
        super().__init__(url, account)
        self._http = limit.pool()
        self._headers = limit.authorized(self._http, *self._way)

    def acquire(self) -> None:
        self._session = limit.open_session(self._http, self._headers, self._way[0], QPU, str(HOURS))

    def release(self) -> None:
        limit.close_session(self._http, self._headers, self._way[0], self._session)


class _Ours:
    """A broker with a journal."""

    def __init__(self, journal: Journal, config: Config, connect: Connect) -> None:
        self._broker = Broker(config, journal, connect)

    def acquire(self) -> None:
        self._job = next(_jobs)
        request = LeaseRequest(job_id=self._job, user_id=1000, qpus=(QPU,), seconds_left=HOURS)
        self._expect(self._broker.acquire(request)[0].state, LeaseState.HELD)

    def release(self) -> None:
        self._expect(self._broker.release(self._job, "The job ended.")[0].state, LeaseState.RELEASED)

    @staticmethod
    def _expect(state: LeaseState, expected: LeaseState) -> None:
        if state is not expected:
            raise RuntimeError(f"the lease is {state}")


_jobs = itertools.count(1)


class _Ways(NamedTuple):
    """All ways to acquire and to release."""

    gateway: _Ours
    alone: _Ours
    bare: _Bare
    kept: _Kept


def _measure(emulator: Emulator, directory: Path, rounds: int) -> dict[str, dict[str, list[float]]]:
    """Acquire and release in turn, in all ways, after a first time of each that does not count.

    Returns:
        Milliseconds, by what was done and by the way.
    """
    account = emulator.accounts[0]
    config = configuration(directory, emulator.url, account)
    took: dict[str, dict[str, list[float]]] = {"acquire": {}, "release": {}}
    with Journal(config.journal) as journal:
        ways = _Ways(
            _Ours(journal, config, Connections().connect),
            _Ours(journal, config, providers.connect),
            _Bare(emulator.url, account),
            _Kept(emulator.url, account),
        )
        for number in range(rounds + 1):
            asked = {}
            for way, who in ways._asdict().items():
                before = len(emulator.requests())
                for what, times in took.items():
                    begin = time.perf_counter()
                    getattr(who, what)()
                    if number:
                        times.setdefault(way, []).append((time.perf_counter() - begin) * 1e3)
                made = emulator.requests()[before:]
                asked[way] = [(one.method, one.path.split("/")[1]) for one in made]
            if number and (asked["gateway"] != asked["kept"] or asked["alone"] != asked["bare"]):
                raise RuntimeError(f"not the same requests: {asked}")
    return took


def measure() -> Iterator[Figure]:
    """Compare with the bare requests."""
    with ExitStack() as stack:
        emulator = stack.enter_context(Emulator(interactive_ttl=HOURS, idle_ttl=HOURS, backends=(QPU,)))
        disk = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="qpu-bench-")))
        logs.configure("info", disk / "broker.log")
        for what, took in _measure(emulator, disk, _ROUNDS).items():
            yield _figure(
                f"{what}.wall_vs_limit",
                f"{what} by the gateway's broker, against its bare requests",
                Pairs(took["gateway"], took["bare"]),
                1.3,
                note=_NOTE + _DISK[what],
            )
            yield _figure(
                f"{what}.wall_vs_kept_limit",
                "the same, against requests that reuse token and connection",
                Pairs(took["gateway"], took["kept"]),
                note=_NOTE_KEPT,
            )
            yield _figure(
                f"{what}.wall_alone_vs_limit",
                f"{what} without a gateway, against its bare requests",
                Pairs(took["alone"], took["bare"]),
                note=_NOTE_ALONE,
            )
        emulator.inject(Fault(times=None, delay=_FAR_SECONDS))
        for what, took in _measure(emulator, disk, _FAR_ROUNDS).items():
            for limit_, name, what_limit in (
                ("bare", "far", "its bare requests"),
                ("kept", "far_kept", "requests that reuse both"),
            ):
                yield _figure(
                    f"{what}.wall_{name}_vs_limit",
                    f"{what}, service at {_FAR_SECONDS * 1e3:g} ms, against {what_limit}",
                    Pairs(took["gateway"], took[limit_]),
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
