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
        text: What was found.
        remedy: What to do about it; empty if all is well.
        diagnosis: Its name in the table of diagnoses; `ok` if all is well.
    """

    level: Level
    about: str
    text: str
    remedy: str = ""
    diagnosis: str = "ok"


def fine(about: str, text: str) -> Finding:
    """Return the finding that something is as it should be."""
    return Finding(Level.OK, about, text)
