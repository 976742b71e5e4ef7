# SPDX-License-Identifier: Apache-2.0
"""A plain Slurm on four hosts: two controllers, a node, and a configless node. Nothing of ours is on it."""

from __future__ import annotations

import subprocess
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final, Self

from qpu_slurm_devkit.emulator.settings import Account
from tests.packages.hosts import OUTSIDE, Host, Network
from tests.packages.site import until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.packages.hosts import Ran

ADDRESSES: Final = {
    "controller": "192.0.2.1",
    "controller2": "192.0.2.2",
    "c1": "192.0.2.11",
    "c2": "192.0.2.12",
}

USER: Final = "alice"
HOME: Final = f"/shared/home/{USER}"

_SLURM_CONF: Final = """\
ClusterName=site
SlurmctldHost=controller
SlurmctldHost=controller2
SlurmUser=slurm
StateSaveLocation=/shared/slurmctld
SlurmdSpoolDir=/var/lib/slurm/slurmd
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectTypeParameters=CR_Core
MpiDefault=none
ReturnToService=2
SlurmctldParameters=enable_configless
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=2,batch_sched_delay=0,sched_min_interval=0
NodeName=c1 CPUs=32
NodeName=c2 CPUs=4
PartitionName=normal Nodes=c2 Default=YES
PartitionName=quantum Nodes=c1
"""


class Cluster:
    """Four hosts and a quantum service, which only the admin's network knows.

    Args:
        base: A root with a plain Slurm, as `with_slurm` makes it.
        shared: A directory that the hosts share.
    """

    def __init__(self, base: Path, shared: Path) -> None:
        self._base = base
        self.shared = shared
        self.account = Account.premium()
        self.home = shared / HOME.removeprefix("/shared/")
        self.version = ""
        self.jobs: set[str] = set()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self.network = stack.enter_context(Network())
            emulator = [sys.executable, "-m", "qpu_slurm_devkit.emulator", "--url-only", "--any-circuit"]
            emulator += ["--host", OUTSIDE, "--task-seconds", "1", "--interactive-ttl", "1"]
            started = self.network.start(*emulator)
            assert started.stdout is not None
            self._url = started.stdout.readline().strip().removeprefix("emulator listens on ")
            self.hosts = {
                name: stack.enter_context(Host(self._base, name, address, self.network, self.shared))
                for name, address in ADDRESSES.items()
            }
            self._prepare()
            for host in self.hosts.values():
                host.boot()
            for host in self.hosts.values():
                host.wait()
            self._start_slurm()
            self._exit = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._exit.close()

    def _prepare(self) -> None:
        """Write what makes hosts a cluster: names, a key for SSH, a user, slurm.conf."""
        key = self.shared / "key"
        make = ["/usr/bin/ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)]
        subprocess.run(make, check=True, timeout=60)
        self.key = key
        known = "".join(f"{address} {name}\n" for name, address in ADDRESSES.items())
        for host in self.hosts.values():
            host.write("/etc/hosts", f"127.0.0.1 localhost\n{known}")
            host.write("/root/.ssh/authorized_keys", key.with_suffix(".pub").read_text())
            host.write("/root/.ssh/id_ed25519", key.read_text())
            host.file("/root/.ssh/id_ed25519").chmod(0o600)
            host.write("/root/.ssh/config", "StrictHostKeyChecking no\nLogLevel ERROR\n")
            host.write("/etc/slurm/cgroup.conf", "CgroupPlugin=disabled\n")
            if host.name == "c2":
                host.write("/etc/default/slurmd", 'SLURMD_OPTIONS="--conf-server controller,controller2"\n')
            else:
                host.write("/etc/slurm/slurm.conf", _SLURM_CONF)
            # Each has the daemons of its kind.
            other = "slurmd" if host.name.startswith("controller") else "slurmctld"
            host.write(f"/etc/systemd/system-preset/10-{other}.preset", f"disable {other}.service\n")
            for place in host.file("/etc/systemd/system").glob(f"*.wants/{other}.service"):
                place.unlink()

    def _start_slurm(self) -> None:
        for host in self.hosts.values():
            self._ran(host, f"useradd --uid 2000 --home-dir {HOME} --shell /bin/sh {USER}")
        self._ran(self["controller"], "install -d -o slurm -g slurm /shared/slurmctld")
        self._ran(self["controller"], f"install -d -o {USER} -g {USER} {HOME}")
        for name in self.hosts:
            daemon = "slurmctld" if name.startswith("controller") else "slurmd"
            self._ran(self[name], "install -d -o slurm /var/lib/slurm /var/log/slurm")
            self._ran(self[name], f"systemctl restart {daemon}")
        until(lambda: self["c1"].run("sinfo -h -N -o %T").output.split() == ["idle", "idle"])

    def _ran(self, host: Host, script: str) -> Ran:
        ran = host.run(script)
        assert ran.status == 0, f"{host.name}: {script}: {ran.output}"
        return ran

    def __getitem__(self, name: str) -> Host:
        return self.hosts[name]

    def write(self, name: str, text: str) -> None:
        """Write a file into the user's home."""
        (self.home / name).write_text(text)

    def settle(self, text: str) -> str:
        """Return a configuration of the guide with this cluster's own service in the place of IBM's."""
        lines = []
        for line in text.splitlines():
            if line.startswith("instance = "):
                lines += [
                    f'instance = "{self.account.crn}"',
                    f'endpoint = "{self._url}/api/v1"',
                    f'iam_endpoint = "{self._url}"',
                    f'search_endpoint = "{self._url}"',
                    f'catalog_endpoint = "{self._url}/api/v1"',
                ]
            else:
                lines.append(line)
        return "\n".join([*lines, ""])
