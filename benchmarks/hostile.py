# SPDX-License-Identifier: Apache-2.0
"""What a hostile client costs the gateway: CPU time for each byte, and the longest turn of the event loop.

    python -m benchmarks.hostile [--bodies N] [--seed N] [--json FILE]

- scan: submissions of 64 KiB, generated to be as much work as possible, and an ordinary one of that size. The
  figure is a ratio of CPU times, so a busy machine does not change it. At most 5 is the aim.
- turns: a gateway in this process gets requests of every kind that is much work for few bytes, each as large
  as it may be. The figure is the CPU time of the longest turn of its event loop. At most 50 ms is the aim.

Prints two tables, writes build/bench-hostile.json, and exits with 1 if an aim is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import socket
import sys
import tempfile
import threading
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import requests
from rich.console import Console
from rich.table import Table

from benchmarks.gateway import Site
from qpu_slurm.gateway import server
from qpu_slurm.gateway.ibm.json_scan import MAX_DEPTH, MalformedError, Scanner
from qpu_slurm.system import logs
from qpu_slurm_devkit.emulator import Emulator

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

SIZE = 1 << 16
BODIES = 10_000
MOST_RATIO = 5.0
MOST_TURN_MS = 50.0

_AGAIN = 20
"""How many of the slowest bodies are measured again: once may be slow by chance."""

_ROUNDS = 15
_SECONDS = 30.0

# What a body is made of: balanced, so that the scanner has to go through all of it.
_UNITS = (
    *(b"[]", b"{}", b"[[]]", b'"",', b'"a",', b'"!",', b'"[",', b'"\\"",', b'"\\\\",', b'["!"]', b'["[!"]'),
    *(
        b'{"a":"]"}',
        b"1,",
        b"1.5e-3,",
        b" ",
        b"\n",
        b"null,",
        b'"\xce\xa8",',
        b'"q[0];\\n",',
        b'"' + b"x" * 40 + b'",',
    ),
)
_DEEP = b"[" * (MAX_DEPTH - 2) + b"]" * (MAX_DEPTH - 2)
_KEYS = ("params", "tags", "cost", "log_level", "private", "calibration_id", "runtime", "program_id")


class Ratio(NamedTuple):
    """What the worst body costs.

    Attributes:
        ordinary_ms: CPU time of an ordinary one.
        worst_ms: CPU time of the worst.
        ratio: How many times as much that is.
        worst: What the worst begins with.
    """

    ordinary_ms: float
    worst_ms: float
    ratio: float
    worst: str


class Turn(NamedTuple):
    """The longest turn of the event loop while something was sent."""

    what: str
    cpu_ms: float


def main() -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description="Measure what a hostile client costs the gateway.")
    parser.add_argument("--bodies", type=int, default=BODIES, help=f"(default: {BODIES})")
    parser.add_argument("--seed", type=int, default=0, help="of the generated bodies (default: 0)")
    parser.add_argument("--json", type=Path, default=Path("build/bench-hostile.json"), metavar="FILE")
    arguments = parser.parse_args()
    logs.configure("error")
    ratio = _scan(random.Random(arguments.seed), arguments.bodies)  # noqa: S311 - no secret
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="qpu-bench-")))
        site = Site(directory, stack.enter_context(Emulator()))
        turns = _turns(site)
    _print(ratio, turns)
    report = {"scan": ratio._asdict(), "turns": [turn._asdict() for turn in turns]}
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_bytes(msgspec.json.format(msgspec.json.encode(report)) + b"\n")
    return int(ratio.ratio > MOST_RATIO or any(turn.cpu_ms > MOST_TURN_MS for turn in turns))


# Bodies.


def _ordinary() -> bytes:
    """Return a submission as task_runner writes it: a circuit in OpenQASM 3, and values of its parameters."""
    source = random.Random(1)  # noqa: S311 - no secret
    gates = "".join(
        f"rz({source.random():.15f}) q[{n % 156}];\ncx q[{n % 156}], q[{n % 155}];\n" for n in range(1200)
    )
    pub = [f'OPENQASM 3.0;\ninclude "stdgates.inc";\n{gates}', [source.random() for _ in range(320)], 1000]
    return _body(json.dumps({"pubs": [pub], "version": 2}).encode().ljust(SIZE - 200))


def _body(params: bytes, session: str = "x", others: Mapping[str, bytes] = MappingProxyType({})) -> bytes:
    head = (
        b'{"program_id": "sampler", "backend": "ibm_fez", "session_id": "%b", "params": ' % session.encode()
    )
    return (
        head
        + params
        + b"".join(b', "%b": %b' % (name.encode(), value) for name, value in others.items())
        + b"}"
    )


def _generated(source: random.Random) -> bytes:
    """Return a body that is made of a few units, over and over again, in one value or in several."""
    some = source.sample(_UNITS, source.randint(1, 4))
    if source.random() < 0.2:  # noqa: PLR2004 - a fifth of them
        some.append(_DEEP)
    pattern = b"".join(source.choices(some, k=source.randint(1, 8)))
    depth = source.choice([0, 0, 1, 8, MAX_DEPTH // 2])
    names = _KEYS[: source.choice([1, 1, 1, 2, 4, 8])]
    room = (SIZE - 300) // len(names) - 2 * depth
    filling = b"[" * depth + b"[" + pattern * max(1, room // len(pattern)) + b"0]" + b"]" * depth
    return _body(filling, others=dict.fromkeys(names[1:], filling))


def _scan(source: random.Random, bodies: int) -> Ratio:
    ordinary = min(_cost(_ordinary()) for _ in range(_ROUNDS))
    costs: list[tuple[float, bytes]] = []
    for _ in range(bodies):
        body = _generated(source)
        costs.append((_cost(body), body))
        if len(costs) > 2 * _AGAIN:
            costs = sorted(costs, reverse=True)[:_AGAIN]
    worst, body = max((min(_cost(body) for _ in range(_ROUNDS)), body) for _, body in costs)
    ordinary = min(ordinary, *(_cost(_ordinary()) for _ in range(_ROUNDS)))
    return Ratio(ordinary * 1e3, worst * 1e3, worst / ordinary, repr(body[78:150]))


def _cost(body: bytes) -> float:
    """Return the CPU seconds that a body takes, as it comes and goes through the gateway."""
    scanner = Scanner(("backend", "session_id"))
    begin = time.thread_time()
    with suppress(MalformedError):
        scanner.feed(body)
        scanner.finish()
    return time.thread_time() - begin


# Turns.


class _Turns:
    """Measures the callbacks of this thread's event loop."""

    def __init__(self) -> None:
        self.longest = 0.0

    def watch(self) -> None:
        run = asyncio.Handle._run  # noqa: SLF001 - there is no other way to see each turn

        def measured(handle: asyncio.Handle) -> None:
            begin = time.thread_time()
            run(handle)
            self.longest = max(self.longest, time.thread_time() - begin)

        asyncio.Handle._run = measured  # type: ignore[assignment,method-assign]  # noqa: SLF001 - likewise


