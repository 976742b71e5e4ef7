# SPDX-License-Identifier: Apache-2.0
"""What the gateway costs: the same requests with it and without it, side by side, to one emulator.

    python -m benchmarks.gateway [--seconds S] [--json FILE]

- latency: each of 1, 50 and 200 jobs asks for its task twice a second, in turn directly and through the
  gateway, so that both ways see the same machine at the same time;
- kinds: what else a client sends, one job;
- throughput: as many requests as 50 connections get answered;
- memory: how much the gateway grows while it hands 100 MB on, both ways.

Prints a table, and writes build/bench-gateway.json. Everything is on the loopback interface.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Self

import aiohttp
import msgspec
import psutil
from rich.console import Console
from rich.table import Table

from qpu_slurm import config
from qpu_slurm.gateway.command import READY
from qpu_slurm.gateway.keys import JobKeys
from qpu_slurm.job import variables
from qpu_slurm.job.variables import JobQpu
from qpu_slurm.journal.journal import Journal
from qpu_slurm.journal.model import Lease, LeaseRequest
from qpu_slurm.leases.broker import Broker
from qpu_slurm.system import logs
from qpu_slurm_devkit.emulator import Emulator

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

JOBS = (1, 50, 200)
ASKS_EVERY = 0.5
CONNECTIONS = 50
LARGE = 100_000_000
PIECE = b"x" * 262_144

WAYS = ("direct", "gateway")

CONFIG = """
journal = "{directory}/journal.sqlite"
log = "{directory}/gateway.log"
[gateway]
url = "http://127.0.0.1:8470"
listen = "127.0.0.1:0"
reap_every = "1h"
[[qpu]]
name = "ibm_fez"
iam_endpoint = "{url}"
instance = "{account.crn}"
credentials = "gateway"
key_file = "{directory}/ibm.key"
"""

IN_THE_CLOUD = 'endpoint = "{url}/api/v1"\n'

ON_PREMISES = """
type = "ibm-quantum-system"
endpoint = "{url}/system"
s3_endpoint = "{url}/s3"
s3_bucket = "{account.storage.bucket}"
s3_access_key_id = "{account.storage.access_key_id}"
s3_key_file = "{directory}/s3.key"
"""


class Way(NamedTuple):
    """How a job reaches the service.

    Attributes:
        name: `direct` or `gateway`.
        url: The API.
        headers: What authorizes.
        task: A task of the job's.
        session: The job's session.
    """

    name: str
    url: str
    headers: dict[str, str]
    task: str
    session: str


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """Latencies of one way, in milliseconds."""

    requests: int
    median: float
    p99: float


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """The same requests both ways, in milliseconds."""

    what: str
    jobs: int
    direct: Figures
    gateway: Figures

    @property
    def added(self) -> tuple[float, float]:
        """What the gateway adds: at the median, at the 99th percentile."""
        return self.gateway.median - self.direct.median, self.gateway.p99 - self.direct.p99


class Report(msgspec.Struct, kw_only=True):
    """Everything that was measured."""

    cpus: int
    latency: list[Row]
    requests_per_second: dict[str, float]
    upload_seconds: dict[str, float]
    upload_growth_mb: float
    result_growth_mb: float
    gateway_rss_mb: float


def main() -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description="Measure what the gateway costs.")
    parser.add_argument("--seconds", type=float, default=8, help="for each measurement (default: 8)")
    parser.add_argument("--json", type=Path, default=Path("build/bench-gateway.json"), metavar="FILE")
    arguments = parser.parse_args()
    if not 1 <= arguments.seconds <= 60:  # noqa: PLR2004 - bounded, whoever runs it
        parser.error("--seconds has to be from 1 to 60")
    logs.configure("error")
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="qpu-bench-")))
        emulator = stack.enter_context(Emulator(result_bytes=1000))
        site = stack.enter_context(Site(directory, emulator))
        report = asyncio.run(_measure(site, arguments.seconds))
    _print(report)
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_bytes(msgspec.json.format(msgspec.json.encode(report)) + b"\n")
    return 0


class Site:
    """A gateway in front of the emulator, and leases.

    Args:
        directory: Where its files are.
        emulator: The service.
        kind: What the QPU's table has besides, for a kind of service.
    """

    def __init__(self, directory: Path, emulator: Emulator, kind: str = IN_THE_CLOUD) -> None:
        self.emulator = emulator
        self.account = emulator.accounts[0]
        for name, content in (("ibm", self.account.api_key), ("s3", self.account.storage.secret)):
            key = directory / f"{name}.key"
            key.touch(mode=0o600)
            key.write_text(content)
        self._path = directory / "config.toml"
        self._path.write_text(
            (CONFIG + kind).format(directory=directory, url=emulator.url, account=self.account)
        )
        self.config = config.load(self._path)
        self._journal = Journal(self.config.journal)
        self._broker = Broker(self.config, self._journal, settle=0)
        self.keys = JobKeys.beside(self.config.journal)
        self.url = ""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "qpu_slurm.cli",
                "--config",
                self._path,
                "gateway",
                "--until-stdin-closes",
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None  # noqa: S101 - for the type checker
        self.url = self._process.stdout.readline().removeprefix(READY).strip()
        self.memory = psutil.Process(self._process.pid)
        return self

    def __exit__(self, *_: object) -> None:
        with self._process:
            self._process.terminate()
        self._journal.close()

    def environ(self, lease: Lease) -> dict[str, str]:
        """Return the variables of a job's steps that are about its QPU."""
        behind = self.config.qpu(lease.qpu).seen_by_jobs(self.url)
        key = self.keys.key(lease)
        return variables.to_environ(
            [JobQpu.bind(behind, api_key=key, session_id=lease.session_id, hold="job")]
        )

    def lease(self, job_id: int) -> Lease:
        """Have a job hold a session."""
        request = LeaseRequest(job_id=job_id, user_id=os.getuid(), qpus=("ibm_fez",), seconds_left=3600)
        return self._broker.acquire(request)[0]


