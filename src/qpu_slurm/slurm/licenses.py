# SPDX-License-Identifier: Apache-2.0
"""QPUs as Slurm's licenses: what keeps a job in the queue while its QPU is not to be had.

Each QPU may be a license of its name (`Licenses=` in slurm.conf), as many as jobs may have it at once. A
reservation of all of them, for nobody, takes them away: jobs that have one keep it, and all others wait, with
the reason `Licenses`. The reservation's name says why, since reservations have no comment before Slurm 23.11.
"""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, NamedTuple

from qpu_slurm.errors import SlurmError
from qpu_slurm.slurm._commands import Commands

if TYPE_CHECKING:
    from qpu_slurm.config import SlurmConfig

_PREFIX = "qpu"
_REASON_LENGTH = 60
_MINUTE = 60


class Withheld(NamedTuple):
    """A reservation of ours.

    Attributes:
        name: Slurm's name of it: `qpu:ibm_fez:maintenance_until_noon`.
        ends_at: When it ends by itself, in seconds since the epoch.
    """

    name: str
    ends_at: int


class Licenses:
    """The licenses that are called as QPUs are, through scontrol(1); only root and SlurmUser may take them.

    Args:
        config: Where Slurm's commands are, which cluster to talk to, and how long to wait for an answer.
    """

    def __init__(self, config: SlurmConfig) -> None:
        self._commands = Commands(config)

    def totals(self) -> dict[str, int]:
        """Read how many there are of each license of the cluster's own.

        Raises:
            SlurmError: Slurm does not answer; so do all methods.
        """
        found = re.findall(r"^LicenseName=(\S+) Total=(\d+)", self._show("licenses"), re.MULTILINE)
        return {name: int(total) for name, total in found}

    def withheld(self) -> dict[str, Withheld]:
        """Read which licenses are taken away."""
        found = {}
        for line in self._show("reservations").splitlines():
            name = re.match(rf"ReservationName=({_PREFIX}:([A-Za-z0-9_-]+):\S*) ", line)
            end = re.search(r" EndTime=(\d+) ", line)
            if name:
                found[name[2]] = Withheld(name[1], int(end[1]) if end else 0)
        return found

    def withhold(self, license_: str, total: int, why: str, *, seconds: int) -> bool:
        """Take all licenses of a name away.

        Args:
            license_: Its name.
            total: How many there are.
            why: What the reservation's name says.
            seconds: How long, unless asked again: who waits must not wait for somebody who is gone.

        Returns:
            Whether that is new, or for another reason.
        """
        name = f"{_PREFIX}:{license_}:{re.sub(r'[^A-Za-z0-9.-]+', '_', why)[:_REASON_LENGTH].strip('_.')}"
        there = self.withheld().get(license_)
        minutes = f"Duration={max(1, seconds // _MINUTE)}"
        if there and there.name == name:
            if there.ends_at - time.time() < seconds / 2:
                end = f"EndTime=now+{max(1, seconds // _MINUTE)}minutes"
                self._scontrol("update", f"ReservationName={name}", end)
            return False
        if there:
            # Two would be more than there are.
            self._scontrol("delete", f"ReservationName={there.name}")
        what = (f"Licenses={license_}:{total}", "Flags=ANY_NODES", "Users=root", "StartTime=now", minutes)
        try:
            self._scontrol("create", "reservation", f"ReservationName={name}", *what)
        except SlurmError as error:
            # Somebody else was faster.
            if "Duplicate" not in str(error):
                raise
            return False
        return True

    def give_back(self, license_: str) -> bool:
        """Let jobs have a license again; return whether it was taken away."""
        there = self.withheld().get(license_)
        if there is None:
            return False
        try:
            self._scontrol("delete", f"ReservationName={there.name}")
        except SlurmError:
            if license_ in self.withheld():
                raise
            return False
        return True

    def _show(self, what: str) -> str:
        return self._commands.run("scontrol", "show", what, "--oneliner").decode(errors="replace")

    def _scontrol(self, *arguments: str) -> None:
        self._commands.run("scontrol", *arguments)
