# SPDX-License-Identifier: Apache-2.0
"""`qpu-slurm demo`: the example jobs, on a throw-away cluster with an emulated quantum service."""

from __future__ import annotations

import re
import signal
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, get_args

from rich.console import Console

from qpu_slurm import config
from qpu_slurm.admin.timeline import chart, picture, text
from qpu_slurm.errors import QpuSlurmError
from qpu_slurm.journal.journal import Journal
from qpu_slurm.leases import job_history
from qpu_slurm.system.deadline import Deadline
from qpu_slurm_devkit import shell
from qpu_slurm_devkit.emulator import Emulator, EventKind
from qpu_slurm_devkit.lab import Credentials, Lab

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Sequence

    from qpu_slurm_devkit.emulator import Event

_LOOK_SECONDS = 0.25
_LONGEST_SECONDS = 180.0
_TOLD_SECONDS = 15.0

_MILESTONES = {
    EventKind.SESSION_OPENED: "session opened",
    EventKind.TASK_QUEUED: "task queued",
    EventKind.TASK_RUNNING: "task running: the QPU is locked",
    EventKind.TASK_DONE: "task done",
    EventKind.SESSION_INACTIVE: "QPU unlocked, session still open",
    EventKind.SESSION_CLOSED: "session closed",
}


_KEYS: dict[Credentials, str] = {
    "gateway": "The gateway ({gateway}) has the API key; no job ever sees it.",
    "user": "Sessions are opened with the user's own API key, which his job gets.",
    "shared": "Sessions are opened with the admin's API key, which every job gets: insecure.",
}
"""What is said of each kind of credentials."""


class Vendor(NamedTuple):
    """A kind of service that the QPUs of the demo are behind.

    Attributes:
        title: What it is called on the screen.
        has_sessions: Whether it has sessions; where it has none, a job's lease holds a gate.
    """

    title: str
    has_sessions: bool


VENDORS = {
    "ibm": Vendor("IBM Quantum Platform", has_sessions=True),
    "ibm-system": Vendor("IBM Quantum System on the premises", has_sessions=False),
}


class Workflow(NamedTuple):
    """A way to run the three tasks.

    Attributes:
        title: What it is called on the screen.
        command: What the user types, in the directory of the example jobs; it prints the jobs' ids.
    """

    title: str
    command: tuple[str, ...]


WORKFLOWS = {
    "hetjob": Workflow("One heterogeneous job", ("sbatch", "--parsable", "job_split_hetjob.sh")),
    "split": Workflow("Three chained jobs", ("bash", "submit.sh")),
    "hold": Workflow(
        "One job that holds the QPU only for its task", ("sbatch", "--parsable", "job_split_session.sh")
    ),
}


class DemoError(QpuSlurmError):
    """A job of the demo did not do what it should."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options to a parser."""
    parser.description = (
        "Start a throw-away Slurm cluster and an emulated quantum service, run the example jobs of "
        "contrib/seed on them, show what happened when, and take everything down again."
    )
    parser.add_argument(
        "workflows",
        nargs="*",
        metavar="WORKFLOW",
        help=f"what to run: {', '.join(WORKFLOWS)} (default: all)",
    )
    parser.add_argument(
        "--checkout", type=Path, default=Path(), metavar="DIR", help="the project's sources (default: here)"
    )
    parser.add_argument(
        "--task-seconds", type=float, default=2.0, metavar="S", help="how long a task runs (default: 2)"
    )
    parser.add_argument(
        "--vendor",
        choices=VENDORS,
        default="ibm",
        help="the kind of service that is emulated (default: ibm); all but ibm need the gateway",
    )
    parser.add_argument(
        "--credentials",
        choices=get_args(Credentials),
        default="gateway",
        help="whose key opens the sessions, as in config.toml (default: gateway)",
    )
    parser.add_argument(
        "--figures", type=Path, metavar="DIR", help="draw each workflow, too: DIR/WORKFLOW.svg"
    )
    parser.add_argument(
        "--shell", action="store_true", help="run nothing: open a shell as a user of the cluster instead"
    )
    parser.add_argument("--keep", action="store_true", help="leave the cluster's directory, to look at logs")


def run(arguments: argparse.Namespace) -> int:
    """Run the demo; return the exit code.

    Raises:
        QpuSlurmError: It could not be run, or a job did not do what it should.
    """
    try:
        with _stoppable():
            _run(arguments, Console(highlight=False))
    except KeyboardInterrupt:
        Console(stderr=True).print("Interrupted; everything was taken down.")
        return 130
    return 0


