# SPDX-License-Identifier: Apache-2.0
"""`qpu-slurm check`: what is wrong with the installation, and what to do.

    _diagnoses  the table of all that can be wrong, with what to do about it
    _files      configuration, key files, journal, log
    _hooks      the hooks
    _plugin     the plugin
    _slurm      partitions, licenses, accounting
    _access     who may use a QPU
    _gateway    whether it can be reached, and runs with this configuration
    _services   the quantum services
    _partition  all nodes of a partition

A host is looked at for what it is: a controller, the gateway's host, a compute node, a submit host.
Nothing is changed, and nothing is made.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec
from rich.console import Console
from rich.text import Text

from qpu_slurm import config as configuration
from qpu_slurm.admin.check import _access, _files, _gateway, _hooks, _partition, _plugin, _services, _slurm
from qpu_slurm.admin.check._accounts import Keeper
from qpu_slurm.admin.check._diagnoses import found
from qpu_slurm.admin.check._finding import Finding, Level, fine
from qpu_slurm.admin.check._partition import NodeReport, node_name
from qpu_slurm.admin.check._plugin import Host
from qpu_slurm.errors import ConfigError, SlurmError
from qpu_slurm.system.runner_command import foreign_task_runner
from qpu_slurm.system.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from qpu_slurm.config import Config

__all__ = ["Finding", "Host", "Level", "check", "check_partition", "run"]


def run(path: Path | None, *, host: Host = Host.OTHER, partition: str | None = None, as_json: bool) -> int:
    """Look at this host, or at a partition's nodes, print what was found, and return 1 if there is a problem.

    Args:
        path: The configuration; see `config.load`.
        host: What this host is: of a node or a submit host, only what is wrong is printed.
        partition: Have its nodes looked at instead.
        as_json: Print a JSON list rather than lines; of a node, on one line, with its name.
    """
    here = _once(check(path, os.environ, host))
    findings = here if partition is None else check_partition(path, partition)
    if host is not Host.OTHER:
        findings = (finding for finding in findings if finding.level is not Level.OK)
    return _print(findings, as_json=as_json, as_node=host is Host.NODE)


def _once(findings: Iterable[Finding]) -> Iterator[Finding]:
    """Leave out what was found before: journal and log may be in one directory that is not there."""
    seen = set()
    for finding in findings:
        if finding.level is Level.OK or (finding.diagnosis, finding.text) not in seen:
            seen.add((finding.diagnosis, finding.text))
            yield finding


def _print(findings: Iterable[Finding], *, as_json: bool, as_node: bool) -> int:
    console = Console(highlight=False, soft_wrap=True)
    seen = []
    for finding in findings:
        seen.append(finding)
        if not as_json:
            # Line by line: a service may take its time.
            console.print(_line(finding))
    if as_json and as_node:
        console.print(msgspec.json.encode(NodeReport(node_name(), seen)).decode(), markup=False)
    elif as_json:
        console.print(msgspec.json.format(msgspec.json.encode(seen)).decode(), markup=False)
    return int(any(finding.level is Level.PROBLEM for finding in seen))


def check(path: Path | None, environ: Mapping[str, str], host: Host = Host.OTHER) -> Iterator[Finding]:
    """Look at this host.

    Args:
        path: The configuration; see `config.load`.
        environ: May hold QISKIT_IBM_TOKEN, for QPUs that are used with users' own keys.
        host: What it is; a controller or the gateway's host finds that out itself.
    """
    try:
        config = configuration.load(path)
    except ConfigError as error:
        yield from _files.configuration(configuration.path_of(path), error)
        return
    known = ", ".join(config.qpus) or f"only the gateway's user can read the QPUs' file {config.qrmi_config}"
    yield fine("configuration", f"{config.path}: {known}")
    here = _gateway.keeps(config)
    if host is Host.OTHER:
        yield from _controller(config, environ, here=here)
        return
    if not (here and config.gateway):  # the gateway's own host may be a node, too
        yield from _files.keys(config, Keeper(None), here=False, node=True)
    yield from _plugin.check(config, _slurm.local_settings(config), host, None)
    # A node needs the QPUs that the gateway has, and nothing else of its file, wherever the gateway is.
    yield from _gateway.check(config, here=False)


def check_partition(path: Path | None, partition: str) -> Iterator[Finding]:
    """Have the nodes of a partition looked at.

    Args:
        path: The configuration; see `config.load`.
        partition: Its name.
    """
    try:
        config = configuration.load(path)
    except ConfigError as error:
        yield from _files.configuration(configuration.path_of(path), error)
        return
    yield from _partition.check(config, partition)


def _controller(config: Config, environ: Mapping[str, str], *, here: bool) -> Iterator[Finding]:
    """Look at the host of slurmctld, or of keys and journal; often they are one."""
    for warning in config.warnings:
        yield found("config insecure", "configuration", why=warning)
    if foreign := foreign_task_runner():
        yield found("foreign task_runner", "task_runner", path=foreign)
    settings, silence = _settings(config)
    keeper = _keeper(config, settings)
    controls = _slurm.is_controller(settings)
    yield from _files.keys(config, keeper, here=here)
    if here:
        yield from _files.journal(config.journal, keeper)
    if here or controls:
        yield _files.log(config, keeper)
    if silence:
        yield silence
    elif controls:
        partitions = _hooks.partitions_of(settings)
        yield from _hooks.check(config, settings)
        yield from _plugin.check(config, settings, Host.OTHER, partitions)
        yield from _slurm.check(config, settings, partitions)
    else:
        host = settings["SlurmctldHost"]
        yield fine(
            "hooks", f"not on this host but on {host} (a node: `check --node`; a submit host: `--submit`)"
        )
    yield from _access.check(config, settings, here=here)
    yield from _gateway.check(config, here=here)
    token = environ.get("QISKIT_IBM_TOKEN")
    yield from _services.check(config, Secret(token) if token else None, here=here)


def _settings(config: Config) -> tuple[dict[str, str], Finding | None]:
    try:
        return _slurm.settings_of(config), None
    except SlurmError as error:
        return {}, _slurm.silent(config, error)


def _keeper(config: Config, settings: Mapping[str, str]) -> Keeper:
    """Return who reads keys and writes the journal: SlurmUser, or a gateway's user of its own."""
    slurm_user = Keeper(_slurm.slurm_user(settings))
    trusted = config.gateway.trusted_users if config.gateway else ()
    if {slurm_user.uid, slurm_user.name} & set(trusted):
        with suppress(OSError):
            return Keeper(config.journal.parent.stat().st_uid)
    return slurm_user


def _line(finding: Finding) -> Text:
    colour = {Level.OK: "green", Level.WARNING: "yellow", Level.PROBLEM: "bold red"}[finding.level]
    text = f"{finding.about}: {finding.text} {finding.remedy}".rstrip()
    return Text.assemble((f"{finding.level:8}", colour), text)
