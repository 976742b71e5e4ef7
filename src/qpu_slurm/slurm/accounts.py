# SPDX-License-Identifier: Apache-2.0
"""Slurm's accounts, where it has a database of them (slurmdbd)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qpu_slurm.errors import SlurmError
from qpu_slurm.slurm._commands import Commands

if TYPE_CHECKING:
    from qpu_slurm.config import SlurmConfig


class Accounts:
    """What sacctmgr(1) says of accounts.

    Args:
        config: Where Slurm's commands are, and how long to wait for an answer.
    """

    def __init__(self, config: SlurmConfig) -> None:
        self._commands = Commands(config)

    def knows(self, account: str) -> bool | None:
        """Return whether there is an account; None if Slurm cannot tell."""
        found = self._column("account", f"where name={account}")
        return None if found is None else bool(found)

    def of(self, user: str) -> list[str]:
        """Return a user's accounts; none if Slurm cannot tell."""
        return self._column("associations", f"where user={user}") or []

    def _column(self, what: str, where: str) -> list[str] | None:
        try:
            answer = self._commands.run(
                "sacctmgr", "--noheader", "--parsable2", "show", what, *where.split(), "format=account"
            )
        except SlurmError:
            return None
        return sorted({line.strip() for line in answer.decode(errors="replace").splitlines()} - {""})
