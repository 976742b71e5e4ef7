# SPDX-License-Identifier: Apache-2.0
"""Many jobs of one tree at once, on a throw-away cluster: `storm` runs it with each tree's own interpreter.

    python storm_run.py CHECKOUT '{"jobs": 100, "delay": 0.3}'

It imports nothing of this package, since the other tree's may be another one. It prints what it saw as JSON.
"""

from __future__ import annotations

import json
import sys
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from qpu_slurm_devkit.cluster import Node
from qpu_slurm_devkit.emulator import Fault
from qpu_slurm_devkit.lab import Lab

_CPUS = 4
"""What a node of the throw-away cluster claims to have."""

_LONGEST_SECONDS = 1500
_LOOK = 0.1
_ASK_SLURM = 5.0

_asked = [0.0]
"""When slurmctld was asked, which has other things to do."""

_SCRIPT = """\
#!/bin/sh
#SBATCH --qpu={qpu} --array=1-{jobs} --output=/dev/null --time=60 --hold
touch "$HOME/started/$SLURM_ARRAY_TASK_ID"
exec sleep {seconds}
"""


def main(checkout: str, options: str) -> None:
    """Start many jobs at once, and end them at once."""
    wanted: dict[str, Any] = {"jobs": 100, "at_once": 100, "delay": 0.3, "seconds": 3600, "slurm_delay": 0}
    wanted |= json.loads(options)
    at_once = -(-wanted["at_once"] // _CPUS)
    settings = {"PartitionName": f"DEFAULT OverSubscribe=FORCE:{at_once}", "MaxArraySize": "2001"}
    with ExitStack() as stack:
        lab = stack.enter_context(Lab(Path(checkout), nodes=(Node("c1", "normal"),), settings=settings))
        lab.emulator.inject(Fault(path="*", delay=wanted["delay"], times=None))
        print(json.dumps(_storm(lab, wanted)))  # noqa: T201 - its answer


def _storm(lab: Lab, wanted: dict[str, Any]) -> dict[str, Any]:
    jobs, qpu = wanted["jobs"], "ibm_fez"
    started = lab.cluster.home() / "started"
    lab.run(["/bin/mkdir", str(started)])
    # The token, and all else that a first job brings along, is not part of it.
    first = lab.submit(f"#!/bin/sh\n#SBATCH --qpu={qpu} --output=/dev/null\ntrue\n")
    lab.wait(first)
    _until(lambda: not _open_sessions(lab))
    opened = len(lab.emulator.sessions())

    array = lab.submit(_SCRIPT.format(qpu=qpu, jobs=jobs, seconds=wanted["seconds"]))
    memory = {"rss_mib": 0.0, "pss_mib": 0.0, "hooks": 0}
    begin = time.monotonic()
    _scontrol(lab, "release", str(array))
    _until(lambda: _all_started(lab, started, jobs, memory) or _none_waits(lab, array))
    running = time.monotonic()
    seen: dict[str, Any] = {"start_seconds": running - begin, "memory": memory}
    if wanted["seconds"] >= 600:  # noqa: PLR2004 - they do not end by themselves
        lab.cluster.run([str(lab.cluster.bin / "scancel"), str(array)], timeout=_LONGEST_SECONDS)
    _until(lambda: not _open_sessions(lab))
    seen["end_seconds"] = time.monotonic() - running
    states = _jobs(lab, array)
    seen["failed"] = sum(job["JobState"] in {"FAILED", "NODE_FAIL", "TIMEOUT"} for job in states)
    seen["requeued"] = sum(job["Restarts"] != "0" for job in states)
    seen["sessions_left"] = len(_open_sessions(lab))
    seen["sessions_in_vain"] = len(lab.emulator.sessions()) - opened - jobs
    return seen


def _all_started(lab: Lab, started: Path, jobs: int, memory: dict[str, float]) -> bool:
    now = _hooks_memory(lab)
    if now["rss_mib"] > memory["rss_mib"]:
        memory |= now
    return sum(1 for _ in started.iterdir()) >= jobs


def _none_waits(lab: Lab, array: int) -> bool:
    """Ask whether all have run that ever will: one whose batch script fails at its start leaves no trace."""
    argv = [str(lab.cluster.bin / "squeue"), "--noheader", "--array", f"--jobs={array}", "--format=%T"]
    if time.monotonic() - _asked[-1] < _ASK_SLURM:
        return False
    _asked.append(time.monotonic())
    done = lab.cluster.run(argv, timeout=120)
    return not done.returncode and not {"PENDING", "CONFIGURING"} & set(done.stdout.split())


def _open_sessions(lab: Lab) -> list[str]:
    return [session.id for session in lab.emulator.sessions() if session.state != "closed"]


def _scontrol(lab: Lab, *arguments: str) -> str:
    return lab.cluster.run(
        [str(lab.cluster.bin / "scontrol"), *arguments], user=lab.cluster.slurm_user, timeout=120
    ).stdout


def _jobs(lab: Lab, array: int) -> list[dict[str, str]]:
    """Read what became of an array's elements, once slurmctld has time to answer."""
    lines: list[str] = []
    for _ in range(10):
        lines = _scontrol(lab, "show", "job", "--oneliner", str(array)).splitlines()
        if lines:
            break
        time.sleep(2)
    found = []
    for line in lines:
        fields = dict(word.split("=", 1) for word in line.split() if "=" in word)
        found.append({name: fields.get(name, "") for name in ("JobId", "JobState", "Restarts")})
    return found


def _until(true: Any) -> None:  # noqa: ANN401 - a function without arguments
    deadline = time.monotonic() + _LONGEST_SECONDS
    while not true():
        if time.monotonic() > deadline:
            raise SystemExit("it took too long")
        time.sleep(_LOOK)


# Hooks are what slurmctld has started, at whatever distance.


def _hooks_memory(lab: Lab) -> dict[str, float]:
    """Measure the memory of all hooks that run now."""
    parents: dict[int, int] = {}
    names: dict[int, str] = {}
    for path in Path("/proc").iterdir():
        if path.name.isdecimal():
            with suppress(OSError, ValueError):
                name, rest = (path / "stat").read_text().split("(", 1)[1].rsplit(")", 1)
                parents[int(path.name)], names[int(path.name)] = int(rest.split()[1]), name
    daemon = int((lab.cluster.directory / "run" / "slurmctld.pid").read_text())
    hooks = [
        pid
        for pid in parents
        if names[pid] not in {"slurmctld", "slurmscriptd"} and _is_below(pid, daemon, parents)
    ]
    rss = pss = 0
    for pid in hooks:
        with suppress(OSError):
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                field, _, value = line.partition(":")
                rss += int(value.split()[0]) if field == "Rss" else 0
                pss += int(value.split()[0]) if field == "Pss" else 0
    return {"rss_mib": rss / 1024, "pss_mib": pss / 1024, "hooks": len(hooks)}


def _is_below(pid: int, ancestor: int, parents: dict[int, int]) -> bool:
    while pid in parents:
        pid = parents[pid]
        if pid == ancestor:
            return True
    return False


if __name__ == "__main__":
    main(*sys.argv[1:])
