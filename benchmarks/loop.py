# SPDX-License-Identifier: Apache-2.0
"""Loops: how long a QPU is locked for what it executes, while a program submits one task after the other.

The emulated service is as far away as a real one: each request takes a while, half of it on its way there.
Unmodified programs of qiskit-ibm-runtime and of qrmi run a loop, and so does `qpu_slurm.execute`; each as a
job's step does, once through the gateway and once without it, in turn.

    python -m benchmarks loop        the keys of docs/performance.md, at 0.15 s for each request
    python -m benchmarks.loop        the table: at 0.05, 0.15 and 0.3 s, tasks of 0.3, 1 and 5 s

*Locked* is the time from the start of the first task to the end of the last one: what a session that lives
for the loop is billed for. Requests are those that reach the service, from the program's start to its end.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Self

import aiohttp
import msgspec
from rich.console import Console
from rich.table import Table

from benchmarks.figures import Figure
from benchmarks.gateway import Site
from benchmarks.processes import rounded
from benchmarks.step import HOURS, QPU, qpu_of
from qpu_slurm import providers
from qpu_slurm.admin.timeline import picture
from qpu_slurm.admin.timeline.chart import Bar, JobRows, Kind, Row, Workflow
from qpu_slurm.job import variables
from qpu_slurm.system import logs
from qpu_slurm_devkit.emulator import Emulator, EventKind, Fault

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from qpu_slurm_devkit.emulator import Event, RequestRecord

FAR = 0.15
"""Seconds that a request to the service takes, a usual distance."""

TASKS = 10
_ROUNDS = 3
_LONGEST_SECONDS = 300
_LOOPS_AT_ONCE = 200
_LOOP_TASKS = 5

DISTANCES = (0.05, 0.15, 0.3)
DURATIONS = (0.3, 1.0, 5.0)

_CIRCUIT = """
import os, sys
from qiskit import QuantumCircuit, generate_preset_pass_manager
from qiskit.circuit import Parameter
from qiskit.quantum_info import SparsePauliOp
theta = Parameter("theta")
circuit = QuantumCircuit(2)
circuit.ry(theta, 0)
circuit.cx(0, 1)
observable = SparsePauliOp(["ZZ", "XX"])
def fit(backend):
    isa = generate_preset_pass_manager(optimization_level=1, backend=backend).run(circuit)
    return isa, observable.apply_layout(isa.layout)
"""

PROGRAMS = {
    "runtime": _CIRCUIT
    + """
from qiskit_ibm_runtime import EstimatorV2, QiskitRuntimeService, Session
service = QiskitRuntimeService()
backend = service.backend("ibm_fez")
isa, observables = fit(backend)
session = Session.from_id(os.environ["ibm_fez_QRMI_JOB_ACQUISITION_TOKEN"], service=service)
estimator = EstimatorV2(mode=session)
for number in range(int(sys.argv[1])):
    estimator.run([(isa, observables, [0.1 * number])]).result()
""",
    "qrmi": _CIRCUIT
    + """
from qiskit_ibm_runtime.fake_provider import FakeFez
from qrmi import QuantumResource, ResourceType
from qrmi.primitives.ibm import EstimatorV2
isa, observables = fit(FakeFez())
estimator = EstimatorV2(QuantumResource("ibm_fez", ResourceType.IBMQuantumComputeService))
for number in range(int(sys.argv[1])):
    estimator.run([(isa, observables, [0.1 * number])]).result()
""",
    "execute": _CIRCUIT
    + """
import qpu_slurm
from qiskit_ibm_runtime.fake_provider import FakeFez
isa, observables = fit(FakeFez())
for number in range(int(sys.argv[1])):
    qpu_slurm.execute([(isa, observables, [0.1 * number])], program="estimator")
""",
    # As IBM's documentation begins: everything from the service, and a session that the program opens.
    "first": _CIRCUIT
    + """
from qiskit_ibm_runtime import EstimatorV2, QiskitRuntimeService, Session
service = QiskitRuntimeService()
backend = service.backend("ibm_fez")
isa, observables = fit(backend)
with Session(backend=backend) as session:
    EstimatorV2(mode=session).run([(isa, observables, [0.1])]).result()
