# SPDX-License-Identifier: Apache-2.0
"""What `qpu-slurm check` looks at on Slurm's side: hooks, plugin, partitions, and that they fit together."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from qpu_slurm.admin.check._finding import Finding, Level
from qpu_slurm.errors import SlurmError
from qpu_slurm.slurm._commands import Commands

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from qpu_slurm.config import Config

_PLUGIN = "qpu_slurm.so"
_NOTHING = ("", "(null)")
_INCLUDES = 10

_MANY = 1000
"""How many licenses stand for any number of jobs."""


class Hook(NamedTuple):
    """What is written into one of our hook scripts (plugin/hooks) as it is installed.

    Attributes:
        program: The path of qpu-slurm.
        partitions: Where a gres alone asks for a QPU.
        config: The configuration that it names.
    """

    program: str
    partitions: frozenset[str]
    config: str


class Plugin(NamedTuple):
    """Our line of plugstack.conf.

    Attributes:
        path: The plugin's file, as written.
        arguments: What stands behind it.
    """

    path: str
    arguments: Mapping[str, str]

    def names(self, argument: str) -> frozenset[str]:
        """Return an argument that is a list of names."""
        return frozenset(filter(None, self.arguments.get(argument, "").split(",")))


def slurm_user(config: Config) -> int | None:
    """Return the user id that hooks run under; None if Slurm does not say."""
    try:
        found = re.search(r"\((\d+)\)", _settings(config).get("SlurmUser", ""))
    except SlurmError:
        return None
    return int(found[1]) if found else None


def check(config: Config) -> Iterator[Finding]:
    """Look at Slurm's side."""
    conf = config.slurm.conf
    try:
        settings = _settings(config)
    except SlurmError as error:
        # Without it, Slurm's commands wait in vain for somebody who tells them.
        seen = os.access(conf, os.F_OK)
        lost = "" if seen else f" {conf} is not to be seen: set `conf` in [slurm] of {config.path}."
        yield Finding(Level.PROBLEM, "Slurm", f"{error}{lost}")
        return
    hooks = []
    for setting, kind in (("PrologSlurmctld", "prolog"), ("EpilogSlurmctld", "epilog")):
        findings, hook = _hook(config, settings, setting, kind)
        yield from findings
        if hook is not None:
            hooks.append(hook)
    partitions = frozenset[str]().union(*(hook.partitions for hook in hooks))
    if len({hook.partitions for hook in hooks}) > 1:
        yield Finding(Level.PROBLEM, "hooks", "they name different partitions. Install both anew, together.")
    yield from _plugin(config, settings, partitions if hooks else None)
    yield from _partitions(config, partitions if hooks else None)
    if "qpu" not in settings.get("GresTypes", "").split(","):
        text = "GresTypes has no qpu: users can write --qpu, but not --gres=qpu:1."
        yield Finding(Level.WARNING, "slurm.conf", text)
    yield _licenses(config, settings)
    yield from _accounting(config, settings)


def _accounting(config: Config, settings: Mapping[str, str]) -> Iterator[Finding]:
    """Look at whether slurmdbd is sent the environment of jobs, which has users' keys in it."""
    own = [name for name, qpu in config.qpus.items() if qpu.credentials == "user"]
    if own and "job_env" in settings.get("AccountingStoreFlags", "").split(","):
        yield Finding(
            Level.WARNING,
            "accounting",
            "AccountingStoreFlags has job_env: slurmdbd keeps the environment of each batch job, and with it"
            f" the API key of the user, for {', '.join(own)}. Remove job_env, or use a gateway.",
        )


