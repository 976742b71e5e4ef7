# SPDX-License-Identifier: Apache-2.0
"""What one gateway bears: many leases, many requests a second, and the reaper's look at all of them.

    python -m benchmarks.scale [--leases N …] [--rate R] [--seconds S] [--json FILE] [--picture FILE]

For each number of leases there is a journal that has them, and as many jobs in Slurm (a squeue that prints
them: a cluster of ten thousand jobs does not fit here). Jobs then ask through the gateway: for their tasks
and sessions, for their keys (signed with MUNGE), and they submit; Prometheus asks as well. The same requests
go directly to the emulated service, in turn, so that both ways see the same machine.

First the reaper rests, then it looks again and again. Beside that, it is counted how much CPU the gateway
takes for one request of each kind, and the reaper for one look. Everything is on the loopback interface.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Self

import aiohttp
import msgspec
import psutil
from rich.console import Console
from rich.table import Table

from benchmarks import turns
from qpu_slurm import config
from qpu_slurm.admin import pictures
from qpu_slurm.gateway import messages
from qpu_slurm.gateway.command import READY
from qpu_slurm.gateway.keys import JobKeys
from qpu_slurm.journal.journal import Journal
from qpu_slurm.journal.model import Lease, LeaseRequest
from qpu_slurm.leases.broker import Broker
from qpu_slurm.leases.comments import of_leases
from qpu_slurm.leases.reaper import Reaper
from qpu_slurm.slurm._command_line import FIELDS
from qpu_slurm.slurm.query import connect
from qpu_slurm.system import logs, munge
from qpu_slurm_devkit.emulator import Emulator

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

ACTIVE = 100
"""How many of the jobs ask for something."""

OVER = 10
"""How many leases that are over the journal has for each one that is not: a year's worth."""

_ASKED = 300
"""How many requests of each kind are counted."""

AIM = 0.05
"""Seconds that a turn of the event loop should not take."""

CONFIG = """
journal = "{directory}/journal.sqlite"
log = "{directory}/gateway.log"
[slurm]
bin = "{directory}"
munge_socket = "{directory}/munge.socket"
[gateway]
url = "http://127.0.0.1:8470"
listen = "127.0.0.1:0"
reap_every = "{reap_every}"
max_connections = 2000
max_connections_per_address = 2000
[[qpu]]
name = "ibm_fez"
endpoint = "{url}/api/v1"
iam_endpoint = "{url}"
instance = "{account.crn}"
credentials = "gateway"
key_file = "{directory}/ibm.key"
"""

SQUEUE = """\
#!/bin/sh
exec cat "{jobs}"
"""


class Phase(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured while the reaper did one thing.

    Attributes:
        leases: How many leases the journal had.
        reaper: What the reaper did.
        requests: How many requests went through the gateway.
        failed: How many were not answered well.
        direct: Milliseconds that a request takes directly: median, 99th percentile.
        gateway: Likewise through the gateway.
        peak_mib: The gateway's memory at its peak.
        cpu: Seconds of CPU that the gateway took in a second.
        turns: How many turns the event loop had.
        longest_ms: The longest one.
        over_50_ms: How many took longer than 50 ms.
    """

    leases: int
    reaper: str
    requests: int
    failed: int
    direct: tuple[float, float]
    gateway: tuple[float, float]
    peak_mib: float
    cpu: float
    turns: int
    longest_ms: float
    over_50_ms: int


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that was measured.

    Attributes:
        phases: What it is like to ask the gateway.
        costs: Milliseconds of CPU that the gateway takes for a request, by its kind and the number of leases.
        looks: Seconds of CPU that the reaper takes for a look, by the number of leases.
    """

    phases: list[Phase]
    costs: dict[str, dict[int, float]]
    looks: dict[int, float]


def main() -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description="Measure what one gateway bears.")
    parser.add_argument("--leases", type=int, nargs="+", default=[100, 1000, 10_000], metavar="N")
    parser.add_argument("--rate", type=int, default=200, help="requests a second (default: 200)")
    parser.add_argument("--seconds", type=float, default=15, help="for each measurement (default: 15)")
    parser.add_argument("--json", type=Path, default=Path("build/bench-scale.json"), metavar="FILE")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="draw how the cost grows, too")
    arguments = parser.parse_args()
    logs.configure("error", Path(os.devnull))
    report = Report(phases=[], costs={}, looks={})
    with Emulator(result_bytes=1000) as emulator:
        for leases in arguments.leases:
            with ExitStack() as stack:
                directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="qpu-bench-")))
                site = stack.enter_context(closing(Site(directory, emulator, leases)))
                _measure_all(site, report, arguments)
    _print(report)
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_bytes(msgspec.json.format(msgspec.json.encode(report)) + b"\n")
    if arguments.picture:
        draw(report, arguments.picture)
    return 0