""",
}
"""The programs, by what they are written for; each is told how many tasks to submit."""

WAYS = ("direct", "gateway")

PICTURE = Path(__file__).parents[1] / "build" / "loop.svg"
"""Where some iterations of a loop are drawn, for docs/performance.md."""

_DRAWN = 3
"""How many iterations that is."""


class Loop(NamedTuple):
    """A program's run, as the service saw it.

    Attributes:
        events: What happened to its tasks.
        requests: What the service was asked, from the program's start to its end.
        started: When the program's process was started, in seconds since the epoch.
    """

    events: list[Event]
    requests: list[RequestRecord]
    started: float

    @property
    def locked(self) -> float:
        """Seconds from the first task's start to the last one's end."""
        return self.at(EventKind.TASK_DONE)[-1] - self.at(EventKind.TASK_RUNNING)[0]

    @property
    def executing(self) -> float:
        """Seconds that a task ran."""
        return sum(self.at(EventKind.TASK_DONE)) - sum(self.at(EventKind.TASK_RUNNING))

    @property
    def ratio(self) -> float:
        """Locked over executing."""
        return self.locked / self.executing

    @property
    def idle(self) -> float:
        """Seconds that the QPU was locked and executed nothing, for each task but the last."""
        return (self.locked - self.executing) / max(1, len(self.at(EventKind.TASK_DONE)) - 1)

    @property
    def first_task(self) -> float:
        """Seconds from the process's start to the first submission."""
        return self.at(EventKind.TASK_QUEUED)[0] - self.started

    def at(self, kind: EventKind) -> list[float]:
        """Return the times at which something happened to its tasks."""
        return [event.time for event in self.events if event.kind is kind]


class Stand:
    """A service that is far away, and the two ways of a job to it.

    Args:
        task_seconds: How long a task runs.
        distance: Seconds that each request to the service takes.
    """

    def __init__(self, task_seconds: float, distance: float = FAR) -> None:
        self._emulator = Emulator(task_seconds, interactive_ttl=HOURS, idle_ttl=HOURS, backends=(QPU,))
        self._distance = distance
        self._numbers = itertools.count(1)
        self._exit = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="qpu-bench-")))
            stack.enter_context(self._emulator)
            self._site = stack.enter_context(Site(self._directory, self._emulator))
            self._emulator.inject(
                Fault(path="*", times=None, delay=self._distance / 2, late=self._distance / 2)
            )
            self._exit = stack.pop_all()
        for way in WAYS:  # the first runs read programs from disk, and the emulator imports Qiskit
            self.run("runtime", way, 1)
        return self

    def __exit__(self, *_: object) -> None:
        self._exit.close()

    def run(self, program: str, way: str, tasks: int = TASKS) -> Loop:
        """Run a program in a job of its own.

        Args:
            program: See `PROGRAMS`.
            way: See `WAYS`.
            tasks: How many tasks it is to submit.
        """
        site = self._site
        lease = site.lease(next(self._numbers))
        environ = self._direct(lease.session_id) if way == "direct" else site.environ(lease)
        inherited = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        events, asked = len(self._emulator.events()), len(self._emulator.requests())
        started = time.time()
        subprocess.run(
            [sys.executable, "-W", "ignore", "-c", PROGRAMS[program], str(tasks)],
            env=inherited | environ | {"SLURM_JOB_ID": str(lease.job_id), "TMPDIR": str(self._directory)},
            cwd=self._directory,
            check=True,
            timeout=_LONGEST_SECONDS,
        )
        loop = Loop(self._emulator.events()[events:], self._emulator.requests()[asked:], started)
        for session in {event.session_id for event in loop.events} | {lease.session_id}:
            self._end(session or "")
        return loop

    def _direct(self, session_id: str | None) -> dict[str, str]:
        qpu = qpu_of(self._emulator, self._emulator.accounts[0])
        return variables.to_environ([msgspec.structs.replace(qpu, session_id=session_id, hold="job")])

    def _end(self, session_id: str) -> None:
        """Free the QPU for the next run's session."""
        qpu = qpu_of(self._emulator, self._emulator.accounts[0])
        providers.connect(qpu.access()).cancel_session(session_id)


def pair(stand: Stand, program: str, tasks: int = TASKS, rounds: int = _ROUNDS) -> dict[str, list[Loop]]:
    """Run a program both ways in turn."""
    loops: dict[str, list[Loop]] = {way: [] for way in WAYS}
    for _ in range(rounds):
        for way in WAYS:
            loops[way].append(stand.run(program, way, tasks))
    return loops


