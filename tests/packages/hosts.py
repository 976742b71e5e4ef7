# SPDX-License-Identifier: Apache-2.0
"""Several hosts on this machine: Debian roots in which systemd runs, and a network between them."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, Self

from tests.packages.root import output_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

OUTSIDE: Final = "192.0.2.254"
"""The address of what is no host of the cluster: the quantum service, and the admin's own machine."""

_MOUNT: Final = """\
mount -t overlay -o "lowerdir=$1,upperdir=$2/upper,workdir=$2/work" overlay "$2/root" && cd "$2/root" &&
mount -t proc proc proc && mount --bind proc/sys proc/sys && mount -o remount,bind,ro proc/sys &&
mount -t sysfs -o ro sysfs sys && mount -t cgroup2 cgroup2 sys/fs/cgroup &&
mount -t tmpfs -o mode=755 tmpfs dev && mkdir dev/pts dev/shm &&
for device in full null random tty urandom zero; do
    touch "dev/$device" && mount --bind "/dev/$device" "dev/$device"
done &&
mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts dev/pts && ln -s pts/ptmx dev/ptmx &&
mount -t tmpfs -o mode=1777 tmpfs dev/shm &&
ln -s /proc/self/fd dev/fd && ln -s fd/0 dev/stdin && ln -s fd/1 dev/stdout && ln -s fd/2 dev/stderr &&
mount -t tmpfs -o mode=1777 tmpfs tmp && mount -t tmpfs -o mode=755 tmpfs run &&
mkdir -p shared && mount --bind "$3" shared && hostname "$4" && echo ready && read -r go &&
mkdir -p .old && pivot_root . .old && umount -l .old && rmdir .old &&
exec /usr/bin/env -i container=other PATH=/usr/sbin:/usr/bin /lib/systemd/systemd
"""
"""What process 1 does until it is systemd. The layer is $2, above $1; $3 is what hosts share, $4 the name.

Nothing of this machine's can be set from a host: its sysctls and its devices are read only.
"""

_UNUSED: Final = (
    "console-getty.service",
    "dev-hugepages.mount",
    "getty.target",
    "sys-kernel-debug.mount",
    "sys-kernel-tracing.mount",
    "systemd-modules-load.service",
    "systemd-udevd.service",
)
"""Units that would act on this machine."""


class Ran(NamedTuple):
    """A command that was run on a host.

    Attributes:
        status: Its exit status.
        output: What it printed, errors included.
        seconds: How long it took.
    """

    status: int
    output: str
    seconds: float


class Network:
    """A network of its own that hosts are connected to. What is started in it has the address `OUTSIDE`."""

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            script = f"""\
ip link set lo up && ip link add bridge type bridge && ip address add {OUTSIDE}/24 dev bridge &&
ip link set bridge up && echo ready && exec sleep infinity"""
            argv = ["/usr/bin/setpriv", "--pdeathsig", "KILL", "unshare", "--net", "/bin/sh", "-c", script]
            holder = stack.enter_context(subprocess.Popen(argv, stdout=subprocess.PIPE, text=True))
            stack.callback(holder.kill)
            assert holder.stdout is not None
            assert holder.stdout.readline() == "ready\n"
            self._pid = holder.pid
            self._exit = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._exit.close()

    def argv(self, command: Sequence[str]) -> list[str]:
        """Return the arguments that run a command of this machine in the network."""
        return ["/usr/bin/nsenter", f"--net=/proc/{self._pid}/ns/net", *command]

    def start(self, *command: str) -> subprocess.Popen[str]:
        """Start a program of this machine in the network; it ends with the network."""
        process = subprocess.Popen(self.argv(command), stdout=subprocess.PIPE, text=True)
        self._exit.enter_context(process)
        self._exit.callback(process.kill)
        return process

    def connect(self, pid: int, address: str) -> None:
        """Connect the host whose process 1 has a number here."""
        port = f"host{pid}"
        here = f"""\
ip link add {port} type veth peer name eth0 netns {pid}
ip link set {port} master bridge up"""
        there = f"""\
ip address add {address}/24 dev eth0
ip link set lo up
ip link set eth0 up"""
        enter = ["/usr/bin/nsenter", f"--net=/proc/{pid}/ns/net"]
        for argv in (self.argv(["/bin/sh", "-ec", here]), [*enter, "/bin/sh", "-ec", there]):
            subprocess.run(argv, check=True, timeout=60)


