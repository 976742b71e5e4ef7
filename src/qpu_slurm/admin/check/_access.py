# SPDX-License-Identifier: Apache-2.0
"""Whether the rules of who may use a QPU, and how long, name what there is, and whether Slurm proves it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from qpu_slurm.admin.access import LUA, as_lua
from qpu_slurm.admin.check._diagnoses import found
from qpu_slurm.admin.check._finding import Finding, fine
from qpu_slurm.config.access import JOB_KEYS
from qpu_slurm.config.budgets import ALL, EACH
from qpu_slurm.errors import SlurmError, UnavailableError
from qpu_slurm.slurm._commands import Commands
from qpu_slurm.system.deadline import Deadline
from qpu_slurm.system.directory import DIRECTORY

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from qpu_slurm.config import Config

_ABOUT = "access"
_SECONDS = 20.0

_LISTS = {
    "accounts": ("sacctmgr", "--parsable2", "--noheader", "show", "account", "format=account"),
    "partitions": ("sinfo", "--all", "--noheader", "--format=%R"),
    "qos": ("sacctmgr", "--parsable2", "--noheader", "show", "qos", "format=name"),
}
"""The commands that list what Slurm has."""

_PROVE = {
    "accounts": {"associations", "limits", "qos", "safe", "all"},
    "qos": {"qos", "all"},
}
"""The values of AccountingStorageEnforce of which one makes a user's word for it a fact."""


def check(config: Config, settings: Mapping[str, str], *, here: bool) -> Iterator[Finding]:
    """Look at the rules.

    Args:
        config: What the admin wrote.
        settings: What slurmctld has; empty if it does not answer.
        here: Whether this host decides who may.
    """
    if here:
        yield from _limited(config)
    rules = [rule for qpu in config.qpus.values() for rule in qpu.access_rules.rules]
    if not rules:
        return
    named = {
        key: {name for rule in rules for name in getattr(rule, key)} for key in ("users", "groups", *JOB_KEYS)
    }
    wrong: list[Finding] = []
    if here:
        wrong += _people(named["users"], named["groups"])
    if settings:
        for key in filter(named.__getitem__, JOB_KEYS):
            wrong += _of_slurm(config, settings, key, named[key])
        wrong += _at_submission(config, settings)
    yield from wrong
    if not wrong:
        ruled = [name for name, qpu in config.qpus.items() if qpu.access_rules.rules]
        yield fine(_ABOUT, f"rules for {', '.join(ruled)}")


def _limited(config: Config) -> Iterator[Finding]:
    """Look whether the system knows the users whom budgets name."""
    users = {budget.scope.user for budget in config.budgets.standing} - {ALL, EACH}
    deadline = Deadline.after(_SECONDS)
    try:
        for name in sorted(user for user in users if not user.isdigit()):
            if DIRECTORY.user_id(name, deadline) is None:
                yield found("budget user", "budgets", name=name)
    except UnavailableError as error:
        yield found("access directory", "budgets", why=error)


def _people(users: set[str | int], groups: set[str | int]) -> Iterator[Finding]:
    """Look whether the system knows users and groups. A number without a name is none of our business."""
    deadline = Deadline.after(_SECONDS)
    try:
        for name in sorted(user for user in users if isinstance(user, str)):
            if DIRECTORY.user_id(name, deadline) is None:
                yield found("access user", _ABOUT, name=name)
        for name in sorted(group for group in groups if isinstance(group, str)):
            if DIRECTORY.group_id(name, deadline) is None:
                yield found("access group", _ABOUT, name=name)
    except UnavailableError as error:
        yield found("access directory", _ABOUT, why=error)


def _of_slurm(
    config: Config, settings: Mapping[str, str], key: str, names: set[str | int]
) -> Iterator[Finding]:
    """Compare what rules name with what Slurm has."""
    one = {"accounts": "account", "partitions": "partition", "qos": "QOS"}[key]
    enforced = set(re.split(r"[,\s]+", settings.get("AccountingStorageEnforce", "").lower()))
    if key in _PROVE and not _PROVE[key] & enforced:
        value = "associations" if key == "accounts" else "qos"
        yield found("access unproven", _ABOUT, what=one, value=value)
        return
    try:
        listed = Commands(config.slurm).run(*_LISTS[key]).decode(errors="replace").splitlines()
    except SlurmError as error:
        yield found("access not compared", _ABOUT, what=one, why=error)
        return
    have = {name.strip().rstrip("*") for name in listed}
    if key != "partitions":
        # slurmdbd has them in lower case.
        names = {str(name).lower() for name in names}
    for name in sorted(map(str, names - have)):
        yield found("access name", _ABOUT, what=one, name=name)


def _at_submission(config: Config, settings: Mapping[str, str]) -> Iterator[Finding]:
    """Look whether job_submit.lua knows the same rules, on the controller where it is."""
    script = config.slurm.conf.with_name("job_submit.lua")
    path = script.with_name(LUA)
    if "lua" not in settings.get("JobSubmitPlugins", "").split(",") or not script.exists():
        return
    try:
        known = path.read_text() if path.exists() else ""
        if known.strip() != as_lua(config):
            yield found("access at submission", _ABOUT, path=path)
    except OSError as error:
        yield found("access unreadable", _ABOUT, path=path, why=error.strerror)
    except UnavailableError as error:
        yield found("access directory", _ABOUT, why=error)
