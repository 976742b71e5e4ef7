# SPDX-License-Identifier: Apache-2.0
"""`qpu-slurm support`: what a maintainer needs to know of an installation, in one file without credentials.

    $ qpu-slurm support
    /root/qpu-slurm-support-q1-20261128T091203Z.json: 14 findings, 3 of them problems; 27 lines of the log.

An admin reads the file before he sends it, so it is indented JSON. A part that cannot be collected says why:
an installation that is broken is the one that needs support.
"""

from __future__ import annotations

import os
import platform
import sqlite3
import sys
from collections import deque
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import distributions
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from qpu_slurm import config as configuration
from qpu_slurm.admin.check import Finding, Level, check
from qpu_slurm.errors import ConfigError, OutputError, QpuSlurmError
from qpu_slurm.reach.local import open_journal
from qpu_slurm.slurm._commands import Commands
from qpu_slurm.system import logs
from qpu_slurm.system.plurals import counted
from qpu_slurm.system.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable

    from qpu_slurm.config import Config

_LINES = 200
"""How many warnings and errors of each log are collected, the newest."""

_LOG_BYTES = 16 << 20
"""How much of a log's end is searched for them."""

_WORTH_A_LINE = frozenset(("warning", "error", "critical"))

_HIDDEN = "***"
_CRN_SHOWN = 6
"""The fields of a CRN that name the service and its region; the account and the instance follow."""


class Support(msgspec.Struct, kw_only=True):
    """What is collected; a string in place of a part says why it could not be.

    Attributes:
        made_at: When, in UTC.
        versions: Of the product, Python, SQLite, Slurm, the system and the Python packages.
        configuration: What the admin wrote, with all defaults, without credentials, accounts and instances.
        findings: What `qpu-slurm check` finds on this host.
        journal: How much is in the journal; see `Journal.statistics`.
        log: The newest warnings and errors, by log file.
    """

    made_at: datetime
    versions: dict[str, Any]
    configuration: dict[str, Any] | str
    findings: list[Finding] | str
    journal: dict[str, Any] | str
    log: dict[str, list[Any] | str]


def run(path: Path | None, output: Path | None) -> int:
    """Collect everything, write it into a file, and return the exit code.

    Args:
        path: The configuration; see `config.load`.
        output: The file; None makes one with a name of its own in the current directory.

    Raises:
        OutputError: The file cannot be written, or is there already.
    """
    made_at = datetime.now(UTC)
    target = output or Path(f"qpu-slurm-support-{platform.node()}-{made_at:%Y%m%dT%H%M%SZ}.json")
    try:
        # A new file of the admin's own: in a directory that others can write to, its name may be a link.
        file = os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")
    except OSError as error:
        raise OutputError(f"{target} cannot be made: {error.strerror}.") from None
    try:
        with file:
            support = collect(path)
            file.write(msgspec.json.format(msgspec.json.encode(support, enc_hook=str)) + b"\n")
    except BaseException as error:
        target.unlink()
        if isinstance(error, OSError):
            raise OutputError(f"{target} cannot be written: {error.strerror}.") from None
        raise
    print(f"{target}: {_summary(support)}")  # noqa: T201 - a command
    return 0


def _summary(support: Support) -> str:
    lines = counted(sum(len(found) for found in support.log.values() if isinstance(found, list)), "log line")
    if isinstance(support.findings, str):
        return f"no findings ({support.findings}); {lines}."
    problems = sum(finding.level is Level.PROBLEM for finding in support.findings)
    return f"{counted(len(support.findings), 'finding')}, {counted(problems, 'problem')}; {lines}."


def collect(path: Path | None) -> Support:
    """Collect what a maintainer needs to know of this host.

    Args:
        path: The configuration; see `config.load`.
    """
    support = Support(
        made_at=datetime.now(UTC),
        versions=_versions(),
        configuration="",
        findings=_or_why(lambda: list(check(path, os.environ))),
        journal="",
        log={},
    )
    try:
        config = configuration.load(path)
    except ConfigError as error:
        support.configuration = support.journal = str(error)
        return support
    support.versions["slurm"] = _or_why(lambda: _slurm_version(config))
    support.configuration = _shown(config)
    support.journal = _or_why(lambda: _statistics(config))
    files = (config.log, config.gateway.log if config.gateway else None)
    support.log = {str(file): _or_why(partial(_warnings, file)) for file in files if file}
    return support


def _or_why(part: Callable[[], Any]) -> Any:  # noqa: ANN401 - a part, or a sentence
    try:
        return part()
    except (QpuSlurmError, OSError) as error:
        return str(error)


def _versions() -> dict[str, Any]:
    return {
        "qpu_slurm": __version__,
        "python": sys.version,
        "sqlite": sqlite3.sqlite_version,
        "system": f"{platform.platform()}; {_distribution()}",
        "packages": {found.name: found.version for found in sorted(distributions(), key=lambda it: it.name)},
    }


def _distribution() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        return "a system without /etc/os-release"


def _slurm_version(config: Config) -> str:
    return Commands(config.slurm).run("scontrol", "--version").decode(errors="replace").strip()


def _shown(config: Config) -> dict[str, Any]:
    """Return a configuration without what identifies an account: its credentials hide themselves."""
    shown: dict[str, Any] = msgspec.to_builtins(config, enc_hook=str)
    for qpu in shown["qpus"].values():
        fields = qpu["instance"].split(":")
        qpu["instance"] = ":".join(
            [*fields[:_CRN_SHOWN], *(_HIDDEN if field else "" for field in fields[_CRN_SHOWN:])]
        )
    return shown


def _statistics(config: Config) -> dict[str, Any]:
    with open_journal(config) as journal:
        return journal.statistics() | {"bytes": config.journal.stat().st_size, "losses": list(journal.losses)}


def _warnings(path: Path) -> list[Any]:
    """Return the newest warnings and errors of a log, redacted once more."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _LOG_BYTES))
        found: deque[Any] = deque(maxlen=_LINES)
        for line in file:
            try:
                event = msgspec.json.decode(line, type=dict[str, Any])
            except (msgspec.DecodeError, UnicodeDecodeError):
                continue
            if event.get("level") in _WORTH_A_LINE:
                found.append(logs.redact(None, "", event))
    return list(found)