def _turns(site: Site) -> list[Turn]:
    """Serve in this thread, and have another send what is much work."""
    lease = site.lease(1)
    found: list[Turn] = []
    watched = _Turns()

    async def serve() -> None:
        stop, ready = asyncio.Event(), asyncio.Event()
        urls: list[str] = []

        def announce(url: str) -> None:
            urls.append(url)
            ready.set()

        serving = asyncio.create_task(server.serve(site.config, stop=stop, announce=announce))
        await ready.wait()
        client = _Client(urls[0], site.keys.key(lease).reveal(), lease.session_id or "")
        await asyncio.to_thread(client.log_in)
        for what, request in client.requests():
            watched.longest = 0.0
            await asyncio.to_thread(client.send, request)
            found.append(Turn(what, watched.longest * 1e3))
        stop.set()
        await serving

    watched.watch()
    asyncio.run(serve())
    return found


class _Client:
    """A job that means no good."""

    def __init__(self, url: str, key: str, session: str) -> None:
        self._url = url
        self._key = key
        self._session = session
        self._token = b""

    def log_in(self) -> None:
        form = {"grant_type": "urn:ibm:params:oauth:grant-type:apikey", "apikey": self._key}
        answer = requests.post(f"{self._url}/identity/token", data=form, timeout=_SECONDS)
        self._token = answer.json()["access_token"].encode()

    def requests(self) -> Iterator[tuple[str, bytes]]:
        """List what is sent, and what to call it."""
        tower = b"[" * 70 + b"]" * 70 + b","
        for name, unit in (("brackets", b"[]"), ("towers of brackets", tower), ("strings", b'["!"]')):
            body = _body(b"[" + unit * (SIZE // len(unit) - 10) + b"0]", self._session)
            yield f"a submission of {name}, 64 KiB", self._post(b"/api/v1/jobs", body)
            body = _body(b"[" + unit * ((1 << 22) // len(unit)) + b"0]", self._session)
            yield f"a submission of {name}, 4 MiB", self._post(b"/api/v1/jobs", body)
        chunks = b"1\r\n[\r\n" * 90 + b"1\r\n]\r\n" * 90
        head = self._head(b"POST", b"/api/v1/jobs") + b"Transfer-Encoding: chunked\r\n\r\n"
        begin = b'd\r\n{"params": [0\r\n'
        yield "a submission in pieces of a byte, 1 MiB", head + begin + (b"2\r\n,0\r\n" + chunks) * 970
        for path in (b"/api/v1/sessions", b"/identity/token", b"/qpu-slurm/v1/leases"):
            for name, body in (("brackets", b"[" * (SIZE - 1)), ("form fields", b"a&" * (SIZE // 2 - 1))):
                yield f"{path.decode()} with {name}, 64 KiB", self._post(path, body)
        yield "requests without a pause, 1 MiB", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 38_000
        lines = b"".join(b"A%d: %b\r\n" % (number, b"x" * 60) for number in range(120))
        yield "long heads, 1 MiB", (b"GET / HTTP/1.1\r\nHost: x\r\n" + lines + b"\r\n") * 130
        yield "a head without an end, 1 MiB", b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 170_000
        query = b"&".join(b"a=%d" % number for number in range(1500))
        long = self._head(b"GET", b"/api/v1/jobs?" + query[:7000]) + b"\r\n"
        yield "long queries, 1 MiB", long * 130

    def _head(self, method: bytes, path: bytes) -> bytes:
        return b"%b %b HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %b\r\n" % (method, path, self._token)

    def _post(self, path: bytes, body: bytes) -> bytes:
        return self._head(b"POST", path) + b"Content-Length: %d\r\n\r\n" % len(body) + body

    def send(self, request: bytes) -> None:
        """Send something, and wait until the gateway has no more to say."""
        host, port = self._url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=_SECONDS) as connection:
            reader = threading.Thread(target=_read, args=(connection,))
            reader.start()
            with suppress(OSError):  # refused before its end
                connection.sendall(request)
                connection.shutdown(socket.SHUT_WR)
            reader.join()


def _read(connection: socket.socket) -> None:
    with suppress(OSError):
        while connection.recv(1 << 16):
            pass


def _print(ratio: Ratio, turns: list[Turn]) -> None:
    console = Console(width=max(Console().width, 100))
    table = Table(title="Submissions of 64 KiB, CPU time")
    for column in ("ordinary, ms", "worst, ms", "ratio", "the worst one's values begin"):
        table.add_column(column)
    table.add_row(f"{ratio.ordinary_ms:.2f}", f"{ratio.worst_ms:.2f}", f"{ratio.ratio:.1f}", ratio.worst)
    console.print(table)
    table = Table(title="The longest turn of the event loop, CPU time")
    table.add_column("while a client sends")
    table.add_column("ms", justify="right")
    for turn in turns:
        table.add_row(turn.what, f"{turn.cpu_ms:.1f}")
    console.print(table)


if __name__ == "__main__":
    sys.exit(main())
