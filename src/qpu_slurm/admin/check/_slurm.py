# SPDX-License-Identifier: Apache-2.0
"""What `qpu-slurm check` asks Slurm: its settings, partitions, licenses."""

from __future__ import annotations

import os
import re
import socket
from pathlib import Path
from typing import TYPE_CHECKING

from qpu_slurm.admin.check._accounts import seen
from qpu_slurm.admin.check._diagnoses import found
from qpu_slurm.admin.check._finding import Finding, fine
from qpu_slurm.errors import SlurmError
from qpu_slurm.slurm._commands import Commands

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from qpu_slurm.config import Config

_CONFIGLESS = Path("/run/slurm/conf/slurm.conf")
"""Where slurmd keeps what slurmctld sends it (slurm.conf(5), "configless")."""

_INCLUDES = 10

_MANY = 1000
"""How many licenses stand for any number of jobs."""


def settings_of(config: Config) -> dict[str, str]:
    """Return slurm.conf as slurmctld has it; what is a list in newer releases has its first item.

    Raises:
        SlurmError: slurmctld does not answer.
    """
    output = Commands(config.slurm).run("scontrol", "show", "config").decode(errors="replace")
    read = re.findall(r"^(\w+)(?:\[\d+\])?\s*= ?(.*?)\s*$", output, re.MULTILINE)
    hosts = re.findall(r"^SlurmctldHost(?:\[\d+\])?\s*= ?([^\s(]+)", output, re.MULTILINE)
    return dict(reversed(read)) | ({"SlurmctldHost": ",".join(hosts)} if hosts else {})


def local_settings(config: Config) -> dict[str, str]:
    """Return slurm.conf as it is on this host's disk, for checks that must not ask slurmctld."""
    path = conf_here(config)
    return dict(_read(path)) if os.access(path, os.R_OK) else {}


def conf_here(config: Config) -> Path:
    """Return the path of this host's slurm.conf; the files that slurmctld sent with it lie beside it."""
    return config.slurm.conf if seen(config.slurm.conf) else _CONFIGLESS


def _read(path: Path, depth: int = 0) -> Iterator[tuple[str, str]]:
    names = {"plugindir": "PluginDir", "plugstackconfig": "PlugStackConfig"}
    for line in path.read_text(errors="replace").splitlines():
        if match := re.match(r"\s*include\s+(\S+)", line, re.IGNORECASE):
            if depth < _INCLUDES and os.access(included := path.parent / match[1], os.R_OK):
                yield from _read(included, depth + 1)
        elif match := re.match(r"\s*(\w+)\s*=\s*(\S+)", line):
            yield names.get(match[1].lower(), match[1]), match[2]


def slurm_user(settings: Mapping[str, str]) -> int | None:
    """Return the user id that hooks run under; None if Slurm does not say."""
    match = re.search(r"\((\d+)\)", settings.get("SlurmUser", ""))
    return int(match[1]) if match else None


def is_controller(settings: Mapping[str, str]) -> bool:
    """Tell whether slurmctld runs on this host; so it is if Slurm does not say where."""
    hosts = settings.get("SlurmctldHost", "")
    own = socket.gethostname()
    return not hosts or bool({own, own.partition(".")[0]} & set(hosts.split(",")))


def silent(config: Config, error: SlurmError) -> Finding:
    """Say why Slurm's commands have no answer."""
    about, conf = "Slurm", config.slurm.conf
    if not os.access(config.slurm.bin / "scontrol", os.X_OK):
        return found("no commands", about, why=error, path=config.path)
    if not seen(conf) and not seen(_CONFIGLESS):
        # Without it, Slurm's commands wait in vain for an answer.
        return found("no slurm.conf", about, conf=conf, path=config.path)
    return found("no answer", about, why=error)


def check(
    config: Config, settings: Mapping[str, str], partitions: frozenset[str] | None
) -> Iterator[Finding]:
    """Look at partitions, licenses and accounting.

    Args:
        config: What the admin wrote.
        settings: What slurmctld has.
        partitions: Where a gres alone asks for a QPU, as the hooks know them; None if there is no hook.
    """
    if "qpu" not in settings.get("GresTypes", "").split(","):
        yield found("no gres", "slurm.conf")
    else:
        yield from _partitions(config, partitions)
    if config.qpus:
        yield _licenses(config, settings)
    hosts = settings.get("SlurmctldHost", "").split(",")
    if len(hosts) > 1 and config.gateway is None:
        yield found("journal of one controller", "controllers", hosts=" and ".join(hosts))
    own = [name for name, qpu in config.qpus.items() if qpu.needs_user_key]
    if own and "job_env" in settings.get("AccountingStoreFlags", "").split(","):
        yield found("keys in accounting", "accounting", qpus=", ".join(own))


def _licenses(config: Config, settings: Mapping[str, str]) -> Finding:
    """Look at whether jobs wait in the queue for a QPU that is not available."""
    about = "licenses"
    listed = re.findall(r"([^,:*@|;()\s]+)(?:[:*](\d+))?", settings.get("Licenses", ""))
    have = {name: int(count or 1) for name, count in listed}
    wanted = {name: qpu.limit or _MANY for name, qpu in config.qpus.items()}
    others = [f"{name}:{count}" for name, count in have.items() if name not in wanted and name != "null"]
    line = ",".join([*others, *(f"{name}:{count}" for name, count in wanted.items())])
    wrong = [name for name, qpu in config.qpus.items() if qpu.limit not in {None, have.get(name)}]
    if not have.keys() & wanted.keys():
        return found("no licenses", about, line=line)
    if missing := wanted.keys() - have.keys():
        return found("license missing", about, qpus=", ".join(sorted(missing)), line=line)
    if wrong:
        return found("license count", about, qpus=", ".join(wrong), line=line)
    if "lua" not in settings.get("JobSubmitPlugins", "").split(","):
        return found("no job_submit", about)
    if not seen(lua := config.slurm.conf.with_name("job_submit.lua")):
        return found("no job_submit.lua", about, path=lua)
    return fine(about, ", ".join(f"{name}:{have[name]}" for name in wanted))


def _partitions(config: Config, partitions: frozenset[str] | None) -> Iterator[Finding]:
    """Compare the partitions that have the gres with those that the hooks know."""
    about = "partitions"
    try:
        output = Commands(config.slurm).run("sinfo", "--all", "--noheader", "--format=%R|%G")
    except SlurmError as error:
        yield silent(config, error)
        return
    rows = (line.split("|", 1) for line in output.decode(errors="replace").splitlines() if "|" in line)
    have = {name for name, gres in rows if re.search(r"(?:^|,)(?:gres[:/])?qpu(?:[:(,]|$)", gres)}
    if partitions is None:
        return
    if "*" not in partitions and (missing := have - partitions):
        names = ",".join(sorted(partitions | missing))
        yield found("partition unknown", about, partitions=", ".join(sorted(missing)), names=names)
    elif not have:
        yield found("gres of no node", about)
    else:
        yield fine(about, f"{', '.join(sorted(have))} with gres qpu")
