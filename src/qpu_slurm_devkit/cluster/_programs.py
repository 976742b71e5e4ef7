# SPDX-License-Identifier: Apache-2.0
"""Slurm's programs on this machine."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

from qpu_slurm.errors import SlurmError

DEBIAN_PACKAGES = ("munge", "slurm-client", "slurm-wlm-basic-plugins", "slurmctld", "slurmd")
"""What a throw-away cluster needs on Debian."""

_NEEDED = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scancel", "scontrol", "sinfo", "squeue")


class Programs(NamedTuple):
    """Where Slurm's programs are, and which release they are of."""

    munged: Path
    slurmctld: Path
    slurmd: Path
    bin: Path
    version: tuple[int, ...]


def find() -> Programs:
    """Look for Slurm's programs.

    Raises:
        SlurmError: Some are missing; it says which Debian packages have them.
    """
    # The daemons are in directories that an ordinary user's PATH may lack.
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin", "/sbin"])
    found = {name: shutil.which(name, path=path) for name in _NEEDED}
    missing = [name for name, program in found.items() if program is None]
    if missing:
        raise SlurmError(
            f"A throw-away Slurm cluster needs {', '.join(missing)}, which this machine does not have."
            f" On Debian, as root: apt-get install --no-install-recommends {' '.join(DEBIAN_PACKAGES)}"
        )
    program = {name: Path(value) for name, value in found.items() if value is not None}
    answer = subprocess.run(
        [program["slurmctld"], "-V"], capture_output=True, text=True, timeout=10, check=False
    )
    version = re.search(r"(\d+)\.(\d+)\.(\d+)", answer.stdout)
    if version is None:
        raise SlurmError(f"slurmctld -V does not tell its version: {answer.stdout or answer.stderr!r}")
    return Programs(
        munged=program["munged"],
        slurmctld=program["slurmctld"],
        slurmd=program["slurmd"],
        bin=program["squeue"].parent,
        version=tuple(map(int, version.groups())),
    )