def _licenses(config: Config, settings: Mapping[str, str]) -> Finding:
    """Look at whether jobs wait in the queue for a QPU that is not to be had."""
    there = re.findall(r"([^,:*@|;()\s]+)(?:[:*](\d+))?", settings.get("Licenses", ""))
    have = {name: int(count or 1) for name, count in there}
    wanted = {name: qpu.limit or _MANY for name, qpu in config.qpus.items()}
    line = ",".join(f"{name}:{count}" for name, count in wanted.items())
    advice = f"Write `Licenses={line}` into slurm.conf"
    wrong = [name for name, qpu in config.qpus.items() if qpu.limit not in {None, have.get(name)}]
    level, text = Level.WARNING, ""
    if not have.keys() & wanted.keys():
        text = (
            "no QPU is one, so no job waits in the queue for its QPU: it is put back as it starts, and srun "
            f"and salloc end. {advice}; docs/install.md has the rest."
        )
    elif missing := wanted.keys() - have.keys():
        names = ", ".join(sorted(missing))
        level, text = Level.PROBLEM, f"{names} is none: sbatch refuses its jobs. {advice}."
    elif wrong:
        text = f"there are not as many of {', '.join(wrong)} as jobs may have it. {advice}."
    elif "lua" not in settings.get("JobSubmitPlugins", "").split(","):
        text = "no job asks for them. Write `JobSubmitPlugins=lua`, copy contrib/slurm/job_submit.lua."
    elif not (lua := config.slurm.conf.with_name("job_submit.lua")).is_file():
        level, text = Level.PROBLEM, f"{lua} is not there. Copy contrib/slurm/job_submit.lua."
    if text:
        return Finding(level, "licenses", text)
    return Finding(Level.OK, "licenses", ", ".join(f"{name}:{have[name]}" for name in wanted))


def _settings(config: Config) -> dict[str, str]:
    """Return slurm.conf as slurmctld has it; what is a list in newer releases has its first item."""
    output = Commands(config.slurm).run("scontrol", "show", "config").decode(errors="replace")
    found = re.findall(r"^(\w+)(?:\[\d+\])?\s*= ?(.*?)\s*$", output, re.MULTILINE)
    return dict(reversed(found))


def _hook(
    config: Config, settings: Mapping[str, str], setting: str, kind: str
) -> tuple[list[Finding], Hook | None]:
    path = settings.get(setting, "")
    if path in _NOTHING:
        text = f"names no {setting}. Write `{setting}=/usr/libexec/qpu_slurm/{kind}.sh`."
        return [Finding(Level.PROBLEM, "slurm.conf", text)], None
    try:
        text = Path(path).read_text(errors="replace")
    except OSError as error:
        text = f"{path}: cannot be read ({error.strerror}). Run this on the controller, as root or SlurmUser."
        return [Finding(Level.PROBLEM, setting, text)], None
    hook = _read_hook(text, kind)
    if hook is None:
        return [Finding(Level.WARNING, setting, f"{path} is not ours: have it call our {kind}.sh.")], None
    problems = []
    if not os.access(path, os.X_OK):
        problems.append(f"{path}: cannot be executed. Write `chmod 755 {path}`.")
    if not os.access(hook.program, os.X_OK):
        missing = _why_not_run(Path(hook.program))
        problems.append(f"{path}: runs {hook.program}, which {missing}.")
    if not _same(hook.config, config.path):
        problems.append(f"{path}: reads {hook.config}, not {config.path}. Install it anew with CONFIG=….")
    findings = [Finding(Level.PROBLEM, setting, problem) for problem in problems]
    return findings or [Finding(Level.OK, setting, path)], hook


def _why_not_run(program: Path) -> str:
    try:
        if not program.exists():
            return "is not there. Install it anew with QPU_SLURM=…"
    except PermissionError:
        pass
    # Such as a virtual environment made with a Python that lies in root's home.
    return "SlurmUser cannot run. Let everybody read and execute it, and the Python that it names"


def _read_hook(text: str, kind: str) -> Hook | None:
    program = re.search(r"^qpu_slurm='([^']*)'", text, re.MULTILINE)
    partitions = re.search(r"^partitions='([^']*)'", text, re.MULTILINE)
    command = re.search(rf"--config '([^']*)' hook {kind}\b", text)
    if not (program and partitions and command):
        return None
    return Hook(program[1], frozenset(filter(None, partitions[1].split(","))), command[1])


def _plugin(
    config: Config, settings: Mapping[str, str], partitions: frozenset[str] | None
) -> Iterator[Finding]:
    path = settings.get("PlugStackConfig", "")
    stack = Path(path) if path not in _NOTHING else config.slurm.conf.with_name("plugstack.conf")
    try:
        plugins = list(_read_plugstack(stack))
    except FileNotFoundError:
        plugins = []
    except OSError as error:
        yield Finding(Level.PROBLEM, "plugin", f"{error.filename}: cannot be read ({error.strerror}).")
        return
    if len(plugins) != 1:
        what = "names our plugin twice" if plugins else "does not name our plugin"
        text = (
            f"{stack}: {what}. On submit hosts and compute nodes, it needs what `qpu-slurm plugstack` prints."
        )
        # The controller itself has no use for it.
        yield Finding(Level.PROBLEM if plugins else Level.WARNING, "plugin", text)
        return
    [plugin] = plugins
    problems = list(_misfits(config, plugin, partitions))
    where = [Path(directory, plugin.path) for directory in settings.get("PluginDir", "").split(":")]
    if not any(file.is_file() for file in where):
        problems.append(f"names {plugin.path}, which is not there. Run `make -C plugin install`.")
    for problem in problems:
        yield Finding(Level.PROBLEM, "plugin", f"{stack}: {problem}")
    if not problems:
        yield Finding(Level.OK, "plugin", f"{stack}: fits the configuration")


