# SPDX-License-Identifier: Apache-2.0
"""Inputs are not replaced by results: `task_runner NAME a.json b.json` names two inputs at times."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

_HEAD: Final = 4096

_INPUT: Final = re.compile(rb'(?:\xef\xbb\xbf)?\s*\{\s*"(?:program_id|parameters|qpu_slurm)"\s*:')
"""How an input begins: it has no other keys (tasks/payload.py). No result begins with one of them."""


def why_not_replace(output: Path) -> str | None:
    """Say why a result must not be written to a file: it holds an input.

    Args:
        output: Where the result would go. A pipe or a device is left unread.

    Returns:
        A sentence with the remedy; None if the file may be replaced, or there is none.
    """
    try:
        if not output.is_file():
            return None
        with output.open("rb") as file:
            head = file.read(_HEAD)
    except OSError:
        return None
    if not _INPUT.match(head):
        return None
    return f"{output} holds an input, which the result would replace: name another file, or remove it first"
