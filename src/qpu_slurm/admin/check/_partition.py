# SPDX-License-Identifier: Apache-2.0
"""`qpu-slurm check --partition`: one srun has every node of a partition look at itself."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from qpu_slurm.admin.check._diagnoses import found
from qpu_slurm.admin.check._finding import Finding, fine
from qpu_slurm.admin.check._slurm import silent
from qpu_slurm.errors import SlurmError, sentences
from qpu_slurm.slurm._commands import Commands

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qpu_slurm.config import Config

_SECONDS = 120
"""What all of it may take: srun gives up when the nodes are not free by half of it."""

_STARTED = re.compile(r"(?m)^(?:slurmstepd|srun): error: .*(?:execve|Exited)")
"""What is said of tasks that could not be started, or failed, in a job that there was."""

_NOT_STARTED = re.compile(r"(?m)^slurmstepd: error: execve.*$")

_USABLE = frozenset(("idle", "mixed"))


class NodeReport(msgspec.Struct):
    """What one node prints, on a line."""

    node: str
    findings: list[Finding]


def node_name() -> str:
    """Return what Slurm calls this node."""
    return os.environ.get("SLURMD_NODENAME") or os.uname().nodename.partition(".")[0]


def check(config: Config, partition: str) -> Iterator[Finding]:
    """Have the nodes of a partition looked at, by srun; those that cannot run a job now are named.

    Args:
        config: What the admin wrote; all nodes have it in the same place.
        partition: Its name.
    """
    try:
        states = _states(config, partition)
    except SlurmError as error:
        yield silent(config, error)
        return
    if not states:
        yield found("no node", "partition", partition=partition)
    for node, state in states.items():
        if state not in _USABLE:
            yield found("node not checked", node, state=state)
    nodes = [node for node, state in states.items() if state in _USABLE]
    if nodes:
        yield from _reports(config, partition, nodes)


def _states(config: Config, partition: str) -> dict[str, str]:
    output = Commands(config.slurm).run(
        "sinfo", "--Node", "--noheader", f"--partition={partition}", "--format=%N|%T"
    )
    rows = (line.split("|", 1) for line in output.decode(errors="replace").splitlines() if "|" in line)
    # Behind a state stands what else there is to it: `idle*` does not respond, `idle~` is switched off.
    return {node.strip(): state.strip() for node, state in rows}


def _reports(config: Config, partition: str, nodes: list[str]) -> Iterator[Finding]:
    """Return what the nodes say of themselves, and which of them say nothing."""
    program = str(Path(sys.argv[0]).absolute())  # not resolved: what is linked to may lie elsewhere on nodes
    try:
        printed, said = _srun(config, partition, nodes, program)
    except (OSError, subprocess.TimeoutExpired) as error:
        yield found("srun failed", "srun", why=sentences(str(error)))
        return
    reports = {report.node: report.findings for report in _read(printed)}
    if not reports and not _STARTED.search(said):
        yield found("srun failed", "srun", why=sentences(" ".join(said.split())[:500]))
        return
    not_started = _NOT_STARTED.search(said)
    for node in nodes:
        if node not in reports:
            why = f" ({not_started[0]})" if not_started else ""
            yield found("node silent", node, program=program, why=why)
        elif not reports[node]:
            yield fine(node, "is well")
        else:
            for finding in reports[node]:
                yield msgspec.structs.replace(finding, about=f"{node}: {finding.about}")


def _srun(config: Config, partition: str, nodes: list[str], program: str) -> tuple[bytes, str]:
    """Run one task on each node; return what they printed, and what srun said.

    Raises:
        OSError: There is no srun.
        subprocess.TimeoutExpired: The nodes took too long.
    """
    argv = [
        str(config.slurm.bin / "srun"),
        f"--partition={partition}",
        f"--nodelist={','.join(nodes)}",
        f"--nodes={len(nodes)}",
        "--ntasks-per-node=1",
        "--job-name=qpu-slurm-check",
        "--time=2",
        f"--immediate={_SECONDS // 2}",
        "--kill-on-bad-exit=0",
        "--chdir=/",
        *(program, "--config", str(config.path), "check", "--node", "--json"),
    ]
    done = subprocess.run(
        argv,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env={**os.environ, "SLURM_CONF": str(config.slurm.conf)},
        timeout=_SECONDS,
        check=False,
    )
    said = done.stderr.decode(errors="replace")
    return done.stdout, said if said.strip() else f"srun exited with {done.returncode}"


def _read(output: bytes) -> Iterator[NodeReport]:
    for line in output.splitlines():
        try:
            yield msgspec.json.decode(line, type=NodeReport)
        except (msgspec.DecodeError, UnicodeDecodeError):
            continue  # a greeting of the node's, say
