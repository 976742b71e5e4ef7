# SPDX-License-Identifier: Apache-2.0
"""The SPANK plugin in a real Slurm, between a hook and a helper that write down what they are given.

What qpu_slurm makes of it is tested in the lab: here, no service and no gateway is behind the plugin.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import psutil

from qpu_slurm.slurm.job import HookJob

if TYPE_CHECKING:
    from collections.abc import Callable

    from qpu_slurm_devkit.cluster import Cluster

PLUGIN = Path(__file__).parents[2] / "plugin"

HOOK = "#!/bin/sh\n/usr/bin/env -0 >{directory}/hooks/$SLURM_JOB_ID\n"

HELPER = """\
#!/bin/sh
echo "$@" >>{directory}/asked
case $3 in
job-env)
    id -u >>{directory}/askers
    echo $PPID >>{directory}/processes
    [ ! -e {directory}/away ] || {{ echo "wait: The gateway is away."; exit 75; }}
    [ ! -e {directory}/answer ] || exec cat {directory}/answer
    echo SLURM_JOB_QPU_RESOURCES=ibm_fez
    ;;
step-end)
    [ ! -e {directory}/hangs ] || exec tail -f {directory}/hangs
    ;;
esac
"""


PATIENCE = 90
"""Seconds that a step waits for a helper that has no answer."""

WAITS = "qpu-slurm-wait"
"""What a task that waits is called (plugin/waiting.c)."""


class Report(NamedTuple):
    """A call of the helper that says that a step starts or has ended."""

    command: str
    job_id: int
    step: str
    name: str
    at: float
    cancel: str = ""


class Stage:
    """A cluster with the plugin on it.

    Attributes:
        cluster: The cluster.
    """

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self._directory = cluster.directory / "stage"

    def set(self, patience: int = PATIENCE) -> None:
        """Put everything in its place, before the cluster starts.

        Args:
            patience: Seconds that a step waits for an answer.
        """
        hooks = self._directory / "hooks"
        hooks.mkdir(parents=True)
        if os.geteuid() == 0:
            shutil.chown(hooks, self.cluster.slurm_user)
        for name in ("asked", "askers", "processes"):
            # The helper is also run by the jobs' users.
            (self._directory / name).touch()
            (self._directory / name).chmod(0o666)
        plugin = self._directory / "qpu_slurm.so"
        subprocess.run(
            ["/usr/bin/make", "--silent", f"BUILD={self._directory}", str(plugin)],
            cwd=PLUGIN,
            check=True,
            timeout=240,
        )
        hook, helper = self._program("hook", HOOK), self._program("helper", HELPER)
        self.cluster.settings["PrologSlurmctld"] = str(hook)
        self.cluster.plugstack.append(
            f"required {plugin} qpus=ibm_fez,ibm_torino gres_partitions=quantum "
            f"step_patience={patience} helper={helper} config=/none"
        )

    def _program(self, name: str, text: str) -> Path:
        path = self._directory / name
        path.write_text(text.format(directory=self._directory))
        path.chmod(0o755)
        return path

    def hold(self, job_id: int) -> str | None:
        """Return what a job's PrologSlurmctld was told of --qpu-session."""
        text = (self._directory / "hooks" / str(job_id)).read_text()
        return HookJob.from_environ(dict(entry.split("=", 1) for entry in text.split("\0") if entry)).hold

    def answer(self, said: bytes | None) -> None:
        """Have the helper say something else about the variables of steps."""
        path = self._directory / "answer"
        path.unlink(missing_ok=True)
        if said is not None:
            path.write_bytes(said)

    def leave(self) -> None:
        """Have the helper say that there is no answer for now, until `come_back`."""
        (self._directory / "away").touch()

    def come_back(self) -> None:
        (self._directory / "away").unlink(missing_ok=True)

    def askers(self) -> list[int]:
        """Return who has run the helper for a step's variables: user numbers, in order."""
        return [int(line) for line in (self._directory / "askers").read_text().split()]

    def asked_again(self) -> int:
        """Return how many processes have run the helper more than once for a step's variables."""
        counts = Counter((self._directory / "processes").read_text().split())
        return sum(count > 1 for count in counts.values())

    def hang(self) -> None:
        """Have telling that a step has ended take for ever, until `unhang`."""
        (self._directory / "hangs").touch()

    def unhang(self) -> None:
        (self._directory / "hangs").unlink(missing_ok=True)

    def hanging(self) -> list[psutil.Process]:
        """Return the processes that would tell for ever."""
        file = str(self._directory / "hangs")
        return [
            process for process in psutil.process_iter(["cmdline"]) if file in (process.info["cmdline"] or ())
        ]

    def asked(self, job_id: int) -> list[list[str]]:
        """Return the arguments of all calls of the helper for a job, without what is always the same."""
        path = self._directory / "asked"
        calls = [line.split()[2:] for line in path.read_text().splitlines()] if path.exists() else []
        for call in calls:
            user = call.index("--user")
            del call[user : user + 2]
        return [call for call in calls if call[1] == str(job_id)]

    def reports(self, job_id: int) -> list[Report]:
        """Return what was told of a job's steps."""
        found = []
        for command, _, *rest in self.asked(job_id):
            if command == "job-env" and rest:
                option, step, name, at, seconds = rest
                assert (option, at) == ("--step", "--at")
                found.append(Report(command, job_id, step, name.removeprefix("--name="), float(seconds)))
            elif command == "step-end":
                step, at, seconds, *cancel = rest
                assert (at, cancel[:1]) in (("--at", []), ("--at", ["--cancel"]))
                found.append(Report(command, job_id, step, "", float(seconds), "".join(cancel[1:])))
        return found

    def ended(self, job_id: int, count: int) -> list[Report]:
        """Wait until the end of so many steps was told; return all reports."""
        wait_for(lambda: sum(report.command == "step-end" for report in self.reports(job_id)) >= count)
        return self.reports(job_id)


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 90
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def waiting_tasks(cluster: Cluster) -> list[psutil.Process]:
    """Return the tasks that wait for an answer."""
    found = []
    for process in psutil.process_iter(["name"]):
        with suppress(psutil.Error):
            # Their slurmstepd is a child of the cluster's keeper, which knows the directory.
            parents = [" ".join(parent.cmdline()) for parent in process.parents()]
            if process.info["name"] == WAITS and any(str(cluster.directory) in words for words in parents):
                found.append(process)
    return found
