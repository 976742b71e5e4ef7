# SPDX-License-Identifier: Apache-2.0
"""What `qpu-slurm check` looks at of the SPANK plugin: its line in plugstack.conf, and its file."""

from __future__ import annotations

import shlex
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from qpu_slurm.admin.check._accounts import me, seen, why_not_run
from qpu_slurm.admin.check._diagnoses import found
from qpu_slurm.admin.check._finding import Finding, fine
from qpu_slurm.admin.check._hooks import NOTHING, other_file
from qpu_slurm.admin.check._slurm import conf_here
from qpu_slurm.errors import SlurmError
from qpu_slurm.slurm._commands import Commands

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from qpu_slurm.config import Config

_PLUGIN = "qpu_slurm.so"
_INCLUDES = 10

_DIRECTORIES = ("/usr/lib64/slurm", "/usr/lib/slurm", "/usr/local/lib/slurm")
"""Where Slurm's packages have their plugins; on Debian, the architecture is in the path, too."""


class Host(Enum):
    """What a host needs the plugin for; its value is the option of `qpu-slurm plugstack` for it."""

    NODE = ""
    SUBMIT = " --submit"
    OTHER = None
    """Nothing that is known: a controller, say."""


class Plugin(NamedTuple):
    """Our line of plugstack.conf.

    Attributes:
        kind: `required` or `optional`.
        path: The plugin's file, as written.
        arguments: What stands behind it.
    """

    kind: str
    path: str
    arguments: Mapping[str, str]

    def names(self, argument: str) -> frozenset[str]:
        """Return an argument that is a list of names."""
        return frozenset(filter(None, self.arguments.get(argument, "").split(",")))


def check(
    config: Config, settings: Mapping[str, str], host: Host, partitions: frozenset[str] | None
) -> Iterator[Finding]:
    """Look at the plugin on this host.

    Args:
        config: What the admin wrote.
        settings: Slurm's.
        host: What it is for here.
        partitions: Where a gres alone asks for a QPU, as the hooks know them; None if there is no hook here.
    """
    about = "plugin"
    path = settings.get("PlugStackConfig", "")
    stack = Path(path) if path not in NOTHING else conf_here(config).with_name("plugstack.conf")
    try:
        plugins = list(_read_plugstack(stack))
    except FileNotFoundError:
        plugins = []
    except OSError as error:
        yield found("plugstack unreadable", about, path=error.filename, me=me(), why=error.strerror)
        return
    if not plugins and host is Host.OTHER and not _hands_out(settings):
        yield fine(
            about, "not used on this host (nodes: `check --partition`; submit hosts: `check --submit`)"
        )
    elif not plugins:
        yield found("plugin not named", about, path=stack, option=host.value or "")
    elif len(plugins) > 1:
        yield found("plugin twice", about, path=stack, count=len(plugins))
    else:
        [plugin] = plugins
        wrong = [
            *_of_file(config, settings, stack, plugin, host),
            *_of_arguments(config, stack, plugin, partitions),
        ]
        yield from wrong or [fine(about, f"{stack}: fits the configuration")]


def _of_file(
    config: Config, settings: Mapping[str, str], stack: Path, plugin: Plugin, host: Host
) -> Iterator[Finding]:
    """Look at whether Slurm can load it."""
    about = "plugin"
    if host is Host.NODE and plugin.kind == "required":
        yield found("plugin required", about, path=stack)
    directories = _directories(settings)
    if not any(seen(directory / plugin.path) for directory in directories):
        if host is Host.OTHER and plugin.kind == "optional" and _hands_out(settings):
            return  # the line is for the nodes
        listed = " or ".join(map(str, directories))
        yield found("plugin missing", about, path=stack, plugin=plugin.path, directories=listed)
    elif host is Host.SUBMIT and not _loaded(config):
        srun = config.slurm.bin / "srun"
        yield found("plugin not loaded", about, srun=srun, path=stack, plugin=plugin.path)


def _hands_out(settings: Mapping[str, str]) -> bool:
    """Return whether a controller sends plugstack.conf to nodes, and so needs the line without the plugin."""
    return "enable_configless" in settings.get("SlurmctldParameters", "")


def _directories(settings: Mapping[str, str]) -> list[Path]:
    if (listed := settings.get("PluginDir", "")) not in NOTHING:
        return [Path(directory) for directory in listed.split(":")]
    debian = sorted(Path("/usr/lib").glob("*/slurm-wlm"))
    return [place for place in (*debian, *map(Path, _DIRECTORIES)) if place.is_dir()] or [
        Path(_DIRECTORIES[0])
    ]


def _loaded(config: Config) -> bool:
    """Ask srun whether it has our option: it loads the plugins to list theirs, and asks no other host."""
    try:
        return b"--qpu=" in Commands(config.slurm).run("srun", "--help")
    except SlurmError:
        return False


def _read_plugstack(path: Path, depth: int = 0) -> Iterator[Plugin]:
    """Find our lines in plugstack.conf, and in what it includes."""
    for line in path.read_text(errors="replace").splitlines():
        kind, *rest = shlex.split(line, comments=True, posix=False) or [""]
        if kind == "include" and rest and depth < _INCLUDES:
            for included in sorted(Path(path.parent).glob(rest[0]) if rest[0][0] != "/" else _glob(rest[0])):
                yield from _read_plugstack(included, depth + 1)
        elif kind in {"required", "optional"} and rest and Path(rest[0]).name == _PLUGIN:
            pairs = (argument.partition("=") for argument in rest[1:])
            yield Plugin(kind, rest[0], {name: value for name, _, value in pairs})


def _glob(pattern: str) -> list[Path]:
    return list(Path("/").glob(pattern.lstrip("/")))


def _of_arguments(
    config: Config, stack: Path, plugin: Plugin, partitions: frozenset[str] | None
) -> Iterator[Finding]:
    """Look at what does not fit between our line of plugstack.conf and the rest."""
    about = "plugin"
    own = frozenset(name for name, qpu in config.qpus.items() if qpu.needs_user_key)
    told: frozenset[str] = frozenset()
    expected = (("qpus", frozenset(config.qpus)), ("user_credentials", own)) if config.qpus else ()
    for argument, names in expected:
        have = plugin.names(argument)
        for diagnosis, differ in (("plugin lacks", names - have), ("plugin has", have - names)):
            if new := differ - told:
                yield found(diagnosis, about, path=stack, argument=argument, names=", ".join(sorted(new)))
            told |= differ
    if partitions is not None and plugin.names("gres_partitions") != partitions:
        yield found("plugin's partitions", about, path=stack, names=",".join(sorted(partitions)))
    if plugin.arguments.get("step_patience", "0") != str(config.step_patience):
        yield found("plugin's patience", about, path=stack, seconds=config.step_patience)
    # What is not given is what plugin/arguments.c says; those are our own defaults.
    helper, path = plugin.arguments.get("helper"), plugin.arguments.get("config")
    if helper is not None and (why := why_not_run(Path(helper))):
        yield found("plugin's helper", about, path=stack, helper=helper, why=why)
    if path is not None and (diagnosis := other_file(path, config)):
        yield found(f"plugin's {diagnosis}", about, path=stack, config=path, own=config.path)