class Host:
    """A host: a Debian root in which systemd runs. All of its processes end with it.

    Args:
        base: The directory that is its root, and stays as it is.
        name: Its name.
        address: Its address in the network.
        network: The network that it is connected to.
        shared: A directory that it has as `/shared`.
    """

    def __init__(self, base: Path, name: str, address: str, network: Network, shared: Path) -> None:
        self.name = name
        self.address = address
        self._base = base
        self._network = network
        self._shared = shared

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            directory = Path(tempfile.mkdtemp(prefix="host-", dir=self._base.parent))
            stack.callback(shutil.rmtree, directory, ignore_errors=True)
            for name in ("upper", "work", "root"):
                (directory / name).mkdir()
            self._root = directory / "root"
            group = stack.enter_context(_control_group(f"qpu_slurm-{directory.name}"))
            # The group first, which is the root of all groups in the namespaces.
            enter = f'echo $$ >{group}/cgroup.procs && exec "$@"'
            own = ["/usr/bin/setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--pid", "--net", "--uts"]
            own += ["--ipc", "--cgroup", "--fork", "--kill-child", "--propagation=private"]
            places = [str(self._base), str(directory), str(self._shared)]
            self._holder = stack.enter_context(
                subprocess.Popen(
                    ["/bin/sh", "-c", enter, "sh", *own, "/bin/sh", "-c", _MOUNT, "sh", *places, self.name],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
            stack.callback(self._holder.kill)
            assert self._holder.stdout is not None
            assert self._holder.stdout.readline() == "ready\n"
            children = Path(f"/proc/{self._holder.pid}/task/{self._holder.pid}/children").read_text()
            self.pid = int(children.split()[0])
            self._network.connect(self.pid, self.address)
            self._exit = stack.pop_all()
        self.write("/etc/hostname", f"{self.name}\n")
        for unit in _UNUSED:
            self.file(f"/etc/systemd/system/{unit}").symlink_to("/dev/null")
        # Services start when they are installed, as on any host.
        self.file("/usr/sbin/policy-rc.d").unlink(missing_ok=True)
        return self

    def __exit__(self, *_: object) -> None:
        self._holder.kill()
        self._exit.close()

    def boot(self) -> None:
        """Have systemd start: see `wait`."""
        assert self._holder.stdin is not None
        self._holder.stdin.write("go\n")
        self._holder.stdin.flush()
        self._root = Path("/")

    def wait(self) -> None:
        """Wait until systemd has started what it starts."""
        end = time.monotonic() + 300
        states = {"running\n", "degraded\n"}
        while self.run("systemctl is-system-running 2>/dev/null").output not in states:
            assert time.monotonic() < end, f"{self.name} does not start"
            time.sleep(0.5)

    def file(self, path: str) -> Path:
        """Return where a file of it is, as seen from here."""
        return Path(f"/proc/{self.pid}/root{str(self._root).rstrip('/')}{path}")

    def write(self, path: str, text: str) -> None:
        """Write a file of root's."""
        self.file(path).parent.mkdir(parents=True, exist_ok=True)
        self.file(path).write_text(text)

    def run(
        self,
        script: str,
        *,
        user: str = "root",
        directory: str = "/root",
        stdin: str = "",
        timeout: float = 600,
    ) -> Ran:
        """Run a shell script as a user who has logged in.

        Args:
            script: Its text.
            user: Whose processes they are.
            directory: Where it starts.
            stdin: What is typed.
            timeout: When to give up, in seconds.
        """
        argv = ["/usr/bin/nsenter", "--target", str(self.pid), "--mount", "--pid", "--net", "--uts", "--ipc"]
        argv += ["/usr/sbin/runuser", "-u", user, "--", "/usr/bin/env", "-i", f"--chdir={directory}"]
        argv += ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8"]
        argv += [f"HOME={directory}", f"USER={user}", "DEBIAN_FRONTEND=noninteractive"]
        start = time.monotonic()
        done = subprocess.run(
            [*argv, "/bin/sh", "-ec", script],
            input=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
            check=False,
        )
        return Ran(done.returncode, done.stdout, time.monotonic() - start)


@contextmanager
def _control_group(name: str) -> Iterator[Path]:
    """Make a control group for a host's systemd; remove it and all below it at the end."""
    mounted = output_of("/usr/bin/findmnt", "--types", "cgroup2", "--noheadings", "--output", "TARGET")
    group = Path(mounted.splitlines()[0]) / name
    group.mkdir()
    try:
        yield group
    finally:
        end = time.monotonic() + 60
        while group.exists():
            for path, _, _ in os.walk(group, topdown=False):
                try:
                    Path(path).rmdir()
                except OSError:
                    # Its processes are still ending.
                    assert time.monotonic() < end
            time.sleep(0.2)