async def _measure(site: Site, seconds: float) -> Report:
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(60)) as client:
        _say(f"{max(JOBS)} jobs get their leases")
        jobs = [await _job(client, site, number) for number in range(1, max(JOBS) + 1)]
        report = Report(
            cpus=os.cpu_count() or 0,
            latency=[],
            requests_per_second={},
            upload_seconds={},
            upload_growth_mb=0,
            result_growth_mb=0,
            gateway_rss_mb=0,
        )
        await _latency(client, jobs[:1], _poll, 1.5)  # warm
        for count in JOBS:
            _say(f"latency with {count} jobs")
            report.latency.append(await _latency(client, jobs[:count], _poll, seconds, "GET /jobs/{id}"))
        for what, ask in (
            ("GET /sessions/{id}", _session),
            ("GET /backends/{n}/configuration", _backend),
            ("GET /jobs/{id}/results", _result),
            ("POST /jobs", _submit),
        ):
            _say(f"latency of {what}")
            report.latency.append(await _latency(client, jobs[:1], ask, seconds / 2, what, every=0.02))
        for number, name in enumerate(WAYS):
            _say(f"throughput, {name}")
            report.requests_per_second[name] = await _throughput(client, jobs, number, seconds / 2)
        report.gateway_rss_mb = site.memory.memory_info().rss / 1e6
        for name, way in zip(WAYS, jobs[0], strict=True):
            _say(f"{LARGE // 1_000_000} MB, {name}")
            begin = time.perf_counter()
            async with _growth(site) as grown:
                task = await _upload(client, way)
            report.upload_seconds[name] = time.perf_counter() - begin
        report.upload_growth_mb = grown()
        async with _growth(site) as grown:
            await _download(client, jobs[0][1], task)
        report.result_growth_mb = grown()
        return report


async def _job(client: aiohttp.ClientSession, site: Site, number: int) -> tuple[Way, Way]:
    """Give a job a lease and a task; return how it reaches them, directly and through the gateway."""
    lease = await asyncio.to_thread(site.lease, number)
    session, crn = lease.session_id or "", {"Service-CRN": site.account.crn}
    direct = Way("direct", f"{site.emulator.url}/api/v1", crn, "", session)
    through = Way("gateway", f"{site.url}/api/v1", {}, "", session)
    ways = []
    for way, iam, key in (
        (direct, site.emulator.url, site.account.api_key),
        (through, site.url, site.keys.key(lease).reveal()),
    ):
        form = {"grant_type": "urn:ibm:params:oauth:grant-type:apikey", "apikey": key}
        async with client.post(f"{iam}/identity/token", data=form) as answer:
            token = (await answer.json())["access_token"]
        ways.append(way._replace(headers=way.headers | {"Authorization": f"Bearer {token}"}))
    async with client.post(
        f"{ways[1].url}/jobs", json=_submission(session), headers=ways[1].headers
    ) as answer:
        task = (await answer.json())["id"]
    return ways[0]._replace(task=task), ways[1]._replace(task=task)


# What is asked.


async def _get(client: aiohttp.ClientSession, way: Way, path: str) -> None:
    async with client.get(way.url + path, headers=way.headers) as answer:
        await answer.read()
        answer.raise_for_status()


async def _poll(client: aiohttp.ClientSession, way: Way) -> None:
    await _get(client, way, f"/jobs/{way.task}?exclude_params=true")


async def _session(client: aiohttp.ClientSession, way: Way) -> None:
    await _get(client, way, f"/sessions/{way.session}")


async def _backend(client: aiohttp.ClientSession, way: Way) -> None:
    await _get(client, way, "/backends/ibm_fez/configuration")


async def _result(client: aiohttp.ClientSession, way: Way) -> None:
    await _get(client, way, f"/jobs/{way.task}/results")


