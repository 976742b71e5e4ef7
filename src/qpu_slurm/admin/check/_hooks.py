# SPDX-License-Identifier: Apache-2.0
"""What `qpu-slurm check` looks at in the hook scripts that slurm.conf names."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from qpu_slurm.admin.check._accounts import me, seen, why_not_run
from qpu_slurm.admin.check._diagnoses import found
from qpu_slurm.admin.check._finding import Finding, fine
from qpu_slurm.config import load
from qpu_slurm.config.digest import digests
from qpu_slurm.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from qpu_slurm.config import Config

NOTHING = ("", "(null)")
"""What Slurm shows for a setting that is not set."""

_HOOKS = {"PrologSlurmctld": "prolog", "EpilogSlurmctld": "epilog"}


_SETTING = re.compile(r"^(\w+) = ?(.*)$", re.MULTILINE)


class Hook(NamedTuple):
    """What is written into one of our hooks (plugin/hooks) as it is installed.

    Attributes:
        client: The program that reads it (plugin/client).
        program: The path of qpu-slurm.
        partitions: Where a gres alone asks for a QPU.
        config: The configuration that it names.
    """

    client: str
    program: str
    partitions: frozenset[str]
    config: str


def partitions_of(settings: Mapping[str, str]) -> frozenset[str] | None:
    """Return the partitions in which a gres alone asks for a QPU; None if no hook of ours says."""
    hooks = [hook for hook in (_hook(settings.get(name, ""), kind) for name, kind in _HOOKS.items()) if hook]
    return frozenset[str]().union(*(hook.partitions for hook in hooks)) if hooks else None


def check(config: Config, settings: Mapping[str, str]) -> Iterator[Finding]:
    """Look at both hooks, and at whether they fit together."""
    for setting, kind in _HOOKS.items():
        yield from _check(config, settings.get(setting, ""), setting, kind)
    hooks = [_hook(settings.get(setting, ""), kind) for setting, kind in _HOOKS.items()]
    if len({hook.partitions for hook in hooks if hook}) > 1:
        yield found("hooks differ", "hooks")


def _check(config: Config, path: str, setting: str, kind: str) -> Iterator[Finding]:
    if path in NOTHING:
        script = f"/usr/libexec/qpu_slurm/{kind}.sh"
        yield found("no hook", "slurm.conf", setting=setting, script=script)
        return
    try:
        Path(path).open("rb").close()
    except FileNotFoundError:
        yield found("hook missing", setting, path=path, setting=setting)
        return
    except OSError as error:
        yield found("hook unreadable", setting, path=path, me=me(), why=error.strerror)
        return
    hook = _hook(path, kind)
    if hook is None:
        yield found("hook of others", setting, path=path, kind=kind)
        return
    wrong = list(_wrong(config, path, setting, hook))
    yield from wrong or [fine(setting, path)]


def _wrong(config: Config, path: str, setting: str, hook: Hook) -> Iterator[Finding]:
    if not os.access(path, os.X_OK):
        yield found("hook not executable", setting, path=path)
    if why := why_not_run(Path(hook.client)):
        yield found("hook's program", setting, path=path, program=hook.client, why=why)
    if why := why_not_run(Path(hook.program)):
        yield found("hook's program", setting, path=path, program=hook.program, why=why)
    if diagnosis := other_file(hook.config, config):
        yield found(f"hook's {diagnosis}", setting, path=path, config=hook.config, own=config.path)


def _hook(path: str, kind: str) -> Hook | None:
    """Read a hook of ours; None if it is another's, or cannot be read."""
    try:
        text = Path(path).read_text(errors="replace")
    except OSError:
        return None
    settings = dict(_SETTING.findall(text))
    if settings.get("run") != kind or not settings.keys() >= {"qpu_slurm", "config", "gres_partitions"}:
        return None
    return Hook(
        client=text.partition("\n")[0].removeprefix("#!"),
        program=settings["qpu_slurm"],
        partitions=frozenset(filter(None, settings["gres_partitions"].split(","))),
        config=settings["config"],
    )


def other_file(written: str, config: Config) -> str:
    """Return what is wrong with the file that a hook or the plugin reads, as diagnoses name it, if anything.

    Where there is a gateway, it may have a file of its own: all others need the same QPUs and URL only.
    """
    if same(written, config.path):
        return ""
    if config.gateway is not None:
        with suppress(ConfigError):
            other = load(Path(written))
            return "" if digests(other).shared == digests(config).shared else "QPUs"
    return "configuration"


def same(written: str, path: Path) -> bool:
    """Tell whether a path that stands somewhere leads to the same file as another."""
    return Path(written) == path or (seen(Path(written)) and Path(written).samefile(path))
