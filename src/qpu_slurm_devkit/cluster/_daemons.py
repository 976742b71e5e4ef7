# SPDX-License-Identifier: Apache-2.0
"""A throw-away cluster's daemons: munged, slurmctld and one slurmd a node."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

import psutil

from qpu_slurm.errors import SlurmError
from qpu_slurm_devkit.cluster import _keeper

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from pathlib import Path

    from qpu_slurm_devkit.cluster._programs import Programs


# Such a node sees neither the machine's /run nor the configuration of the cluster. slurmd finds MUNGE in its
# default place, since it has no slurm.conf yet, and keeps what slurmctld sends in /run/slurm/conf.
_CONFIGLESS = """\
mount -t tmpfs -o mode=0755 tmpfs /run && mkdir /run/munge /run/slurm &&
ln -s "$1"/munge/socket /run/munge/munge.socket.2 &&
mount -t tmpfs -o mode=0755 tmpfs "$1"/etc &&
unset SLURM_CONF && shift && exec "$@"
"""


class Daemons:
    """The daemons of one cluster, each known by a name: `munged`, `slurmctld`, or its node's.

    They are children of a keeper (see `_keeper`), which this starts at once and `close` ends, and with it
    every process of the cluster and its directory.

    Args:
        directory: The cluster's.
        programs: Slurm's.
        nodes: The nodes' names.
        configless: The names of those nodes that have no slurm.conf.
        server: Where slurmctld is, as `slurmd --conf-server` takes it.
        more: Further daemons: how each is started, by name.
        keep_directory: Leave the directory there.
    """

    def __init__(
        self,
        directory: Path,
        programs: Programs,
        nodes: Sequence[str],
        *,
        configless: Collection[str] = (),
        server: str = "",
        more: Mapping[str, Sequence[str]] | None = None,
        keep_directory: bool,
    ) -> None:
        self._directory = directory
        self._munge_socket = str(directory / "munge" / "socket")
        munged = [str(programs.munged), "--foreground", f"--socket={self._munge_socket}"]
        self._argv = {
            "munged": munged + [f"--{name}-file={directory}/munge/{name}" for name in ("key", "pid", "seed")],
            "slurmctld": [str(programs.slurmctld), "-D"],
            **{node: [str(programs.slurmd), "-D", "-N", node] for node in nodes},
            **{name: list(argv) for name, argv in (more or {}).items()},
        }
        for node in configless:
            slurmd = [*self._argv[node], f"--conf-server={server}"]
            own = ["/usr/bin/unshare", "--mount", "--propagation=private"]
            self._argv[node] = [*own, "/bin/sh", "-c", _CONFIGLESS, "slurmd", str(directory), *slurmd]
        # None: it ended before we could look at it.
        self._running: dict[str, psutil.Process | None] = {}
        # In a session of its own: the terminal's Ctrl-C is for us, and we decide what happens then.
        self._keeper = subprocess.Popen(
            [sys.executable, "-P", _keeper.__file__, str(directory)]
            + ["--keep-directory"] * bool(keep_directory),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def start(self, name: str) -> None:
        """Start a daemon; it may take a while until it listens."""
        assert self._keeper.stdin is not None  # noqa: S101 - for mypy: it is a pipe
        assert self._keeper.stdout is not None  # noqa: S101 - likewise
        order = {
            "argv": self._argv[name],
            "environ": {
                "LANG": "C.UTF-8",
                "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                "SLURM_CONF": f"{self._directory}/etc/slurm.conf",
            },
            "log": f"{self._directory}/log/{name}.out",
        }
        print(json.dumps(order), file=self._keeper.stdin, flush=True)
        answer = self._keeper.stdout.readline()
        if not answer:
            raise SlurmError(f"{name} could not be started: the cluster's keeper has ended.")
        self._running[name] = None
        with suppress(psutil.NoSuchProcess):
            self._running[name] = psutil.Process(int(answer))

    def kill(self, name: str, number: int, timeout: float) -> None:
        """Send a daemon a signal that ends it, and wait until it is gone."""
        process = self._running.pop(name)
        if process is not None:
            process.send_signal(number)
            process.wait(timeout)

    def ended(self, name: str, timeout: float) -> None:
        """Wait until a daemon that was told to end is gone."""
        process = self._running.pop(name)
        if process is not None:
            process.wait(timeout)

    def stop(self, name: str, timeout: float) -> None:
        """Stop a daemon in order, if it is alive."""
        if self.alive(name):
            self.kill(name, signal.SIGTERM, timeout)

    def close(self) -> None:
        """End every process of the cluster and remove its directory."""
        self._running.clear()
        with self._keeper:
            pass  # leaving closes its standard input, which is its sign, and waits for its end

    def alive(self, name: str) -> bool:
        """Tell whether a daemon runs."""
        process = self._running.get(name)
        with suppress(psutil.NoSuchProcess):
            # A dead child that nobody has waited for yet still has a process id.
            return process is not None and process.status() != psutil.STATUS_ZOMBIE
        return False

    def dead(self) -> list[str]:
        """List the daemons that ended without having been told to."""
        return [name for name in self._running if not self.alive(name)]

    def down(self) -> list[str]:
        """List the daemons that were ended on purpose, and not started again."""
        return [name for name in self._argv if name not in self._running]

    def listens(self, name: str) -> bool:
        """Tell whether a daemon that answers requests, so no slurmd, can be asked something."""
        if name == "munged":
            with socket.socket(socket.AF_UNIX) as probe, suppress(OSError):
                probe.connect(self._munge_socket)
                return True
            return False
        # Looking is better than trying: a client that finds nobody waits for a second, and a mere probe
        # makes slurmctld log an error.
        process = self._running[name]
        with suppress(psutil.NoSuchProcess):
            return process is not None and any(
                connection.status == psutil.CONN_LISTEN for connection in process.net_connections("tcp")
            )
        return False

    def log(self, name: str) -> str:
        """Return what a daemon logged, or, where it did not come so far, printed."""
        directory = self._directory / "log"
        for path in (directory / f"{name}.log", directory / f"{name}.out"):
            if path.exists():
                return path.read_text(errors="replace")
        return ""