def measure() -> Iterator[Figure]:
    """Measure what docs/performance.md shows."""
    logs.configure("error")
    with Stand(1.0) as stand:
        runtime = pair(stand, "runtime")
        execute = pair(stand, "execute")
        qrmi = pair(stand, "qrmi")
        first = pair(stand, "first")
    draw({way: runtime[way][-1] for way in WAYS}, PICTURE)
    for program, loops, reach in (("runtime", runtime, 1.2), ("execute", execute, 1.2)):
        for way in WAYS:
            aim = {("runtime", "direct"): None, ("execute", "direct"): 1.25}.get((program, way), reach)
            yield Figure(
                key=f"loop.{program}_{way}",
                what=f"QPU time locked over executing, loop of {program}, {_WAY[way]}",
                value=_median(loop.ratio for loop in loops[way]),
                at_most=aim,
                details=_details(loops[way]),
                note=f"{TASKS} tasks of 1 s, {FAR} s for each request to the service. "
                f"{_requests(loops[way]):.1f} requests for each task.",
            )
    yield Figure(
        key="loop.qrmi_gateway",
        what="idle time of a loop of qrmi's primitives, gateway against none",
        value=_ratio(qrmi, lambda loop: loop.idle),
        at_most=0.5,
        details={way: _details(qrmi[way]) for way in WAYS},
        note=f"{_median(loop.idle for loop in qrmi['gateway']):.2f} s against "
        f"{_median(loop.idle for loop in qrmi['direct']):.2f} s a task.",
    )
    yield Figure(
        key="loop.upstream_requests",
        what="requests to the service, gateway against none, the most of the three loops",
        value=max(_ratio(loops, lambda loop: len(loop.requests)) for loops in (runtime, execute, qrmi)),
        at_most=1.0,
        details={
            name: {way: [len(loop.requests) for loop in loops[way]] for way in WAYS}
            for name, loops in (("runtime", runtime), ("execute", execute), ("qrmi", qrmi))
        },
    )
    yield Figure(
        key="first_task.gateway_vs_direct",
        what="process start to first submission, unmodified program, gateway against none",
        value=_ratio(first, lambda loop: loop.first_task),
        at_most=0.6,
        details={way: rounded(loop.first_task for loop in first[way]) for way in WAYS},
        note=f"{_median(loop.first_task for loop in first['gateway']):.2f} s against "
        f"{_median(loop.first_task for loop in first['direct']):.2f} s, most of it importing Qiskit.",
    )
    with Stand(0.3) as stand:
        short = pair(stand, "runtime")
    yield Figure(
        key="loop.short",
        what="locked time of a loop with tasks of 0.3 s, gateway against none",
        value=_ratio(short, lambda loop: loop.locked),
        at_most=0.6,
        details={way: _details(short[way]) for way in WAYS},
    )
    yield Figure(
        key="gateway.memory_mib",
        what=f"the gateway's memory, {_LOOPS_AT_ONCE} loops at once",
        value=_memory_mib(),
        at_most=150,
        unit="MiB",
    )


def draw(loops: Mapping[str, Loop], path: Path) -> None:
    """Draw the last iterations of a loop, each way, as `qpu-slurm timeline` does."""
    path.parent.mkdir(exist_ok=True)
    picture.draw([_drawn(loop, _WAY[way]) for way, loop in loops.items()], [path])


def _drawn(loop: Loop, label: str) -> Workflow:
    """Lay out the last iterations: each is a task, and what the QPU waits before it."""
    begins, ends = loop.at(EventKind.TASK_RUNNING)[-_DRAWN:], loop.at(EventKind.TASK_DONE)[-_DRAWN - 1 :]
    zero = ends[0]
    tasks = list(zip(begins, ends[1:], strict=True))
    bars = [Bar(kind=Kind.IDLE, begin=0.0, end=ends[-1] - zero)]
    bars += [Bar(kind=Kind.EXECUTING, begin=begin - zero, end=end - zero) for begin, end in tasks]
    executed = sum(end - begin for begin, end in tasks)
    row = Row(label=f"{QPU}: locked", bars=tuple(bars), locks=True)
    return Workflow(
        label=label,
        submitted_at=datetime.fromtimestamp(zero, UTC),
        jobs=(JobRows(job_id=0, title="qiskit-ibm-runtime's EstimatorV2", rows=(row,)),),
        seconds=ends[-1] - zero,
        locked_seconds=ends[-1] - zero,
        executed_seconds=executed,
        untold=0,
    )


