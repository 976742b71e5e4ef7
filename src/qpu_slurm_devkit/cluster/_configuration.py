# SPDX-License-Identifier: Apache-2.0
"""The files that a throw-away cluster is configured by (slurm.conf(5), gres.conf(5), cgroup.conf(5))."""

from __future__ import annotations

import os
import pwd
import random
import secrets
import socket
from typing import TYPE_CHECKING, NamedTuple

from qpu_slurm.errors import SlurmError
from qpu_slurm_devkit.cluster import _controllers

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path


class Node(NamedTuple):
    """A compute node of a throw-away cluster.

    Attributes:
        name: What Slurm calls it.
        partition: The partition that it belongs to.
        gres: Its generic resources in slurm.conf's words, such as `qpu:1` or
            `qpu:ibm_fez:1,qpu:ibm_torino:1`.
        configless: It has no slurm.conf of its own, and slurmd asks slurmctld for it (`--conf-server`). That
            takes root: the node gets a /run of its own.
    """

    name: str
    partition: str
    gres: str = ""
    configless: bool = False


SEED_LAYOUT = (*(Node(f"c{number}", "normal") for number in range(1, 5)), Node("c5", "quantum", "qpu:1"))
"""The cluster of the workflow that started this project; the first node's partition is the default."""

_CGROUP_CAN_BE_DISABLED = (23, 11)
"""The Slurm release from which on cgroup.conf knows `CgroupPlugin=disabled`; older slurmd refuse it."""


def make_directories(directory: Path, private: Mapping[Path, str]) -> None:
    """Make a cluster's directories, and munge's key.

    Jobs must reach munge's socket, their homes and Slurm's files, so the cluster's directory is open to
    all; munge's key, Slurm's state and the homes are not.

    Args:
        directory: The cluster's.
        private: Directories below it, each with the account that alone may enter it.
    """
    directory.chmod(0o755)
    for name in ("etc", "munge", "spool", "home"):
        (directory / name).mkdir(mode=0o755)
    for path, user in private.items():
        path.mkdir(mode=0o700)
        account = pwd.getpwnam(user)
        os.chown(path, account.pw_uid, account.pw_gid)
    key = directory / "munge" / "key"
    key.touch(mode=0o600)
    key.write_bytes(secrets.token_bytes(128))


def write(
    directory: Path,
    *,
    version: tuple[int, ...],
    slurm_user: str,
    slurmd_user: str,
    nodes: Sequence[Node],
    settings: Mapping[str, str],
    plugstack: Sequence[str],
    second_controller: bool = False,
) -> None:
    """Write a cluster's configuration below `directory`/etc.

    Args:
        directory: The cluster's directory.
        version: Slurm's.
        slurm_user: Whom slurmctld becomes.
        slurmd_user: Who slurmd is.
        nodes: At least one.
        settings: Further lines `KEY=VALUE` of slurm.conf; they win over ours.
        plugstack: The lines of plugstack.conf.
        second_controller: Have two controllers.
    """
    host = socket.gethostname().partition(".")[0]
    controller_port, default_port, *ports = _free_ports(2 + len(nodes))
    lines = {
        "ClusterName": "lab",
        "SlurmctldHost": f"{host}(127.0.0.1)",
        "SlurmctldPort": str(controller_port),
        "SlurmdPort": str(default_port),
        "SlurmUser": slurm_user,
        "SlurmdUser": slurmd_user,
        "AuthType": "auth/munge",
        "AuthInfo": f"socket={directory}/munge/socket",
        "StateSaveLocation": f"{directory}/state",
        "SlurmdSpoolDir": f"{directory}/spool/%n",
        "SlurmctldPidFile": f"{directory}/run/slurmctld.pid",
        "SlurmdPidFile": f"{directory}/run/%n.pid",
        "SlurmctldLogFile": f"{directory}/log/slurmctld.log",
        "SlurmdLogFile": f"{directory}/log/%n.log",
        "ProctrackType": "proctrack/linuxproc",
        "TaskPlugin": "task/none",
        "SwitchType": "switch/none",
        "MpiDefault": "none",
        "MailProg": "/bin/true",
        "ReturnToService": "2",
        # Every third of it slurmctld looks after its nodes, which also wakes the backfill scheduler: in a
        # quiet cluster nothing else does when a heterogeneous job may start again.
        "SlurmdTimeout": "15",
        "KillWait": "5",
        # The nodes claim more processors than this machine may have.
        "SlurmdParameters": "config_overrides",
        "SelectType": "select/cons_tres",
        "SelectTypeParameters": "CR_Core",
        # Only the backfill scheduler starts heterogeneous jobs.
        "SchedulerParameters": "sched_interval=2,bf_interval=1,batch_sched_delay=0,sched_min_interval=0",
        **settings,
    }
    if any(node.configless for node in nodes):
        lines.setdefault("SlurmctldParameters", "enable_configless")
    gres_names = sorted({gres.partition(":")[0] for node in nodes for gres in _gres_of(node)})
    if gres_names:
        lines.setdefault("GresTypes", ",".join(gres_names))
    etc = directory / "etc"
    second = [_controllers.configure(etc, lines, host)] if second_controller else []
    text = [*(f"{key}={value}" for key, value in lines.items()), *second]
    for node, port in zip(nodes, ports, strict=True):
        gres = f" Gres={node.gres}" if node.gres else ""
        text.append(
            f"NodeName={node.name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port}"
            f" CPUs=4 RealMemory=2000{gres}"
        )
    for partition in dict.fromkeys(node.partition for node in nodes):
        members = ",".join(node.name for node in nodes if node.partition == partition)
        default = " Default=YES" if partition == nodes[0].partition else ""
        text.append(f"PartitionName={partition} Nodes={members}{default}")

    (etc / "slurm.conf").write_text("\n".join([*text, ""]))
    (etc / "gres.conf").write_text("".join(_gres_conf(nodes)))
    (etc / "plugstack.conf").write_text("".join(f"{line}\n" for line in plugstack))
    if version >= _CGROUP_CAN_BE_DISABLED:
        (etc / "cgroup.conf").write_text("CgroupPlugin=disabled\n")


def _gres_of(node: Node) -> list[str]:
    return node.gres.split(",") if node.gres else []


def _gres_conf(nodes: Sequence[Node]) -> Iterator[str]:
    for node in nodes:
        for gres in _gres_of(node):
            name, *kind, count = gres.split(":")
            typed = f" Type={kind[0]}" if kind else ""
            yield f"NodeName={node.name} Name={name}{typed} Count={count} Flags=CountOnly\n"


def free_port() -> int:
    """Find a port that nobody listens on."""
    [port] = _free_ports(1)
    return port


def _free_ports(count: int) -> list[int]:
    """Find ports that nobody listens on.

    They are taken from below the range that Linux gives to outgoing connections, so that none of those
    takes one before our daemons do.
    """
    found: list[int] = []
    for port in random.sample(range(16384, 32768), 1000):
        with socket.socket() as probe:
            # As Slurm's daemons do: a port with old connections in TIME_WAIT is free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("", port))
            except OSError:
                continue
        found.append(port)
        if len(found) == count:
            return found
    raise SlurmError(f"There are no {count} free ports between 16384 and 32767.")
