# SPDX-License-Identifier: Apache-2.0
"""srun starts a program once for each task of its step: how many that are, and which of them this is."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_STEPD = re.compile(rb"slurmstepd: \[[^\]]*\.(\w+)\]")
"""How the process that runs a step calls itself: `slurmstepd: [17.0]`, `slurmstepd: [17.batch]`."""


def tasks_of_step(environ: Mapping[str, str]) -> int:
    """Return how many tasks this process's step has; 1 outside of steps.

    Args:
        environ: The process's environment.
    """
    tasks = environ.get("SLURM_STEP_NUM_TASKS", "")
    if not (tasks.isascii() and tasks.isdigit()) or int(tasks) < 1 or _is_in_script():
        return 1
    return int(tasks)


def rank(environ: Mapping[str, str]) -> str:
    """Return the number of this process's task in its step, from 0 on; 0 outside of steps."""
    number = environ.get("SLURM_PROCID", "")
    return number if number.isascii() and number.isdigit() else "0"


def _is_in_script() -> bool:
    """Tell whether a batch script or an interactive shell runs this, and no step.

    A batch script that a step has submitted inherits the variables of that step.
    """
    pid = os.getppid()
    while pid > 1:
        try:
            title = Path(f"/proc/{pid}/cmdline").read_bytes()
            stat = Path(f"/proc/{pid}/stat").read_bytes()
        except OSError:  # it has ended, or is nobody's business
            return False
        if step := _STEPD.match(title):
            return not step[1].isdigit()
        # The name in parentheses may hold anything.
        pid = int(stat.rpartition(b")")[2].split()[1])
    return False
