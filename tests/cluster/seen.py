# SPDX-License-Identifier: Apache-2.0
"""What a cluster knows of its QPUs."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from qpu_slurm_devkit.lab import Lab


def forget_how_qpus_were(lab: Lab) -> None:
    """Have the next job that starts ask the service whether its QPU is up, as if time had passed."""
    if lab.journal.exists():
        with closing(sqlite3.connect(lab.journal, timeout=30)) as db, db:
            db.execute("DELETE FROM seen_qpus")
