# SPDX-License-Identifier: Apache-2.0
"""What a look at something found."""

from __future__ import annotations

from enum import StrEnum

import msgspec


class Level(StrEnum):
    """How bad it is."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


class Finding(msgspec.Struct, frozen=True):
    """One thing that was looked at.

    Attributes:
        level: How bad it is.
        about: What was looked at.
        text: What was found, and what to do about it.
    """

    level: Level
    about: str
    text: str
