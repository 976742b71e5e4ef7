# SPDX-License-Identifier: Apache-2.0
"""What Slurm waits for, with the gateway: the client in C, against the Python processes of an earlier tree.

    make bench-thin                    # against 6cdc013, before which hooks and steps were Python
    make bench-thin ARGS=REVISION

Both trees' hooks and job-env run in turn, in one throw-away cluster, against this tree's gateway. The memory
is that of a hundred that wait for a gateway which does not answer.
"""

from __future__ import annotations

import argparse
import os
import pwd
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import psutil
from rich.console import Console

from benchmarks import figures, processes
from benchmarks.figures import Figure
from benchmarks.processes import rounded
from qpu_slurm import config
from qpu_slurm.gateway.client import GatewayBroker
from qpu_slurm_devkit.lab import Lab

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from benchmarks.processes import Pairs
    from qpu_slurm_devkit.gateway import Gateway

CHECKOUT = Path(__file__).parents[1]
BEFORE = "6cdc013"
QPU = "ibm_fez"

_ROUNDS = 9
_WAITING = 100
_LONGEST = 120.0
_QUIET = 3.0

_PROGRAM = """#!{python}
import sys
sys.path.insert(0, "{source}")
from qpu_slurm.start import qpu_slurm
if __name__ == "__main__":
    sys.exit(qpu_slurm())
"""


class Tree(NamedTuple):
    """What Slurm runs of a tree.

    Attributes:
        prolog: The hook.
        job_env: The command for a step, without the job.
    """

    prolog: Path
    job_env: tuple[str, ...]


