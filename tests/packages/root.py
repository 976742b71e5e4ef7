# SPDX-License-Identifier: Apache-2.0
"""Nearly a machine of its own: a Debian root with its own processes, and with a loopback interface only.

The root is a chroot of tools/chroot, which stays as it is: what is written here lies in a layer above it and
is thrown away.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from collections.abc import Sequence

CHECKOUT: Final = Path(__file__).parents[2]

_HOLD: Final = """\
mount -t overlay -o "lowerdir=$1,upperdir=$2/upper,workdir=$2/work" overlay "$2/root" &&
mount -t proc proc "$2/root/proc" &&
mount --rbind /dev "$2/root/dev" &&
mount --rbind /sys "$2/root/sys" &&
mount -t tmpfs -o mode=1777 tmpfs "$2/root/tmp" &&
mount -t tmpfs -o mode=755 tmpfs "$2/root/run" &&
ip address add 192.0.2.1/32 dev lo && ip link set lo up &&
echo ready && exec sleep infinity
"""
"""What process 1 does. The layer is $2, above $1. slurmctld takes more than 127.0.0.1."""

_SLURM: Final = """\
printf '#!/bin/sh\\nexit 101\\n' >/usr/sbin/policy-rc.d && chmod 755 /usr/sbin/policy-rc.d
export DEBIAN_FRONTEND=noninteractive
apt-get -q update && apt-get -q -y --no-install-recommends install \\
    slurmctld slurmd slurm-client munge python3 systemd logrotate man-db procps \\
    curl environment-modules iproute2 openssh-server openssl sudo
"""
"""A plain Slurm on it, as Debian packages it, what our packages need, and what an admin's hosts have."""


def chroot(name: str, *command: str, timeout: float, checkout: Path = CHECKOUT, **environ: str) -> None:
    """Run a command in a chroot of tools/chroot, which is made if it is not there.

    Args:
        name: The chroot's.
        command: What runs in the copy of the checkout there.
        timeout: When to give up, in seconds.
        checkout: What is copied.
        environ: What the command finds in its environment.

    Raises:
        subprocess.CalledProcessError: The command failed.
    """
    settings = [f"{key}={value}" for key, value in environ.items()]
    argv = ["/usr/bin/env", *settings, str(checkout / "tools/chroot"), name, *command]
    subprocess.run(argv, check=True, timeout=timeout)


def path_of(name: str) -> Path:
    """Return where a chroot is."""
    return Path(output_of(str(CHECKOUT / "tools/chroot"), "--path", name).removesuffix("/usr/src/qpu_slurm"))


def output_of(*command: str) -> str:
    """Run a command of this machine that succeeds; return what it printed."""
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.strip()


def with_slurm(release: str) -> Path:
    """Return a root of a Debian release with a plain Slurm; it is made once, and kept."""
    root = path_of(f"{release}-slurm")
    made = root / "var/lib/plain-slurm"
    if not (made.exists() and made.read_text() == _SLURM):
        chroot(f"{release}-slurm", "/bin/sh", "-ec", _SLURM, timeout=1800)
        made.write_text(_SLURM)
    return root


class Root:
    """A root with its own mounts, processes and loopback interface; all of them end with it.

    Args:
        base: The directory that is its root, and stays as it is.
    """

    def __init__(self, base: Path) -> None:
        self._base = base

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            # Beside the base: a layer may not be on tmpfs, where /tmp often is.
            directory = Path(tempfile.mkdtemp(prefix="root-", dir=self._base.parent))
            stack.callback(shutil.rmtree, directory, ignore_errors=True)
            for name in ("upper", "work", "root"):
                (directory / name).mkdir()
            self._root = directory / "root"
            own = ["/usr/bin/setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--pid", "--net"]
            own += ["--fork", "--kill-child", "--propagation=private"]
            self._holder = stack.enter_context(
                subprocess.Popen(
                    [*own, "/bin/sh", "-c", _HOLD, "sh", str(self._base), str(directory)],
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
            stack.callback(self._holder.kill)
            assert self._holder.stdout is not None
            assert self._holder.stdout.readline() == "ready\n"
            children = Path(f"/proc/{self._holder.pid}/task/{self._holder.pid}/children").read_text()
            self._pid = children.split()[0]
            self._exit = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        # With process 1 all others end, which are waited for then.
        self._holder.kill()
        self._exit.close()

    def file(self, path: str) -> Path:
        """Return where a file of it is, as seen from here; files of /tmp and /run are not."""
        return Path(f"/proc/{self._pid}/root{self._root}{path}")

    def argv(self, command: Sequence[str], user: str = "root") -> list[str]:
        """Return the arguments that run a command in it."""
        inside = ["nsenter", "--target", self._pid, "--mount", "--pid", "--net"]
        path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        clean = ["/usr/bin/env", "-i", path, "LANG=C.UTF-8", "HOME=/tmp", "DEBIAN_FRONTEND=noninteractive"]
        become = [] if user == "root" else ["/usr/sbin/runuser", "-u", user, "--"]
        return ["/usr/bin/env", *inside, "chroot", str(self._root), *clean, *become, *command]

    def try_to(
        self, *command: str, user: str = "root", timeout: float = 300
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in it, and return how that went."""
        return subprocess.run(
            self.argv(command, user), capture_output=True, text=True, timeout=timeout, check=False, cwd="/"
        )

    def run(self, *command: str, user: str = "root", timeout: float = 300) -> str:
        """Run a command in it that succeeds; return what it printed."""
        done = self.try_to(*command, user=user, timeout=timeout)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout

    def start(self, *command: str, user: str = "root") -> subprocess.Popen[bytes]:
        """Start a daemon in it, which ends with it; what it prints is in /var/log."""
        with self.file(f"/var/log/{Path(command[0]).name}.printed").open("ab") as log:
            daemon = subprocess.Popen(self.argv(command, user), stdout=log, stderr=log, cwd="/")
        return self._exit.enter_context(daemon)

    def start_beside(self, *command: str) -> subprocess.Popen[str]:
        """Start a program of this machine that has the root's network; it ends with the root."""
        process = subprocess.Popen(
            ["/usr/bin/nsenter", "--target", self._pid, "--net", *command], stdout=subprocess.PIPE, text=True
        )
        self._exit.enter_context(process)
        self._exit.callback(process.kill)
        return process
