# SPDX-License-Identifier: Apache-2.0
"""Job keys: what a job shows the gateway instead of the service's credential.

A key is the lease's number and a MAC over what makes the lease the one that it is. Nothing about it is
stored: it can be made again from the journal and the secret, by any gateway that has both, and is worth
nothing as soon as the lease is over. Who reads the journal alone cannot make one.

The secret can be changed while jobs run: its file holds the newest, which makes keys, and the one before it,
whose keys stay good. A step gets its key as it starts, so the one before is needed until the jobs are over
that ran when it was the newest.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import os
import secrets
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Self

from qpu_slurm.config.private import read_private
from qpu_slurm.errors import ConfigError
from qpu_slurm.system.files import open_private
from qpu_slurm.system.secret import Secret

if TYPE_CHECKING:
    from pathlib import Path

    from qpu_slurm.journal.model import Lease

PREFIX = "qpu-slurm-job-key-"

_SECRET_BYTES = 32
_KEPT = 2
"""How many secrets open at a time."""
_ID_BYTES = 8
_HASH = "sha256"


class JobKeys:
    """Makes job keys, and tells whose they are.

    Args:
        secrets: 32 random bytes that nobody else has, each; the first makes keys, and all open.
    """

    def __init__(self, *secrets: bytes) -> None:
        self._secrets = secrets

    @classmethod
    def beside(cls, journal: Path) -> Self:
        """Use the secrets that lie beside a journal; make one at the first time.

        Raises:
            ConfigError: They cannot be read or made, or others can read them too.
        """
        return cls(*_read(journal))

    @staticmethod
    def made(journal: Path) -> bool:
        """Tell whether a gateway has made keys beside a journal before."""
        return _path(journal).exists()

    @classmethod
    def rotate(cls, journal: Path, *, forget: bool = False) -> None:
        """Make a new secret beside a journal; the gateway uses it once it is told to read it (SIGHUP).

        Args:
            journal: The journal.
            forget: Keep none of those before: their keys are worth nothing from then on.

        Raises:
            ConfigError: See `beside`.
        """
        kept = () if forget else _read(journal)[: _KEPT - 1]
        path = _path(journal)
        try:
            _write(path, b"".join((secrets.token_bytes(_SECRET_BYTES), *kept)), replace=True)
        except OSError as error:
            raise ConfigError(f"{path}: cannot be written ({error.strerror}).") from None

    @classmethod
    def kept_since(cls, journal: Path) -> datetime | None:
        """Return when the newest secret was made, if keys of the one before are good as well.

        Raises:
            ConfigError: See `beside`.
        """
        if len(_read(journal)) < _KEPT:
            return None
        return datetime.fromtimestamp(_path(journal).stat().st_mtime, UTC)

    def key(self, lease: Lease) -> Secret:
        """Return a lease's key."""
        return self._keys(lease)[0]

    def _keys(self, lease: Lease) -> list[Secret]:
        name = f"lease {lease.id} {lease.job_id} {lease.user_id} {lease.created_at.isoformat()}"
        found = (lease.id.to_bytes(_ID_BYTES) + mac for mac in self.macs(name))
        return [Secret(PREFIX + base64.urlsafe_b64encode(data).rstrip(b"=").decode()) for data in found]

    def opens(self, key: str, lease: Lease) -> bool:
        """Tell whether a key is a lease's; in a time that does not show how much of it is right."""
        return any(hmac.compare_digest(key.encode(), good.reveal().encode()) for good in self._keys(lease))

    @staticmethod
    def lease_id(key: str) -> int | None:
        """Read the number of the lease that a key claims to be for."""
        try:
            data = base64.b64decode(key.removeprefix(PREFIX) + "==", altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            return None
        number = int.from_bytes(data[:_ID_BYTES])
        return number if number < 1 << 63 else None

    def macs(self, text: str) -> list[bytes]:
        """Return what only who has the secrets can make of a text, with each; the first is the one to use."""
        return [hmac.digest(secret, text.encode(), _HASH) for secret in self._secrets]


def _path(journal: Path) -> Path:
    return journal.with_name(f"{journal.name}.secret")


def _read(journal: Path) -> list[bytes]:
    """Read the secrets, the newest first; make one if there is none. See `JobKeys.beside`."""
    path = _path(journal)
    try:
        if not path.exists():
            _write(path, secrets.token_bytes(_SECRET_BYTES), replace=False)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be made ({error.strerror}).") from None
    content = read_private(path, _KEPT * _SECRET_BYTES)
    if len(content) not in range(_SECRET_BYTES, _KEPT * _SECRET_BYTES + 1, _SECRET_BYTES):
        raise ConfigError(
            f"{path}: is damaged. Remove it: a new one is made, and steps of running jobs that have "
            "started already lose their access."
        )
    return [content[at : at + _SECRET_BYTES] for at in range(0, len(content), _SECRET_BYTES)]


def _write(path: Path, content: bytes, *, replace: bool) -> None:
    """Write the secrets' file, whole or not at all, whoever dies meanwhile; over another only if told."""
    draft = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    descriptor = open_private(draft)
    try:
        os.write(descriptor, content)
        os.fsync(descriptor)
        if replace:
            draft.replace(path)
        else:
            with suppress(FileExistsError):  # another gateway was faster
                os.link(draft, path)
    finally:
        os.close(descriptor)
        draft.unlink(missing_ok=True)
