# SPDX-License-Identifier: Apache-2.0
"""How a QPU of an IQM Server is reached."""

from __future__ import annotations

from qpu_slurm.providers.base import Access


class IqmAccess(Access, frozen=True, kw_only=True):
    """How one QPU is reached; `endpoint` is the server's URL, without its version.

    Attributes:
        ledger: The directory of the ledger.
    """

    ledger: str
