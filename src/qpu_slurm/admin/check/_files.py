# SPDX-License-Identifier: Apache-2.0
"""What `qpu-slurm check` looks at on this host's disks: configuration, key files, journal, log."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from qpu_slurm.admin.check._accounts import blocked, may_write, me, seen, user_name
from qpu_slurm.admin.check._diagnoses import found
from qpu_slurm.admin.check._finding import Finding, fine
from qpu_slurm.config.private import read_key
from qpu_slurm.errors import ConfigError, JournalError
from qpu_slurm.journal.journal import Journal
from qpu_slurm.journal.model import LeaseState

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from qpu_slurm.admin.check._accounts import Keeper
    from qpu_slurm.config import Config
    from qpu_slurm.journal.model import Lease

_NEVER_RUN = "no hook has run yet (if it is new in slurm.conf, restart slurmctld)"


def configuration(path: Path, error: ConfigError) -> Iterator[Finding]:
    """Say why the configuration cannot be used."""
    about = "configuration"
    try:
        path.open("rb").close()
    except FileNotFoundError:
        yield found("config missing", about, path=path)
    except OSError as why:
        place = blocked(path)
        command = f"chmod {755 if place != path else 644} {place}"
        yield found("config unreadable", about, path=path, me=me(), why=why.strerror, command=command)
    else:
        for sentence in error.problems:
            yield found("config wrong", about, why=sentence, path=path)


def keys(config: Config, keeper: Keeper, *, here: bool, node: bool = False) -> Iterator[Finding]:
    """Look at the key files, each once.

    Args:
        config: What the admin wrote.
        keeper: Who has to read them.
        here: Whether this is the gateway's host, or there is none.
        node: Whether jobs run here, which get a shared key from its file.
    """
    files: dict[Path, list[str]] = {}
    for qpu in config.qpus.values():
        for path in qpu.key_files:
            files.setdefault(path, []).append(qpu.name)
    if here and config.qrmi_config and not config.qpus:
        yield _unseen("qrmi_config", config.qrmi_config, keeper)
    for path, names in files.items():
        about = f"key of {', '.join(names)}"
        of_jobs = all(not config.qpus[name].through_gateway for name in names)
        if here or (of_jobs and (node or seen(path))):
            yield _key(path, about, keeper)
        elif seen(path):
            yield found("key elsewhere", about, path=path)


def _key(path: Path, about: str, keeper: Keeper) -> Finding:
    user = keeper.name
    try:
        if wrong := _exposed(path, about, keeper):
            return wrong
        read_key(path)
    except FileNotFoundError:
        return found("key missing", about, path=path, command=f"install -m 600 -o {user} /dev/null {path}")
    except OSError:
        return _unseen(about, path, keeper)
    except ConfigError as error:
        if not os.access(path, os.R_OK):
            return _unseen(about, path, keeper)
        return found("key wrong", about, why=error, path=path)
    return fine(about, str(path))


def _exposed(path: Path, about: str, keeper: Keeper) -> Finding | None:
    """Look at who may read a key file."""
    status = path.stat()
    if stat.S_ISREG(status.st_mode) and status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        return found("key exposed", about, path=path)
    if keeper.owns(path):
        return None
    owner, command = user_name(status.st_uid), f"chown {keeper.name} {path}"
    return found("key's owner", about, path=path, owner=owner, user=keeper.name, command=command)


def _unseen(about: str, path: Path, keeper: Keeper) -> Finding:
    """Say why something cannot be seen: this is another user, or the keeper cannot either."""
    if not keeper.here:
        return found("not allowed to see", about, path=blocked(path), me=me(), user=keeper.name)
    place = blocked(path)
    command = f"chown {keeper.name} {place}"
    return found("key unreadable", about, path=place, user=keeper.name, command=command)


def journal(path: Path, keeper: Keeper) -> Iterator[Finding]:
    """Look at the journal, or at the directory that it will be in."""
    about, directory, user = "journal", path.parent, keeper.name
    try:
        if not directory.is_dir():
            command = f"install -d -o {user} -m 700 {directory}"
            yield found("directory missing", about, path=directory, command=command)
            return
        made = path.exists()
        # SQLite writes files of its own beside the journal.
        for place in (directory, path) if made else (directory,):
            if not keeper.owns(place):
                owner, command = user_name(place.stat().st_uid), f"chown -R {user} {directory}"
                yield found("owner", about, path=place, owner=owner, user=user, command=command)
                return
        leases = _leases(path) if made else []
    except PermissionError:
        yield _unwritable(about, blocked(path), keeper)
        return
    except (JournalError, OSError) as error:
        yield found("journal damaged", about, why=error)
        return
    yield fine(about, f"{path}: {f'{len(leases)} open leases' if made else _NEVER_RUN}")
    for lease in leases:
        if lease.state is LeaseState.RELEASING:
            yield found("session left", about, job=lease.job_id, qpu=lease.qpu)


def _leases(path: Path) -> list[Lease]:
    with Journal(path) as journal_:
        return journal_.leases()


def _unwritable(about: str, place: Path, keeper: Keeper) -> Finding:
    if not keeper.here:
        return found("not allowed to see", about, path=place, me=me(), user=keeper.name)
    command = f"chown -R {keeper.name} {place}"
    return found("not writable", about, path=place, user=keeper.name, command=command)


def log(config: Config, keeper: Keeper) -> Finding:
    """Look at whether what hooks and gateway log finds its file."""
    about, user = "log", keeper.name
    if config.log is None:
        return found("no log", about, path=config.path)
    directory = config.log.parent
    try:
        if not directory.is_dir():
            command = f"install -d -o {user} -m 750 {directory}"
            return found("directory missing", about, path=directory, command=command)
        place = config.log if config.log.exists() else directory
        if not may_write(keeper.uid, place):
            owner = user_name(place.stat().st_uid)
            return found("owner", about, path=place, owner=owner, user=user, command=f"chown {user} {place}")
    except PermissionError:
        return _unwritable(about, blocked(config.log), keeper)
    return fine(about, str(config.log))
