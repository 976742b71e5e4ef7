# SPDX-License-Identifier: Apache-2.0
"""Numbers in sentences."""

from __future__ import annotations


def counted(number: int, noun: str) -> str:
    """Return a number and its noun, such as "1 lease" or "2 leases".

    Args:
        number: How many there are.
        noun: What they are, in the singular; its plural ends in "s".
    """
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
