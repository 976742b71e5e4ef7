# SPDX-License-Identifier: Apache-2.0
"""A cluster of one host, set up as docs/install.md says, in a root with our packages."""

from __future__ import annotations

import json
import re
import sys
import time
from typing import TYPE_CHECKING, Final

from qpu_slurm_devkit.emulator.settings import Account

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from tests.packages.root import Root

USER: Final = "games"
"""Who submits jobs: Debian's base has that user."""

INPUT: Final = {
    "program_id": "sampler",
    "parameters": {
        "pubs": [
            ['OPENQASM 3.0;\ninclude "stdgates.inc";\nbit[1] c;\nx $0;\nc[0] = measure $0;\n', None, 100]
        ],
        "version": 2,
        "support_qiskit": False,
    },
}

_SLURM_CONF: Final = """\
ClusterName=site
SlurmctldHost={host}(127.0.0.1)
SlurmUser=slurm
StateSaveLocation=/var/lib/slurm/slurmctld
SlurmdSpoolDir=/var/lib/slurm/slurmd
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=2,batch_sched_delay=0,sched_min_interval=0
GresTypes=qpu
NodeName={host} NodeAddr=127.0.0.1 CPUs=4 Gres=qpu:1
PartitionName=quantum Nodes={host} Default=YES
"""

HOOKS: Final = """\
PrologSlurmctld=/usr/libexec/qpu_slurm/prolog.sh
EpilogSlurmctld=/usr/libexec/qpu_slurm/epilog.sh
"""

_GATEWAY: Final = "http://127.0.0.1:8470"