_WAY = {"direct": "no gateway", "gateway": "through the gateway"}


def _median(values: Iterable[float]) -> float:
    return statistics.median(values)


def _ratio(loops: Mapping[str, list[Loop]], value: Callable[[Loop], float]) -> float:
    pairs = zip(loops["gateway"], loops["direct"], strict=True)
    return statistics.median(value(one) / value(other) for one, other in pairs)


def _requests(loops: list[Loop]) -> float:
    return statistics.median(len(loop.requests) for loop in loops) / TASKS


def _details(loops: list[Loop]) -> dict[str, object]:
    return {
        "locked_seconds": rounded(loop.locked for loop in loops),
        "executing_seconds": rounded(loop.executing for loop in loops),
        "requests": [dict(_kinds(loop)) for loop in loops],
    }


def _kinds(loop: Loop) -> Counter[str]:
    """Count what the service was asked, by kind."""
    return Counter(f"{request.method} {_kind(request.path)}" for request in loop.requests)


_SHORT = 15
"""Characters of a path's part that is no id."""


def _kind(path: str) -> str:
    return "/".join("ID" if len(part) > _SHORT else part for part in path.split("/"))


def _memory_mib() -> float:
    """Have many jobs loop at once through one gateway; return its memory."""
    emulator = Emulator(0.02, interactive_ttl=0.01, idle_ttl=HOURS, backends=(QPU,), result_bytes=100_000)
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="qpu-bench-")))
        stack.enter_context(emulator)
        site = stack.enter_context(Site(directory, emulator))
        return asyncio.run(_many(site))


async def _many(site: Site) -> float:
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(120)) as client:
        leases = [site.lease(number) for number in range(1, _LOOPS_AT_ONCE + 1)]

        async def work(number: int) -> None:
            lease = leases[number]
            form = {
                "grant_type": "urn:ibm:params:oauth:grant-type:apikey",
                "apikey": site.keys.key(lease).reveal(),
            }
            async with client.post(f"{site.url}/identity/token", data=form) as answer:
                token = (await answer.json())["access_token"]
            headers, api = {"Authorization": f"Bearer {token}"}, f"{site.url}/api/v1"
            submission = {"program_id": "sampler", "backend": QPU, "session_id": lease.session_id}
            for _ in range(_LOOP_TASKS):
                body = submission | {"params": {"pubs": [["x"]]}}
                async with client.post(f"{api}/jobs", json=body, headers=headers) as answer:
                    task = (await answer.json())["id"]
                status = ""
                while status != "Completed":
                    await asyncio.sleep(0.1)
                    url = f"{api}/jobs/{task}?exclude_params=true"
                    async with client.get(url, headers=headers) as answer:
                        status = (await answer.json())["status"]
                async with client.get(f"{api}/jobs/{task}/results", headers=headers) as answer:
                    await answer.read()

        most = 0.0
        loops = asyncio.gather(*(work(number) for number in range(_LOOPS_AT_ONCE)))
        while not loops.done():
            most = max(most, site.memory.memory_info().rss / 2**20)
            await asyncio.wait({asyncio.ensure_future(asyncio.shield(loops))}, timeout=0.05)
        await loops
        return most


def main() -> None:
    """Print the table of all distances and durations."""
    logs.configure("error")
    table = Table(title="QPU time locked over executing")
    for column in ("each request", "task", *(f"{program}, {way}" for program in _LOOPS for way in WAYS)):
        table.add_column(column, justify="right")
    for distance, seconds in itertools.product(DISTANCES, DURATIONS):
        tasks = TASKS if seconds <= 1 else TASKS // 2
        with Stand(seconds, distance) as stand:
            cells = [f"{stand.run(program, way, tasks).ratio:.2f}" for program in _LOOPS for way in WAYS]
        table.add_row(f"{distance:g} s", f"{seconds:g} s", *cells)
    Console(width=110).print(table)


_LOOPS = ("runtime", "qrmi", "execute")


if __name__ == "__main__":
    main()
