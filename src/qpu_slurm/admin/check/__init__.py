# SPDX-License-Identifier: Apache-2.0
"""`qpu-slurm check`: what is wrong with the installation, and what to do.

    _files    key files, journal, log
    _slurm    hooks, plugin, partitions, and that they fit together
    _gateway  whether it can be reached, and knows who asks
    here      the configuration, and the quantum services

Nothing is changed, and nothing is made.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import msgspec
from rich.console import Console
from rich.text import Text

from qpu_slurm import config as configuration
from qpu_slurm import providers
from qpu_slurm.admin.check import _files, _gateway, _slurm
from qpu_slurm.admin.check._finding import Finding, Level
from qpu_slurm.admin.check._gateway import is_here
from qpu_slurm.errors import ConfigError, QpuSlurmError, Unavailable
from qpu_slurm.system.runner_command import foreign_task_runner
from qpu_slurm.system.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from qpu_slurm.config import QpuConfig

__all__ = ["Finding", "Level", "check", "is_here", "run"]

_ANSWER_SECONDS = 5.0


def run(path: Path | None, *, as_json: bool) -> int:
    """Look at everything, print what was found, and return the exit code: 1 if there is a problem.

    Args:
        path: The configuration; see `config.load`.
        as_json: Print a JSON list rather than lines.
    """
    console = Console(highlight=False, soft_wrap=True)
    worst = 0
    findings = []
    for finding in check(path, os.environ):
        worst = max(worst, finding.level is Level.PROBLEM)
        findings.append(finding)
        if not as_json:
            # Line by line: a service may take its time.
            console.print(_line(finding))
    if as_json:
        console.print(msgspec.json.format(msgspec.json.encode(findings)).decode(), markup=False)
    return worst


def check(path: Path | None, environ: Mapping[str, str]) -> Iterator[Finding]:
    """Look at everything.

    Args:
        path: The configuration; see `config.load`.
        environ: May hold QISKIT_IBM_TOKEN, for QPUs that are used with users' own keys.
    """
    try:
        config = configuration.load(path)
    except ConfigError as error:
        for problem in error.problems:
            yield Finding(Level.PROBLEM, "configuration", problem)
        return
    yield Finding(Level.OK, "configuration", f"{config.path}: {', '.join(config.qpus)}")
    for warning in config.warnings:
        yield Finding(Level.WARNING, "configuration", warning)
    yield from _task_runner()
    here = is_here(config)
    yield from _files.check(config, _slurm.slurm_user(config), here=here)
    yield from _slurm.check(config)
    yield from _gateway.check(config)
    token = environ.get("QISKIT_IBM_TOKEN")
    for qpu in config.qpus.values():
        if qpu.credentials == "gateway" and not here:
            yield Finding(Level.OK, qpu.name, "not asked: only the gateway has its key (check there as well)")
        else:
            yield _service(qpu, Secret(token) if token else None)


def _task_runner() -> Iterator[Finding]:
    """Look whether qrmi's command has replaced ours; this environment's is what jobs are given."""
    foreign = foreign_task_runner()
    if foreign is not None:
        yield Finding(
            Level.PROBLEM,
            "task_runner",
            f"{foreign} is qrmi's, which exits 0 when a task has failed: install qpu_slurm once more "
            "(pip install --force-reinstall --no-deps), after qrmi; qpu-task-runner is ours in any case",
        )


def _service(qpu: QpuConfig, user_key: Secret | None) -> Finding:
    if qpu.credentials == "user" and user_key is None:
        return Finding(
            Level.OK, qpu.name, "not asked: it is used with users' own keys (export QISKIT_IBM_TOKEN to ask)"
        )
    try:
        provider = providers.connect(qpu.access(user_key), deadline=time.monotonic() + _ANSWER_SECONDS)
        status = provider.status()
    except Unavailable as error:
        return Finding(Level.PROBLEM, qpu.name, f"{qpu.endpoint} cannot be reached: {error}")
    except QpuSlurmError as error:
        return Finding(Level.PROBLEM, qpu.name, str(error))
    if not status.online:
        return Finding(Level.WARNING, qpu.name, f"is not available now: {status.reason}")
    return Finding(Level.OK, qpu.name, f"is online; {status.queue_length} tasks wait")


def _line(finding: Finding) -> Text:
    colour = {Level.OK: "green", Level.WARNING: "yellow", Level.PROBLEM: "bold red"}[finding.level]
    return Text.assemble((f"{finding.level:8}", colour), f"{finding.about}: {finding.text}")
