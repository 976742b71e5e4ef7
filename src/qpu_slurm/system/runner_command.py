# SPDX-License-Identifier: Apache-2.0
"""Whose `task_runner` an environment has.

qrmi brings a command of that name, too. pip overwrites without a word, so the package that was installed last
has it. qrmi's exits 0 when a task has failed, which Slurm takes for success.
"""

from __future__ import annotations

import sys
from pathlib import Path

_LONGEST = 4096
"""Bytes of a command that is read: pip writes some two hundred."""


def foreign_task_runner(directory: Path | None = None) -> Path | None:
    """Return the environment's `task_runner` if it is qrmi's; None if it is ours, or there is none.

    Args:
        directory: Where the environment's commands are; by default beside this Python.
    """
    command = (directory or Path(sys.executable).parent) / "task_runner"
    try:
        with command.open("rb") as file:
            text = file.read(_LONGEST)
    except OSError:
        return None
    return command if b"qrmi" in text else None
