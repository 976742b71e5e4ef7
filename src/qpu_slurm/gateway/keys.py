# SPDX-License-Identifier: Apache-2.0
"""Job keys: what a job presents to the gateway instead of the service's credential.

A key consists of the lease's number and a MAC over the data that identifies the lease. Keys are not stored.
Any gateway that has the journal and the secret can compute them again. A key opens nothing once its lease has
ended. The journal alone is not enough to make one.

The secret can be rotated while jobs run. Its file holds the newest secret, which makes keys, and the previous
one, whose keys stay valid. A step gets its key when it starts. So the previous secret is needed until all
jobs from before the rotation have ended.
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
"""How many secrets are valid at a time."""
_ID_BYTES = 8
_HASH = "sha256"


class JobKeys:
    """Makes and checks job keys.

    Args:
        secrets: 32 random bytes each. The first one makes keys. The keys of all of them are valid.
    """

    def __init__(self, *secrets: bytes) -> None:
        self._secrets = secrets

    @classmethod
    def beside(cls, journal: Path) -> Self:
        """Use the secrets beside a journal; create one on the first call.

        Raises:
            ConfigError: They cannot be read or created, or other users can read them.
        """
        return cls(*_read(journal))

    @staticmethod
    def made(journal: Path) -> bool:
        """Return whether a gateway has used this journal before."""
        return _path(journal).exists()

    @classmethod
    def rotate(cls, journal: Path, *, forget: bool = False) -> None:
        """Create a new secret beside a journal. The gateway uses it after a reload (SIGHUP).

        Args:
            journal: The journal.
            forget: Drop the previous secrets: keys made with them become invalid.

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
        """Return when the newest secret was created, if keys of the previous one are valid as well.

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
        """Return whether a key belongs to a lease, in constant time."""
        return any(hmac.compare_digest(key.encode(), good.reveal().encode()) for good in self._keys(lease))

    @staticmethod
    def lease_id(key: str) -> int | None:
        """Return the lease number that a key claims."""
        try:
            data = base64.b64decode(key.removeprefix(PREFIX) + "==", altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            return None
        number = int.from_bytes(data[:_ID_BYTES])
        return number if number < 1 << 63 else None

    def macs(self, text: str) -> list[bytes]:
        """Return the MAC of a text with each secret; the first is the one to use."""
        return [hmac.digest(secret, text.encode(), _HASH) for secret in self._secrets]


def _path(journal: Path) -> Path:
    return journal.with_name(f"{journal.name}.secret")


def _read(journal: Path) -> list[bytes]:
    """Read the secrets, the newest first; create one if there is none. See `JobKeys.beside`."""
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
    """Write the secrets' file atomically; replace an existing one only if asked to."""
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
