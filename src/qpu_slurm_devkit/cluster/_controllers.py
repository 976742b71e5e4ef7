# SPDX-License-Identifier: Apache-2.0
"""Two controllers on one machine, each on a host of its own as far as it can see (slurm.conf(5))."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from qpu_slurm_devkit.cluster._programs import Programs

CONTROLLERS = ("slurmctld", "slurmctld2")
"""The controllers' names as daemons; the first one has control."""

_HOSTS = {"ctl1": "127.0.0.1", "ctl2": "127.0.0.2"}

# A controller finds its own name among those of slurm.conf, and listens on what that name resolves to. It
# ends the one whose process id it finds in its place, so each has a place of its own for that.
_ON_A_HOST = """\
mount --bind "$1/etc/hosts" /etc/hosts && mount -t tmpfs -o mode=1777 tmpfs "$1/run" &&
hostname "$2" && shift 2 && exec "$@"
"""


def two_controllers(directory: Path, programs: Programs) -> dict[str, list[str]]:
    """Return how both are started, by name.

    Args:
        directory: The cluster's.
        programs: Slurm's.
    """
    own = ["/usr/bin/unshare", "--uts", "--mount", "--propagation=private"]
    own += ["/bin/sh", "-c", _ON_A_HOST, "host", str(directory)]
    return {
        daemon: [
            *own,
            host,
            str(programs.slurmctld),
            "-D",
            "-L",
            f"{directory}/log/{daemon}.log",
        ]
        for daemon, host in zip(CONTROLLERS, _HOSTS, strict=True)
    }


def configure(etc: Path, lines: dict[str, str], host: str) -> str:
    """Change the settings of slurm.conf to two controllers, and write the hosts that they see.

    Args:
        etc: The directory of slurm.conf.
        lines: The settings.
        host: This machine's name, which the nodes keep.

    Returns:
        The line of the second controller: its key is that of the first.
    """
    first, second = (f"{name}({address})" for name, address in _HOSTS.items())
    # Each listens on its own address, and on the same port.
    lines |= {
        "SlurmctldHost": first,
        "CommunicationParameters": "NoCtldInAddrAny",
        "SlurmctldTimeout": "10",
    }
    hosts = {"localhost": "127.0.0.1", **_HOSTS, host: "127.0.0.1"}
    (etc / "hosts").write_text("".join(f"{address} {name}\n" for name, address in hosts.items()))
    return f"SlurmctldHost={second}"