def measure(revision: str = BEFORE) -> Iterator[Figure]:
    """Measure this tree against another."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="qpu-bench-")))
        directory.chmod(0o755)
        lab = stack.enter_context(Lab(CHECKOUT))
        job = lab.submit("#!/bin/sh\n#SBATCH --qpu=ibm_fez\nsleep 1200\n")
        _wait(lab.emulator.sessions)
        source = _extract(revision, directory / "before")
        now, before = _this(lab, lab.config), _other(lab, source, lab.config)
        broker = GatewayBroker(config.load(lab.config))

        def start(tree: Tree) -> float:
            broker.release(job, "It was measured.")
            # As slurmctld runs it: the gateway does a hook's work for its own user only.
            return _cpu([str(tree.prolog)], _environ(lab, job), lab.cluster.slurm_user)

        def step(tree: Tree) -> float:
            asker = ["--user", str(_user(lab))] if tree is now else []
            return _cpu([*tree.job_env, str(job), *asker], {})

        beside = _gateways_share(lab, lambda: start(now)), _gateways_share(lab, lambda: start(before))
        found = processes.pairs(lambda: start(now), lambda: start(before), _ROUNDS)
        yield _figure("prolog", "CPU time of a prolog", found, beside, at_most=0.05)
        beside = _gateways_share(lab, lambda: step(now)), _gateways_share(lab, lambda: step(before))
        found = processes.pairs(lambda: step(now), lambda: step(before), _ROUNDS)
        yield _figure("step", "CPU time of a step's start", found, beside, at_most=0.2)
        with closing(socket.create_server(("127.0.0.1", 0), backlog=1024)) as silent:
            quiet = directory / "config.toml"
            url = f"http://127.0.0.1:{silent.getsockname()[1]}"
            quiet.write_text(lab.config.read_text().replace(_gateway(lab).url, url))
            yield from _memory(lab, _this(lab, quiet), _other(lab, source, quiet), job)


def _extract(revision: str, directory: Path) -> Path:
    directory.mkdir()
    argv = ["/usr/bin/git", "archive", revision, "src", "plugin"]
    archive = subprocess.run(argv, cwd=CHECKOUT, capture_output=True, check=True)
    subprocess.run(["/usr/bin/tar", "-x"], cwd=directory, input=archive.stdout, check=True)
    return directory


def _this(lab: Lab, path: Path) -> Tree:
    installed = Path(lab.cluster.settings["PrologSlurmctld"]).parent
    if path != lab.config:
        copy = path.parent / "libexec"
        copy.mkdir()
        for name in ("prolog.sh", "helper"):
            (copy / name).write_text((installed / name).read_text().replace(str(lab.config), str(path)))
            (copy / name).chmod(0o755)
        installed = copy
    return Tree(installed / "prolog.sh", (str(installed / "helper"), "--config", str(path), "job-env"))


def _other(lab: Lab, tree: Path, path: Path) -> Tree:
    program = tree / "qpu-slurm"
    program.write_text(_PROGRAM.format(python=sys.executable, source=tree / "src"))
    program.chmod(0o755)
    build = tree / path.stem / str(path.parent.name)
    build.mkdir(parents=True, exist_ok=True)
    subprocess.run(
        [
            *("make", "--silent", f"BUILD={build}", f"QPU_SLURM={program}", f"CONFIG={path}"),
            *(f"SCONTROL={lab.cluster.bin / 'scontrol'}", f"SLURM_CONF={lab.cluster.conf}"),
            str(build / "prolog.sh"),
        ],
        cwd=tree / "plugin",
        check=True,
    )
    return Tree(build / "prolog.sh", (str(program), "--config", str(path), "job-env"))


def _environ(lab: Lab, job: int) -> dict[str, str]:
    return {"SLURM_JOB_ID": str(job), "SLURM_JOB_UID": str(_user(lab)), "SPANK_QPU_SLURM_QPU": QPU}


def _user(lab: Lab) -> int:
    return pwd.getpwnam(lab.cluster.users[0]).pw_uid


def _cpu(argv: Sequence[str], environ: dict[str, str], user: str | None = None) -> float:
    user = user if os.geteuid() == 0 else None
    return processes.run(argv, env=environ, cwd=Path("/"), user=user).cpu_seconds


def _gateway(lab: Lab) -> Gateway:
    if lab.gateway is None:
        raise RuntimeError("the lab has no gateway")
    return lab.gateway


def _gateways_share(lab: Lab, run: Callable[[], float]) -> float:
    """Return the CPU seconds that the gateway, and what it starts, take for one run."""
    gateway = psutil.Process(_gateway(lab).pid)

    def seconds() -> float:
        times = gateway.cpu_times()
        return times.user + times.system + times.children_user + times.children_system

    begin = seconds()
    for _ in range(_ROUNDS):
        run()
    time.sleep(1)  # for the AdminComment, which nothing waits for
    return (seconds() - begin) / _ROUNDS


def _figure(name: str, what: str, found: Pairs, beside: tuple[float, float], *, at_most: float) -> Figure:
    mine, other = found.medians
    return Figure(
        key=f"{name}.cpu_vs_before",
        what=f"{what}, against that of {BEFORE}",
        value=found.ratio,
        at_most=at_most,
        details={
            "seconds": rounded(found.one),
            "other_seconds": rounded(found.other),
            "gateway_seconds": rounded(beside),
        },
        note=(
            f"{mine * 1e3:.1f} ms against {other * 1e3:.0f} ms. The gateway with what it starts takes "
            f"{beside[0] * 1e3:.0f} ms more, against {beside[1] * 1e3:.0f} ms."
        ),
    )


def _memory(lab: Lab, now: Tree, before: Tree, job: int) -> Iterator[Figure]:
    mine, other = _waiting(lab, now, job), _waiting(lab, before, job)
    for name, one, two in zip(("pss", "rss"), mine, other, strict=True):
        yield Figure(
            key=f"prolog.{name}_vs_before",
            what=f"{name.upper()} of {_WAITING} prologs that wait, against {BEFORE}",
            value=one / two,
            at_most=1 / 8,
            note=f"{one:.0f} MiB against {two:.0f} MiB.",
        )


def _waiting(lab: Lab, tree: Tree, job: int) -> tuple[float, float]:
    """Start a hundred prologs that get no answer; return their PSS and RSS, in MiB."""
    with ExitStack() as stack:
        hooks = []
        for _ in range(_WAITING):
            hook = stack.enter_context(
                subprocess.Popen(
                    [tree.prolog],
                    env=_environ(lab, job),
                    stdout=subprocess.DEVNULL,
                    start_new_session=True,
                    user=lab.cluster.slurm_user if os.geteuid() == 0 else None,
                )
            )
            stack.callback(os.killpg, hook.pid, 9)
            hooks.append(psutil.Process(hook.pid))
        last, since = -1, time.monotonic()
        begin = since
        # Until nothing moves any more.
        while time.monotonic() - since < _QUIET and time.monotonic() - begin < _LONGEST:
            count = sum(_ticks(process) for hook in hooks for process in _family(hook))
            if count != last:
                last, since = count, time.monotonic()
            time.sleep(0.5)
        found = [process.memory_full_info() for hook in hooks for process in _family(hook)]
        return sum(info.pss for info in found) / 2**20, sum(info.rss for info in found) / 2**20


def _family(hook: psutil.Process) -> list[psutil.Process]:
    return [hook, *hook.children(recursive=True)]


def _ticks(process: psutil.Process) -> int:
    times = process.cpu_times()
    return round((times.user + times.system) * 100)


def _wait(true: Callable[[], object]) -> None:
    deadline = time.monotonic() + _LONGEST
    while not true():
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(0.1)


def main() -> None:
    """Be the command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.thin", description=__doc__)
    parser.add_argument(
        "revision", nargs="?", default=BEFORE, help="the tree to compare with (default: %(default)s)"
    )
    found = list(measure(parser.parse_args().revision))
    console = Console(highlight=False)
    console.print(figures.table(found))
    for figure in found:
        console.print(f"{figure.key}: {figure.note}", markup=False)


if __name__ == "__main__":
    main()
