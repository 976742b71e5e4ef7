# SPDX-License-Identifier: Apache-2.0
"""The ways to ask Slurm, all under the same tests."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import msgspec

from qpu_slurm.slurm._command_line import CommandLine
from qpu_slurm.slurm.job import JobRecord
from qpu_slurm.slurm.query import Query, connect

if TYPE_CHECKING:
    from collections.abc import Callable

    from qpu_slurm.config import SlurmConfig


class WithPyslurm:
    """What `connect` gives where pyslurm is installed.

    It lists jobs in a process of its own: Slurm's library knows one cluster in its life, and we have several.
    """

    PROGRAM = """
import sys
from pathlib import Path
import msgspec
from qpu_slurm.config import SlurmConfig
from qpu_slurm.slurm.query import connect
jobs = connect(SlurmConfig(conf=Path(sys.argv[1]), bin=Path(sys.argv[2]))).jobs()
assert "pyslurm" in sys.modules, "pyslurm cannot be imported"
sys.stdout.buffer.write(msgspec.json.encode(jobs))
"""

    def __init__(self, config: SlurmConfig) -> None:
        self._config = config
        query = connect(config)
        self.job, self.components = query.job, query.components

    def jobs(self) -> list[JobRecord]:
        argv = [sys.executable, "-c", self.PROGRAM, str(self._config.conf), str(self._config.bin)]
        listing = subprocess.run(argv, capture_output=True, timeout=240, check=False)
        assert listing.returncode == 0, listing.stderr.decode()
        return msgspec.json.decode(listing.stdout, type=list[JobRecord])


WAYS: dict[str, Callable[[SlurmConfig], Query]] = {"commands": CommandLine}
if os.environ.get("QPU_SLURM_PYSLURM"):
    # The matrix of Slurm releases says so where it has built pyslurm: it has to be there then.
    WAYS["pyslurm"] = WithPyslurm
