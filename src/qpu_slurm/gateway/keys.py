# SPDX-License-Identifier: Apache-2.0
"""Job keys: what a job shows the gateway instead of the service's credential.

A key is the lease's number and a MAC over what makes the lease the one that it is. Nothing about it is
stored: it can be made again from the journal and the secret, by any gateway that has both, and is worth
nothing as soon as the lease is over. Who reads the journal alone cannot make one.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import os
import secrets
from contextlib import suppress
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
_ID_BYTES = 8
_HASH = "sha256"


class JobKeys:
    """Makes job keys, and tells whose they are.

    Args:
        secret: 32 random bytes that nobody else has.
    """

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    @classmethod
    def beside(cls, journal: Path) -> Self:
        """Use the secret that lies beside a journal; make it at the first time.

        Raises:
            ConfigError: It cannot be read or made, or others can read it too.
        """
        path = journal.with_name(f"{journal.name}.secret")
        try:
            _make(path)
        except OSError as error:
            raise ConfigError(f"{path}: cannot be made ({error.strerror}).") from None
        secret = read_private(path, _SECRET_BYTES)
        if len(secret) != _SECRET_BYTES:
            raise ConfigError(
                f"{path}: is damaged. Remove it: a new one is made, and steps of running jobs that have "
                "started already lose their access."
            )
        return cls(secret)

    def key(self, lease: Lease) -> Secret:
        """Return a lease's key."""
        name = f"lease {lease.id} {lease.job_id} {lease.user_id} {lease.created_at.isoformat()}"
        data = lease.id.to_bytes(_ID_BYTES) + self.mac(name)
        return Secret(PREFIX + base64.urlsafe_b64encode(data).rstrip(b"=").decode())

    def opens(self, key: str, lease: Lease) -> bool:
        """Tell whether a key is a lease's; in a time that does not show how much of it is right."""
        return hmac.compare_digest(key.encode(), self.key(lease).reveal().encode())

    @staticmethod
    def lease_id(key: str) -> int | None:
        """Read the number of the lease that a key claims to be for."""
        try:
            data = base64.b64decode(key.removeprefix(PREFIX) + "==", altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            return None
        number = int.from_bytes(data[:_ID_BYTES])
        return number if number < 1 << 63 else None

    def mac(self, text: str) -> bytes:
        """Return what only who has the secret can make of a text."""
        return hmac.digest(self._secret, text.encode(), _HASH)


def _make(path: Path) -> None:
    """Make the secret's file if it is not there: whole or not at all, whoever dies meanwhile."""
    if path.exists():
        return
    draft = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    descriptor = open_private(draft)
    try:
        os.write(descriptor, secrets.token_bytes(_SECRET_BYTES))
        os.fsync(descriptor)
        with suppress(FileExistsError):  # another gateway was faster
            os.link(draft, path)
    finally:
        os.close(descriptor)
        draft.unlink()