def _measure_all(site: Site, report: Report, arguments: argparse.Namespace) -> None:
    for reaper, every in (("rests", "1h"), ("looks", "1s")):
        _say(f"{site.count} leases, the reaper {reaper}")
        with Gateway(site, every) as gateway:
            phase = asyncio.run(_measure(site, gateway, reaper, arguments))
        found = turns.read(gateway.turns)
        within = [turn.seconds for turn in found.long if gateway.begin <= turn.at <= gateway.end]
        report.phases.append(
            msgspec.structs.replace(
                phase,
                turns=found.count,
                longest_ms=max(within, default=turns.LONG) * 1000,
                over_50_ms=sum(seconds > AIM for seconds in within),
            )
        )
    _say(f"{site.count} leases, one request after the other")
    with Gateway(site, "1h") as gateway:
        for kind, cost in asyncio.run(_costs(site, gateway)).items():
            report.costs.setdefault(kind, {})[site.count] = cost
    reaper_ = Reaper(site.config, site.broker, site.journal, connect(site.config.slurm))
    taken = []
    for _ in range(5):
        begin = time.process_time()
        reaper_.run()
        taken.append(time.process_time() - begin)
    report.looks[site.count] = statistics.median(taken)


def draw(report: Report, path: Path) -> None:
    """Draw how the cost of a request, a look and the memory grow with the number of leases."""
    picture = pictures.figure(3.4)
    requests, looks, memory = picture.subplots(1, 3)
    for (kind, costs), line in zip(report.costs.items(), ("o-", "s--", "^:", "D-."), strict=False):
        requests.plot(list(costs), list(costs.values()), line, label=kind)
    requests.set(title="a request", ylabel="CPU of the gateway, ms")
    looks.plot(list(report.looks), list(report.looks.values()), "o-")
    looks.set(title="a look of the reaper", ylabel="CPU, s", yscale="log")
    for reaper, line in (("rests", "o-"), ("looks", "s--")):
        found = [phase for phase in report.phases if phase.reaper == reaper]
        label = f"the reaper {reaper}"
        memory.plot([phase.leases for phase in found], [phase.peak_mib for phase in found], line, label=label)
    memory.set(title="memory at the peak", ylabel="MiB")
    for axes in (requests, looks, memory):
        axes.set(xscale="log", xlabel="leases", xticks=list(report.looks), xticklabels=map(str, report.looks))
        axes.minorticks_off()
        axes.grid(visible=True, linewidth=0.3)
    looks.set(yticks=(0.001, 0.01, 0.1, 1), yticklabels=("0.001", "0.01", "0.1", "1"))
    for axes in (requests, memory):
        axes.set_ylim(0, 1.6 * axes.get_ylim()[1])  # room for the legend
        axes.legend(loc="upper left")
    pictures.save(picture, path)