class Site:
    """A cluster with the emulator as its quantum service.

    Args:
        root: Where our packages are installed.
        task_seconds: How long a task runs at the service.
    """

    def __init__(self, root: Root, *, task_seconds: float) -> None:
        self.root = root
        account = Account.premium()
        command = [sys.executable, "-m", "qpu_slurm_devkit.emulator", "--url-only", "--any-circuit"]
        emulator = root.start_beside(*command, "--task-seconds", str(task_seconds))
        assert emulator.stdout is not None
        url = emulator.stdout.readline().strip().removeprefix("emulator listens on ")
        self._configure(account, url)

    def _configure(self, account: Account, url: str) -> None:
        root = self.root
        host = root.run("/bin/hostname").partition(".")[0].strip()
        self._slurm_conf = _SLURM_CONF.format(host=host)
        self.write("/etc/slurm/slurm.conf", self._slurm_conf + HOOKS)
        self.write("/etc/slurm/gres.conf", f"NodeName={host} Name=qpu Count=1 Flags=CountOnly\n")
        if root.run("/usr/sbin/slurmd", "-V").split()[1] > "23.11":
            self.write("/etc/slurm/cgroup.conf", "CgroupPlugin=disabled\n")
        slurms = ["/var/lib/slurm/slurmctld", "/var/log/slurm"]
        root.run("/usr/bin/install", "-d", "-o", "slurm", "-g", "slurm", *slurms)
        root.run("/usr/bin/install", "-d", "/var/lib/slurm/slurmd")
        root.run("/usr/bin/install", "-d", "-o", "munge", "/run/munge")
        root.run("/usr/bin/install", "-d", "-m", "1777", "/shared")
        root.run("/usr/bin/install", "-m", "0600", "-o", "slurm", "/dev/null", "/etc/qpu_slurm/ibm.key")
        self.write("/etc/qpu_slurm/ibm.key", account.api_key)
        self.write(
            "/etc/qpu_slurm/config.toml",
            f"""\
log = "/var/log/qpu_slurm/hooks.log"
[gateway]
url = "{_GATEWAY}"
log = "/var/log/qpu_slurm/gateway.log"
reap_every = "2s"
[defaults]
endpoint = "{url}/api/v1"
iam_endpoint = "{url}"
search_endpoint = "{url}"
catalog_endpoint = "{url}/api/v1"
instance = "{account.crn}"
credentials = "gateway"
key_file = "/etc/qpu_slurm/ibm.key"
[[qpu]]
name = "ibm_fez"
""",
        )
        self.write("/etc/slurm/plugstack.conf", root.run("/usr/bin/qpu-slurm", "plugstack"))
        self.write("/shared/input.json", json.dumps(INPUT))

    def start(self) -> None:
        """Start MUNGE, the gateway as its unit does, and Slurm."""
        self.root.start("/usr/sbin/munged", "--foreground", user="munge")
        until(lambda: not self.root.try_to("/usr/bin/munge", "-n").returncode)
        self._start_slurmctld()
        self.start_gateway()
        self.root.start("/usr/sbin/slurmd", "-D")
        until(lambda: "idle" in self.root.try_to("/usr/bin/sinfo", "-h", "-o", "%T").stdout)

    def _start_slurmctld(self) -> None:
        self._slurmctld = self.root.start("/usr/sbin/slurmctld", "-D")
        until(lambda: not self.root.try_to("/usr/bin/scontrol", "ping").returncode)

    def restart_slurmctld(self) -> None:
        """Do what `systemctl restart slurmctld` does."""
        self.root.run("/bin/sh", "-c", "kill -TERM $(pgrep -x slurmctld)")
        self._slurmctld.wait(timeout=100)
        self._start_slurmctld()

    def start_gateway(self) -> None:
        """Start the gateway as its unit does."""
        unit = self.root.run("/bin/sh", "-c", "cat /usr/lib/systemd/system/qpu-slurm-gateway.service")
        found = {key: re.findall(rf"^{key}=(.*)$", unit, re.MULTILINE)[0] for key in ("User", "ExecStart")}
        self._gateway = self.root.start(*found["ExecStart"].split(), user=found["User"])
        until(lambda: not self.root.try_to("/usr/bin/qpu-slurm", "qpus", user=USER).returncode)

    def restart_gateway(self) -> None:
        """Do what `systemctl restart` does after an upgrade."""
        self.root.run("/bin/sh", "-c", "kill -TERM $(pgrep -f '[q]pu-slurm gateway')")
        self._gateway.wait(timeout=100)
        self.start_gateway()

    def write(self, path: str, text: str) -> None:
        """Write a file of the root, which exists or is root's."""
        self.root.file(path).write_text(text)

    def forget_hooks(self) -> None:
        """Take the hooks out of slurm.conf."""
        self.write("/etc/slurm/slurm.conf", self._slurm_conf)

    def submit(self, *options: str, script: Sequence[str]) -> int:
        """Submit a batch job; return its number."""
        text = "\n".join(["#!/bin/sh", *script, ""])
        self.write("/shared/job.sh", text)
        out = self.root.run(
            "/usr/bin/sbatch", "--parsable", "--chdir=/shared", *options, "/shared/job.sh", user=USER
        )
        return int(out)

    def state(self, job: int) -> str:
        """Return a job's state."""
        shown = self.root.run("/usr/bin/scontrol", "show", "job", str(job))
        return str(re.findall(r"JobState=(\w+)", shown)[0])

    def wait(self, job: int) -> str:
        """Wait until a job is over; return its state."""
        until(lambda: self.state(job) not in {"PENDING", "RUNNING", "COMPLETING", "CONFIGURING"})
        return self.state(job)

    def output(self, job: int) -> str:
        """Return what a batch job printed."""
        return self.root.file(f"/shared/slurm-{job}.out").read_text()

    def leases(self) -> list[dict[str, object]]:
        """Return the open leases."""
        leases: list[dict[str, object]] = json.loads(
            self.root.run("/usr/bin/qpu-slurm", "leases", "--json", user="slurm")
        )
        return leases


def until(holds: Callable[[], bool], timeout: float = 300) -> None:
    """Wait until something holds."""
    end = time.monotonic() + timeout
    while not holds():
        assert time.monotonic() < end, "it never came"
        time.sleep(1)


def result(path: Path) -> dict[str, object]:
    """Read a result that task_runner has written."""
    read: dict[str, object] = json.loads(path.read_text())
    return read
