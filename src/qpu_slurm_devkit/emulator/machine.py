# SPDX-License-Identifier: Apache-2.0
"""What QPUs of all kinds have in common: a name, and whether they are up."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal

Availability = Literal["active", "paused", "offline"]


class Machine(ABC):
    """One QPU.

    Args:
        name: Its name.

    Attributes:
        configuration: What its simulations have to know, as JSON text.
        status: `active`; `paused`, when tasks wait; or `offline`. `GET /backends` says online for active.
        message: Why it is not up.
    """

    configuration: bytes

    def __init__(self, name: str) -> None:
        self.name = name
        self.status: Availability = "active"
        self.message = ""

    @property
    def up(self) -> bool:
        """Whether it runs tasks."""
        return self.status == "active"

    def set_status(self, status: Availability, message: str) -> None:
        """Say whether it is up, and why not."""
        self.status = status
        self.message = message

    @abstractmethod
    def calibrate(self, at: str | None) -> None:
        """Say when it was calibrated last; None: as in the beginning."""