class Site:
    """A host for a gateway: MUNGE, a journal with leases, a Slurm with their jobs."""

    def __init__(self, directory: Path, emulator: Emulator, count: int) -> None:
        self.directory, self.emulator, self.count = directory, emulator, count
        self.account = emulator.accounts[0]
        directory.chmod(0o755)
        self._munged = self._start_munge()
        key = directory / "ibm.key"
        key.touch(mode=0o600)
        key.write_text(self.account.api_key)
        self.configure("1h")
        self.config = config.load(self.path)
        self.journal = Journal(self.config.journal)
        self.broker = Broker(self.config, self.journal, settle=0)
        self.keys = JobKeys.beside(self.config.journal)
        _say(f"{count} leases, and {OVER} times as many that are over")
        request = LeaseRequest(job_id=0, user_id=os.getuid(), qpus=("ibm_fez",), seconds_left=3600)
        self.leases = [
            self.broker.acquire(msgspec.structs.replace(request, job_id=number))[0]
            for number in range(1, min(ACTIVE, count) + 1)
        ]
        self._fill()
        squeue = directory / "squeue"
        squeue.write_text(SQUEUE.format(jobs=directory / "jobs"))
        squeue.chmod(0o755)
        (directory / "jobs").write_text("".join(map(_line, self.journal.leases())))

    @property
    def path(self) -> Path:
        """The configuration."""
        return self.directory / "config.toml"

    def configure(self, reap_every: str) -> None:
        """Write the configuration, with how often the reaper looks."""
        self.path.write_text(
            CONFIG.format(
                directory=self.directory, url=self.emulator.url, account=self.account, reap_every=reap_every
            )
        )

    def _start_munge(self) -> subprocess.Popen[bytes]:
        key = self.directory / "munge.key"
        key.touch(mode=0o600)
        key.write_bytes(os.urandom(1024))
        files = [f"--{name}-file={self.directory}/munge.{name}" for name in ("key", "pid", "seed")]
        process = subprocess.Popen(
            ["/usr/sbin/munged", "--foreground", f"--socket={self.directory}/munge.socket", *files],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        while not (self.directory / "munge.socket").exists():
            time.sleep(0.05)
        return process

    def _fill(self) -> None:
        """Write leases as the broker does, without asking the service for sessions that nobody uses."""
        now = datetime.now(UTC)
        with closing(sqlite3.connect(self.config.journal)) as db, db:
            columns = [row[1] for row in db.execute("PRAGMA table_info(leases)") if row[1] != "id"]
            names = ", ".join(columns)
            first = db.execute(f"SELECT {names} FROM leases").fetchone()  # noqa: S608 - the table's own names
            model = dict(zip(columns, first, strict=True))
            marks = ", ".join("?" * len(columns))
            insert = f"INSERT INTO leases ({names}) VALUES ({marks})"  # noqa: S608 - likewise
            for number in range(ACTIVE + 1, self.count * (OVER + 1) + 1):
                over = number > self.count
                session = f"session-{number}"
                ended = _text(now - timedelta(minutes=number)) if over else None
                own = {"job_id": number, "session_id": session, "state": "released" if over else "held"}
                row = model | own | {"ended_at": ended}
                lease_id = db.execute(insert, tuple(row.values())).lastrowid
                db.execute(
                    "INSERT INTO sessions (session_id, lease_id, opened_at, ended_at, locked_seconds,"
                    " executed_seconds) VALUES (?, ?, ?, ?, ?, ?)",
                    (
                        session,
                        lease_id,
                        row["created_at"],
                        ended,
                        9.0 if over else None,
                        7.0 if over else None,
                    ),
                )
                db.executemany(
                    "INSERT INTO events (time, lease_id, what, detail) VALUES (?, ?, ?, ?)",
                    [(row["created_at"], lease_id, what, session) for what in ("intent", "held")],
                )

    def close(self) -> None:
        """Clear away."""
        self.journal.close()
        self._munged.terminate()
        self._munged.wait()


def _line(lease: Lease) -> str:
    """Print the job of a lease as squeue does."""
    values = {
        "JobID": str(lease.job_id),
        "HetJobID": "N/A",
        "ArrayJobID": str(lease.job_id),
        "ArrayTaskID": "N/A",
        "UserID": str(os.getuid()),
        "State": "RUNNING",
        "BatchFlag": "1",
        "TimeLeft": "50:00",
        "TimeLimit": "1:00:00",
        "SubmitTime": "1795563199",
        "Account": "quantum",
        "Partition": "quantum",
        "QOS": "normal",
        "Reason": "None",
        "Licenses": "ibm_fez",
        "admin_comment": of_leases([lease]).into_comment(""),
    }
    fields = (values[name].ljust(width) for name, width in FIELDS.items() if name in values)
    return "".join(fields) + "\n"


def _text(time_: datetime) -> str:
    return time_.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


class Gateway:
    """The gateway's process, whose turns are followed."""

    def __init__(self, site: Site, reap_every: str) -> None:
        site.configure(reap_every)
        self._site = site
        self.turns = site.directory / "turns.json"
        self.begin = self.end = 0.0

    def __enter__(self) -> Self:
        argv = [sys.executable, "-m", "benchmarks.turns", str(self.turns), "--config", str(self._site.path)]
        self._process = subprocess.Popen([*argv, "gateway"], stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None  # noqa: S101 - for the type checker
        self.url = self._process.stdout.readline().removeprefix(READY).strip()
        self.process = psutil.Process(self._process.pid)
        return self

    def cpu(self) -> float:
        """Return how much CPU it has taken, in seconds."""
        return sum(self.process.cpu_times()[:2])

    def peak_mib(self) -> float:
        """Return how much memory it had at most (VmHWM of proc(5))."""
        status = Path(f"/proc/{self._process.pid}/status").read_text().split()
        return int(status[status.index("VmHWM:") + 1]) / 1024

    def __exit__(self, *_: object) -> None:
        with self._process:
            self._process.terminate()


# What is asked.


class Client:
    """The jobs, and what they ask both ways."""

    def __init__(self, http: aiohttp.ClientSession, site: Site, gateway: Gateway) -> None:
        self._http, self._site, self._gateway = http, site, gateway
        self._bases = {"direct": site.emulator.url, "gateway": gateway.url}
        self._tokens: dict[tuple[str, int], dict[str, str]] = {}
        self._tasks: dict[int, str] = {}

    async def prepare(self) -> None:
        """Get each job its token and its task."""
        direct = await self._token("direct", self._site.account.api_key)
        for lease in self._site.leases:
            self._tokens["direct", lease.id] = direct | {"Service-CRN": self._site.account.crn}
            self._tokens["gateway", lease.id] = await self._token(
                "gateway", self._site.keys.key(lease).reveal()
            )
            self._tasks[lease.id] = await self.submit("gateway", lease)

    async def _token(self, way: str, key: str) -> dict[str, str]:
        form = {"grant_type": "urn:ibm:params:oauth:grant-type:apikey", "apikey": key}
        async with self._http.post(f"{self._bases[way]}/identity/token", data=form) as answer:
            return {"Authorization": f"Bearer {(await answer.json())['access_token']}"}

    async def poll(self, way: str, lease: Lease) -> None:
        """Ask for a task."""
        await self._get(way, lease, f"jobs/{self._tasks[lease.id]}?exclude_params=true")

    async def session(self, way: str, lease: Lease) -> None:
        """Ask for a session."""
        await self._get(way, lease, f"sessions/{lease.session_id}")

    async def submit(self, way: str, lease: Lease) -> str:
        """Submit a task."""
        task = {
            "program_id": "sampler",
            "backend": "ibm_fez",
            "session_id": lease.session_id,
            "params": {"pubs": [["x"]]},
        }
        headers = self._tokens[way, lease.id]
        async with self._http.post(f"{self._bases[way]}/api/v1/jobs", json=task, headers=headers) as answer:
            answer.raise_for_status()
            return str((await answer.json())["id"])

    async def keys(self, way: str, lease: Lease) -> None:
        """Ask as a step's start does; nothing is there to be asked directly."""
        if way == "direct":
            return await self.session(way, lease)
        path = messages.job_keys_path(lease.job_id)
        binding = messages.binding("GET", path)
        socket = self._site.config.slurm.munge_socket
        credential = await asyncio.to_thread(munge.encode, binding, socket=socket)
        headers = {"Authorization": f"{messages.SCHEME} {credential}"}
        async with self._http.get(self._gateway.url + path, headers=headers) as answer:
            answer.raise_for_status()
            await answer.read()
        return None

    async def scrape(self, _way: str, _lease: Lease) -> None:
        """Ask as Prometheus does."""
        async with self._http.get(f"{self._gateway.url}/metrics") as answer:
            answer.raise_for_status()
            await answer.read()

    async def _get(self, way: str, lease: Lease, path: str) -> None:
        headers = self._tokens[way, lease.id]
        async with self._http.get(f"{self._bases[way]}/api/v1/{path}", headers=headers) as answer:
            answer.raise_for_status()
            await answer.read()


async def _costs(site: Site, gateway: Gateway) -> dict[str, float]:
    """Count the CPU that the gateway takes for a request of each kind, in milliseconds."""
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(60)) as http:
        client = Client(http, site, gateway)
        await client.prepare()
        await asyncio.sleep(3)
        found = {}
        for kind, ask in {
            "task": client.poll,
            "submission": client.submit,
            "step's start": client.keys,
            "metrics": client.scrape,
        }.items():
            before = gateway.cpu()
            for number in range(_ASKED):
                await ask("gateway", site.leases[number % len(site.leases)])
            found[kind] = (gateway.cpu() - before) / _ASKED * 1e3
        return found


async def _measure(site: Site, gateway: Gateway, reaper: str, arguments: argparse.Namespace) -> Phase:
    connector, timeout = aiohttp.TCPConnector(limit=0), aiohttp.ClientTimeout(60)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as http:
        client = Client(http, site, gateway)
        await client.prepare()
        await asyncio.sleep(3)  # the first look is over
        taken: dict[str, list[float]] = {"direct": [], "gateway": []}
        failed = 0
        kinds: Sequence[Callable[[str, Lease], Coroutine[None, None, object]]] = (
            *[client.poll] * 17,
            client.submit,
            client.session,
            client.keys,
        )

        async def ask(number: int, way: str) -> None:
            nonlocal failed
            lease = site.leases[number % len(site.leases)]
            begin = time.perf_counter()
            try:
                await kinds[number % len(kinds)](way, lease)
            except aiohttp.ClientError as error:
                _say(repr(error))
                failed += 1
            taken[way].append(time.perf_counter() - begin)

        async with asyncio.TaskGroup() as group:
            gateway.begin = time.time()
            cpu = gateway.cpu()
            start, count = time.perf_counter(), round(arguments.seconds * arguments.rate)
            for number in range(count):
                await asyncio.sleep(max(0.0, start + number / arguments.rate - time.perf_counter()))
                group.create_task(ask(number, "gateway"))
                if number % 4 == 0:
                    group.create_task(ask(number // 4, "direct"))
                if number % arguments.rate == 0:
                    group.create_task(client.scrape("gateway", site.leases[0]))
        gateway.end = time.time()
        cpu = (gateway.cpu() - cpu) / (time.perf_counter() - start)
        return Phase(
            leases=site.count,
            reaper=reaper,
            requests=len(taken["gateway"]),
            failed=failed,
            direct=_figures(taken["direct"]),
            gateway=_figures(taken["gateway"]),
            peak_mib=gateway.peak_mib(),
            cpu=cpu,
            turns=0,
            longest_ms=0.0,
            over_50_ms=0,
        )


def _figures(seconds: list[float]) -> tuple[float, float]:
    return statistics.median(seconds) * 1e3, statistics.quantiles(seconds, n=100)[98] * 1e3


def _say(text: str) -> None:
    Console(stderr=True).print(f"[dim]{text} …[/]")


def _print(report: Report) -> None:
    table = Table(title="What one gateway bears (ms where nothing else is said)")
    columns = (
        "leases",
        "reaper",
        "requests",
        "failed",
        "direct",
        "p99",
        "gateway",
        "p99",
        "MiB",
        "CPU",
        "longest turn",
        "over 50",
    )
    for column in columns:
        table.add_column(column, justify="right")
    for phase in report.phases:
        numbers = (*phase.direct, *phase.gateway)
        table.add_row(
            str(phase.leases),
            phase.reaper,
            str(phase.requests),
            str(phase.failed),
            *(f"{number:.1f}" for number in numbers),
            f"{phase.peak_mib:.0f}",
            f"{phase.cpu:.0%}",
            f"{phase.longest_ms:.0f}",
            str(phase.over_50_ms),
        )
    console = Console(width=max(Console().width, 110))
    console.print(table)
    for kind, costs in report.costs.items():
        console.print(f"{kind}: " + ", ".join(f"{ms:.2f} ms ({leases})" for leases, ms in costs.items()))
    console.print("look: " + ", ".join(f"{look:.3f} s ({leases})" for leases, look in report.looks.items()))


if __name__ == "__main__":
    sys.exit(main())
