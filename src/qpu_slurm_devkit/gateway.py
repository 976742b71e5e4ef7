# SPDX-License-Identifier: Apache-2.0
"""The gateway of a throw-away cluster, as SlurmUser runs it there."""

from __future__ import annotations

import os
import signal
import socket
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit

import requests

from qpu_slurm.errors import SlurmError
from qpu_slurm.system.deadline import Deadline
from qpu_slurm_devkit.activation import activated

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Mapping
    from pathlib import Path

    from qpu_slurm_devkit.cluster import Cluster

_LOOK_SECONDS = 0.05


class Gateway:
    """A gateway's process. As a client of the cluster, it ends with it, whoever is killed.

    Args:
        cluster: Whose MUNGE and whose Slurm it asks.
        program: `qpu-slurm`.
        config: Its configuration.
        url: Where it answers.
        user: Who runs it; by default SlurmUser.
        hold: Hold its port, as systemd does for a socket unit: while the gateway is not there, connections
            wait.
    """

    def __init__(
        self,
        cluster: Cluster,
        program: Path,
        config: Path,
        url: str,
        user: str | None = None,
        *,
        hold: bool = False,
    ) -> None:
        self._cluster = cluster
        self._argv = [str(program), "--config", str(config), "gateway"]
        self._user = user or cluster.slurm_user
        self._process: subprocess.Popen[str] | None = None
        self.url = url
        self._held: socket.socket | None = None
        if hold:
            address = urlsplit(url)
            self._held = socket.create_server((address.hostname or "", address.port or 0), backlog=1024)

    @property
    def pid(self) -> int:
        """Its process id."""
        if self._process is None:
            raise SlurmError("The gateway is not started.")
        return self._process.pid

    def start(self, timeout: float = 60, *, env: Mapping[str, str] | None = None) -> Self:
        """Start it, and wait until it answers.

        Args:
            timeout: Seconds to wait.
            env: Further variables.

        Raises:
            SlurmError: It ended (the message is what it said), or the time was over.
        """
        argv, inherited = activated(self._argv, self._held)
        self._process = self._cluster.popen(argv, user=self._user, env=env, pass_fds=inherited)
        deadline = Deadline.after(timeout)
        while not self.healthy():
            if self._process.poll() is not None:
                _, said = self._process.communicate()
                code, self._process = self._process.returncode, None
                raise SlurmError(f"The gateway has ended with {code}: {said.strip()}")
            if deadline.passed:
                self.kill()
                raise SlurmError("The gateway does not answer.")
            time.sleep(_LOOK_SECONDS)
        return self

    def lost(self) -> str:
        """Say that it ended without having been told to; nothing as long as it runs, or is stopped."""
        ended = self._process is not None and self._process.poll() is not None
        return f"The gateway has ended with {self._process.returncode}." if self._process and ended else ""

    def healthy(self) -> bool:
        """Ask whether it serves."""
        with suppress(requests.RequestException):
            return requests.get(f"{self.url}/healthz", timeout=5).ok
        return False

    def kill(self, number: int = signal.SIGKILL, timeout: float = 60) -> int:
        """Send it a signal that ends it, and wait until it is gone.

        Returns:
            Its exit code; of a signal that it did not handle, the number below zero.
        """
        process, self._process = self._process, None
        if process is None:
            return 0
        with process:
            with suppress(ProcessLookupError):  # It has ended by itself: see `died`.
                os.killpg(process.pid, number)
            try:
                process.communicate(timeout=timeout)
            finally:
                process.kill()
        return process.returncode

    def close(self) -> None:
        """Give its port back, if it was held."""
        if self._held is not None:
            self._held.close()

    def stop(self) -> int:
        """Stop it as systemd does; return its exit code."""
        return self.kill(signal.SIGTERM)
