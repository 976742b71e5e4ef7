# SPDX-License-Identifier: Apache-2.0
"""What `qpu-slurm check` looks at on this machine's disks: key files, journal, log."""

from __future__ import annotations

import os
import pwd
from typing import TYPE_CHECKING

from qpu_slurm.admin.check._finding import Finding, Level
from qpu_slurm.errors import ConfigError, JournalError
from qpu_slurm.journal.journal import Journal
from qpu_slurm.journal.model import LeaseState

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from qpu_slurm.config import Config


_NEVER_RUN = "not made yet: no hook has run (one that is new in slurm.conf wants a restart of slurmctld)"


def check(config: Config, slurm_user: int | None, *, here: bool = True) -> Iterator[Finding]:
    """Look at the files that the configuration names.

    Args:
        config: What the admin wrote.
        slurm_user: The user id that the hooks, and the gateway, run under; None if it is not known.
        here: Whether this is the gateway's host, or there is none: journal and keys are here.
    """
    keeper = _keeper(config, slurm_user) if here else slurm_user
    yield from _keys(config, keeper, here=here)
    if here:
        yield from _journal(config.journal, keeper)
    yield _log(config, slurm_user)


def _keeper(config: Config, slurm_user: int | None) -> int | None:
    """Tell whose keys and journal are: SlurmUser's, or those of a gateway that runs as a user of its own."""
    trusted = config.gateway.trusted_users if config.gateway else ()
    if slurm_user is None or not {slurm_user, _name(slurm_user)} & set(trusted):
        return slurm_user
    try:
        return config.journal.parent.stat().st_uid
    except OSError:
        return slurm_user


def _keys(config: Config, slurm_user: int | None, *, here: bool) -> Iterator[Finding]:
    for qpu in config.qpus.values():
        if qpu.credentials == "user" or qpu.key_file is None:
            continue
        about = f"key of {qpu.name}"
        if qpu.credentials == "gateway" and not here:
            if os.access(qpu.key_file, os.F_OK):
                text = f"{qpu.key_file}: belongs on the gateway's host, and nowhere else. Remove it here."
                yield Finding(Level.PROBLEM, about, text)
            continue
        try:
            qpu.key()
        except ConfigError as error:
            yield Finding(Level.PROBLEM, about, str(error))
            continue
        owner = qpu.key_file.stat().st_uid
        if slurm_user not in {None, 0, owner}:
            name = _name(slurm_user)
            yield Finding(
                Level.PROBLEM,
                about,
                f"{qpu.key_file}: belongs to {_name(owner)}, and the hooks run as {name}. On the controller, "
                f"write `chown {name} {qpu.key_file}`.",
            )
        else:
            yield Finding(Level.OK, about, str(qpu.key_file))


def _journal(path: Path, slurm_user: int | None) -> Iterator[Finding]:
    directory = path.parent
    name = _name(slurm_user)
    if not directory.is_dir():
        yield Finding(
            Level.PROBLEM,
            "journal",
            f"{directory}: is not there. Write `install -d -o {name} -m 700 {directory}`.",
        )
        return
    try:
        made = path.exists()
        place = path if made else directory
        owner = place.stat().st_uid
        leases = []
        if made:
            with Journal(path) as journal:
                leases = journal.leases()
    except PermissionError:
        text = f"{directory}: cannot be entered by {_name(os.geteuid())}. Run this as root or {name}."
        yield Finding(Level.PROBLEM, "journal", text)
        return
    except (JournalError, OSError) as error:
        yield Finding(Level.PROBLEM, "journal", str(error))
        return
    if slurm_user not in {None, 0, owner}:
        yield Finding(
            Level.PROBLEM,
            "journal",
            f"{place}: belongs to {_name(owner)}, and the hooks run as {name}. Write `chown {name} {place}`.",
        )
    else:
        held = f"{len(leases)} open leases" if made else _NEVER_RUN
        yield Finding(Level.OK, "journal", f"{path}: {held}")
    for lease in leases:
        if lease.state is LeaseState.RELEASING:
            yield Finding(
                Level.WARNING,
                "journal",
                f"Job {lease.job_id} has ended, and its session on {lease.qpu} has not. "
                f"Write `qpu-slurm release {lease.job_id}`.",
            )


def _log(config: Config, slurm_user: int | None) -> Finding:
    if config.log is None:
        text = "Slurm keeps nothing of what its hooks write. Set `log`, or their errors are lost."
        return Finding(Level.WARNING, "log", f"{config.path}: {text}")
    directory = config.log.parent
    # Whether it is there, who may not enter its directory cannot know.
    if not os.access(directory, os.F_OK) and os.access(directory.parent, os.X_OK):
        text = f"{directory}: is not there. Write `install -d -o {_name(slurm_user)} -m 750 {directory}`."
        return Finding(Level.PROBLEM, "log", text)
    if not os.access(config.log if os.access(config.log, os.F_OK) else directory, os.W_OK):
        return Finding(Level.PROBLEM, "log", f"{config.log}: cannot be written by {_name(os.geteuid())}.")
    return Finding(Level.OK, "log", str(config.log))


def _name(user: int | None) -> str:
    """Return an account's name; SlurmUser's usual one if we could not learn it."""
    if user is None:
        return "slurm"
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return str(user)