async def _submit(client: aiohttp.ClientSession, way: Way) -> None:
    async with client.post(f"{way.url}/jobs", json=_submission(way.session), headers=way.headers) as answer:
        await answer.read()
        answer.raise_for_status()


def _submission(session: str) -> dict[str, object]:
    return {"program_id": "sampler", "backend": "ibm_fez", "session_id": session, "params": {"pubs": [["x"]]}}


async def _upload(client: aiohttp.ClientSession, way: Way) -> str:
    async def body() -> AsyncIterator[bytes]:
        yield b'{"program_id": "sampler", "backend": "ibm_fez", "params": {"x": "'
        for _ in range(LARGE // len(PIECE)):
            yield PIECE
        yield b'"}, "session_id": "%b"}' % way.session.encode()

    async with client.post(f"{way.url}/jobs", data=body(), headers=way.headers) as answer:
        answer.raise_for_status()
        task: str = (await answer.json())["id"]
        return task


async def _download(client: aiohttp.ClientSession, way: Way, task: str) -> None:
    """Fetch a task with its input."""
    async with client.get(f"{way.url}/jobs/{task}", headers=way.headers) as answer:
        answer.raise_for_status()
        async for _ in answer.content.iter_any():
            pass


# How it is measured.


async def _latency(
    client: aiohttp.ClientSession,
    jobs: Sequence[tuple[Way, Way]],
    ask: Callable[[aiohttp.ClientSession, Way], Awaitable[None]],
    seconds: float,
    what: str = "",
    *,
    every: float = ASKS_EVERY,
) -> Row:
    """Have jobs ask for something every now and then, in turn both ways."""
    if len(jobs) == 1:
        every = min(every, 0.02)
    taken: dict[str, list[float]] = {name: [] for name in WAYS}
    end = time.perf_counter() + seconds

    async def work(number: int, ways: tuple[Way, Way]) -> None:
        at = time.perf_counter() + every * number / len(jobs)
        turn = number
        while at < end:
            await asyncio.sleep(max(0, at - time.perf_counter()))
            way = ways[turn % 2]
            begin = time.perf_counter()
            await ask(client, way)
            taken[way.name].append(time.perf_counter() - begin)
            turn += 1
            at += every

    await asyncio.gather(*(work(number, ways) for number, ways in enumerate(jobs)))
    return Row(what=what, jobs=len(jobs), **{name: _figures(values) for name, values in taken.items()})


def _figures(seconds: list[float]) -> Figures:
    cuts = statistics.quantiles(seconds, n=100)
    return Figures(requests=len(seconds), median=statistics.median(seconds) * 1e3, p99=cuts[98] * 1e3)


async def _throughput(
    client: aiohttp.ClientSession, jobs: Sequence[tuple[Way, Way]], way: int, seconds: float
) -> float:
    """Count what is answered when there is always another request waiting."""
    done = 0
    begin = time.perf_counter()

    async def work(ways: tuple[Way, Way]) -> None:
        nonlocal done
        while time.perf_counter() < begin + seconds:
            await _poll(client, ways[way])
            done += 1

    await asyncio.gather(*(work(ways) for ways in jobs[:CONNECTIONS]))
    return done / (time.perf_counter() - begin)


@asynccontextmanager
async def _growth(site: Site) -> AsyncIterator[Callable[[], float]]:
    """Watch how much the gateway's memory grows; yields what tells it afterwards, in MB."""
    before = most = site.memory.memory_info().rss

    async def watch() -> None:
        nonlocal most
        while True:
            most = max(most, site.memory.memory_info().rss)
            await asyncio.sleep(0.01)

    task = asyncio.create_task(watch())
    yield lambda: (most - before) / 1e6
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


def _say(text: str) -> None:
    Console(stderr=True).print(f"[dim]{text} …[/]")


def _print(report: Report) -> None:
    table = Table(title=f"What the gateway costs ({report.cpus} CPUs for client, gateway and service; ms)")
    for column in ("request", "jobs", "direct", "p99", "gateway", "p99", "added", "p99"):
        table.add_column(column, justify="left" if column == "request" else "right")
    for row in report.latency:
        numbers = (row.direct.median, row.direct.p99, row.gateway.median, row.gateway.p99, *row.added)
        table.add_row(row.what, str(row.jobs), *(f"{number:.2f}" for number in numbers))
    console = Console(width=max(Console().width, 100))
    console.print(table)
    rate, upload = report.requests_per_second, report.upload_seconds
    console.print(
        f"requests per second, {CONNECTIONS} connections: {rate['direct']:.0f} direct, {rate['gateway']:.0f} "
        f"through the gateway\n{LARGE // 1_000_000} MB submitted: {upload['direct']:.2f} s direct, "
        f"{upload['gateway']:.2f} s through the gateway, which grew by {report.upload_growth_mb:.1f} MB; "
        f"fetched: by {report.result_growth_mb:.1f} MB (it has {report.gateway_rss_mb:.0f} MB)"
    )


if __name__ == "__main__":
    sys.exit(main())
