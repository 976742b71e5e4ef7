# SPDX-License-Identifier: Apache-2.0
"""Durations as people write them: "90s", "30m", "8h", "1h30m"."""

from __future__ import annotations

import re

_DURATION = re.compile(r"(?:(\d{1,9})d)?(?:(\d{1,9})h)?(?:(\d{1,9})m)?(?:(\d{1,9})s)?", re.ASCII)
_SECONDS = (86_400, 3_600, 60, 1)


def parse_duration(text: str) -> int:
    """Return a duration's seconds.

    Args:
        text: Numbers with a unit (d, h, m, s), each unit at most once, the largest first.

    Raises:
        ValueError: It is not written so.
    """
    match = _DURATION.fullmatch(text)
    if not match or not text:
        raise ValueError("not a duration")
    return sum(int(number) * unit for number, unit in zip(match.groups("0"), _SECONDS, strict=True))