@contextmanager
def _stoppable() -> Iterator[None]:
    """Have SIGTERM and SIGHUP end the demo as Ctrl-C does, so that it cleans up."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _run(arguments: argparse.Namespace, console: Console) -> None:
    checkout = arguments.checkout.absolute()
    unknown = set(arguments.workflows) - set(WORKFLOWS)
    if unknown:
        raise DemoError(f"There is no workflow {unknown.pop()!r}; known are {', '.join(WORKFLOWS)}.")
    if not (checkout / "contrib" / "seed").is_dir():
        raise DemoError(f"{checkout} does not hold the project's sources; name them with --checkout.")
    vendor = VENDORS[arguments.vendor]
    if not vendor.has_sessions and arguments.credentials != "gateway":
        raise DemoError(f"--vendor {arguments.vendor} goes with --credentials gateway only.")
    emulator = Emulator(task_seconds=arguments.task_seconds)
    # Only a job that asks for the gres opens a session: transpiling holds nothing.
    lab = Lab(
        checkout,
        credentials=arguments.credentials,
        emulator=emulator,
        on_premises=emulator.backends if arguments.vendor == "ibm-system" else (),
        top='acquire_on = "gres"',
        keep_directory=arguments.keep,
    )
    started = time.monotonic()
    with emulator, console.status("starting the emulator and the cluster") as status, lab:
        version = "{}.{:02}.{}".format(*lab.cluster.version)
        seconds = time.monotonic() - started
        console.print(f"Slurm {version} and an emulated {vendor.title} are up after {seconds:.1f} s:")
        console.print("c1-c4 in partition normal, c5 with gres qpu:1 in partition quantum;", end=" ")
        console.print(f"QPUs {', '.join(emulator.backends)}.")
        console.print(_KEYS[arguments.credentials].format(gateway=lab.gateway and lab.gateway.url))
        lab.put(checkout / "contrib" / "seed")
        if arguments.shell:
            status.stop()
            shell.run(lab, console)
        else:
            runs = {}
            for name in dict.fromkeys(arguments.workflows or WORKFLOWS):
                status.update(f"waiting for the jobs: {WORKFLOWS[name].title}")
                jobs = _Jobs(lab, WORKFLOWS[name], vendor, console).run()
                runs[name] = _timeline(lab, jobs, WORKFLOWS[name].title)
            console.print()
            print(text.draw(list(runs.values())))  # noqa: T201 - it knows the terminal
            if arguments.figures:
                for name, workflow in runs.items():
                    picture.draw([workflow], [arguments.figures / f"{name}.svg"])
        status.update("taking everything down")
        left = _left(emulator, vendor)
        drained = [node for node, state in lab.cluster.node_states().items() if "drain" in state]
    what = "Sessions left open" if vendor.has_sessions else "Tasks left at the service"
    console.print(f"{what}: {left}. Nodes drained: {len(drained)}.")
    console.print("The cluster and the emulator are gone.")
    if arguments.keep:
        console.print(f"The cluster's files are in {lab.cluster.directory}.")


def _left(emulator: Emulator, vendor: Vendor) -> int:
    """Count what the jobs left at the service: open sessions, or tasks that are not deleted yet."""
    if vendor.has_sessions:
        return sum(session.state != "closed" for session in emulator.sessions())
    deadline = Deadline.after(_TOLD_SECONDS)
    while emulator.tasks() and not deadline.passed:
        time.sleep(_LOOK_SECONDS)
    return len(emulator.tasks())


def _timeline(lab: Lab, jobs: Sequence[int], title: str) -> chart.Workflow:
    """Lay out what is known of jobs that are over, once the service has told what they used."""
    with Journal(lab.journal) as journal:
        deadline = Deadline.after(_TOLD_SECONDS)
        while journal.history.unaccounted() and not deadline.passed:
            time.sleep(_LOOK_SECONDS)
        slurm = config.load(lab.config).slurm
        return chart.workflow([job_history.read(journal, slurm, job) for job in jobs], title)


class _Jobs:
    """The jobs of one workflow, from their submission to their end."""

    def __init__(self, lab: Lab, workflow: Workflow, vendor: Vendor, console: Console) -> None:
        self._lab = lab
        self._workflow = workflow
        self._vendor = vendor
        self._console = console
        self._before = len(lab.emulator.events())
        self._submitted = time.time()
        self._states: dict[str, str] = {}
        self._events: list[Event] = []

    def run(self) -> list[int]:
        """Submit them, tell what happens, wait until all are over, and return their ids."""
        command = self._workflow.command
        self._console.print(f"\n[bold]{self._workflow.title}[/bold]: {' '.join(command)}")
        submission = self._lab.run(command)
        jobs = [int(line) for line in submission.stdout.split()]
        if submission.returncode or not jobs:
            raise DemoError(f"The jobs could not be submitted: {submission.stderr.strip()}")
        self._tell(f"submitted: {', '.join(f'job {job}' for job in jobs)}")
        while self._alive(jobs):
            if time.time() > self._submitted + _LONGEST_SECONDS:
                raise DemoError(f"The jobs are not over after {_LONGEST_SECONDS:g} s.")
            time.sleep(_LOOK_SECONDS)
        for job in jobs:
            if output := self._lab.cluster.output(job).strip():
                self._console.print(
                    f"  output of job {job}:", *output.splitlines(), sep="\n    ", markup=False
                )
        if set(self._states.values()) != {"COMPLETED"}:
            raise DemoError(f"A job did not complete. What the hooks logged:\n{self._lab.hook_log}")
        return jobs

    def _alive(self, jobs: Sequence[int]) -> bool:
        """Look at the jobs and at the service, tell what is new, and return whether a job is not over."""
        ids = ",".join(map(str, jobs))
        look = ["squeue", "--noheader", "--states=all", f"--jobs={ids}", "--format=%i %T"]
        found = sorted(re.findall(r"^(\S+) (\S+)$", self._lab.run(look).stdout, re.MULTILINE))
        # Slurm first, the service then: what the service did by the time a job was over is not missed.
        news = self._lab.emulator.events()[self._before + len(self._events) :]
        for event in news:
            if event.kind in _MILESTONES:
                told = _MILESTONES[event.kind]
                # Without sessions, nothing but the gateway keeps a QPU for a job.
                told = told if self._vendor.has_sessions else told.partition(":")[0]
                self._tell(f"{told} ({event.backend})", event.time)
        self._events += news
        for job, state in found:
            if self._states.get(job) != state:
                self._tell(f"job {job} {state}")
        self._states |= dict(found)
        return not found or not _ALIVE.isdisjoint(self._states.values())

    def _tell(self, what: str, at: float | None = None) -> None:
        self._console.print(f"  {(at or time.time()) - self._submitted:6.1f} s  {what}", markup=False)


_ALIVE = {"PENDING", "CONFIGURING", "RUNNING", "COMPLETING", "SUSPENDED", "REQUEUED"}
