# SPDX-License-Identifier: Apache-2.0
"""How a QPU on a centre's own premises is reached."""

from __future__ import annotations

import msgspec

from qpu_slurm.providers.base import Access
from qpu_slurm.system.secret import Secret


class Storage(msgspec.Struct, frozen=True, kw_only=True):
    """The bucket through which tasks' inputs and results travel.

    Attributes:
        endpoint: The storage's base URL, S3-compatible, as we reach it.
        service_endpoint: The same, as the QPU's service reaches it; None if that is no other.
        bucket: The bucket's name.
        region: Its region.
        access_key_id: The name of the key that opens it.
        secret: That key.
    """

    endpoint: str
    service_endpoint: str | None = None
    bucket: str
    region: str
    access_key_id: str
    secret: Secret


class SystemAccess(Access, frozen=True, kw_only=True):
    """How one QPU is reached.

    Attributes:
        storage: Where its tasks' data lie.
    """

    storage: Storage