def _read_plugstack(path: Path, depth: int = 0) -> Iterator[Plugin]:
    """Find our lines in plugstack.conf, and in what it includes."""
    for line in path.read_text(errors="replace").splitlines():
        kind, *rest = shlex.split(line, comments=True, posix=False) or [""]
        if kind == "include" and rest and depth < _INCLUDES:
            for included in sorted(Path(path.parent).glob(rest[0]) if rest[0][0] != "/" else _glob(rest[0])):
                yield from _read_plugstack(included, depth + 1)
        elif kind in {"required", "optional"} and rest and Path(rest[0]).name == _PLUGIN:
            pairs = (argument.partition("=") for argument in rest[1:])
            yield Plugin(rest[0], {name: value for name, _, value in pairs})


def _glob(pattern: str) -> list[Path]:
    return list(Path("/").glob(pattern.lstrip("/")))


def _misfits(config: Config, plugin: Plugin, partitions: frozenset[str] | None) -> Iterator[str]:
    """Say what does not fit between our line of plugstack.conf and the rest."""
    advice = "Write what `qpu-slurm plugstack` prints into it, on every node."
    own = frozenset(name for name, qpu in config.qpus.items() if qpu.credentials == "user")
    for argument, names in (("qpus", frozenset(config.qpus)), ("user_credentials", own)):
        if missing := names - plugin.names(argument):
            yield f"{argument} lacks {', '.join(sorted(missing))}. {advice}"
        if extra := plugin.names(argument) - names:
            yield f"{argument} has {', '.join(sorted(extra))}, which the configuration has not. {advice}"
    if partitions is not None and plugin.names("gres_partitions") != partitions:
        yield f"gres_partitions differs from the hooks' ({','.join(sorted(partitions))}). {advice}"
    # What is not given is what plugin/arguments.c says; those are our own defaults.
    helper, path = plugin.arguments.get("helper"), plugin.arguments.get("config")
    if helper is not None and not os.access(helper, os.X_OK):
        yield f"helper names {helper}, which is not there. {advice}"
    if path is not None and not _same(path, config.path):
        yield f"config names {path}, not {config.path}. {advice}"


def _partitions(config: Config, partitions: frozenset[str] | None) -> Iterator[Finding]:
    """Compare the partitions that have the gres with those that the hooks know."""
    try:
        output = Commands(config.slurm).run("sinfo", "--all", "--noheader", "--format=%R|%G")
    except SlurmError as error:
        yield Finding(Level.PROBLEM, "partitions", str(error))
        return
    rows = (line.split("|", 1) for line in output.decode(errors="replace").splitlines() if "|" in line)
    have = {name for name, gres in rows if re.search(r"(?:^|,)(?:gres[:/])?qpu(?:[:(,]|$)", gres)}
    if partitions is None:
        return
    if "*" not in partitions and (missing := have - partitions):
        names = ",".join(sorted(partitions | missing))
        yield Finding(
            Level.PROBLEM,
            "partitions",
            f"{', '.join(sorted(missing))}: has gres qpu, and the hooks do not know; --gres=qpu:1 alone gets "
            f"no QPU there. Install the hooks anew with GRES_PARTITIONS={names}, and write anew what "
            "`qpu-slurm plugstack` prints into plugstack.conf.",
        )
    elif not have:
        yield Finding(Level.WARNING, "partitions", "none has gres qpu: users can write --qpu, but no --gres.")
    else:
        yield Finding(Level.OK, "partitions", f"{', '.join(sorted(have))} with gres qpu")


def _same(written: str, path: Path) -> bool:
    return Path(written) == path or (Path(written).exists() and Path(written).samefile(path))
