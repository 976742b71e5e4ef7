# SPDX-License-Identifier: Apache-2.0
"""What a cluster knows of its QPUs."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from qpu_slurm.journal import rows

if TYPE_CHECKING:
    from qpu_slurm_devkit.lab import Lab


def forget_how_qpus_were(lab: Lab) -> None:
    """Have the next job that starts ask the service whether its QPU is up, as if time had passed."""
    if lab.journal.exists():
        with closing(sqlite3.connect(lab.journal, timeout=30)) as db, db:
            db.execute("DELETE FROM seen_qpus")


def note_that_a_qpu_is_away(lab: Lab, qpu: str, reason: str) -> None:
    """Write down what a look just now would: the answers of one that began before count no more."""
    with closing(sqlite3.connect(lab.journal, timeout=30)) as db, db:
        db.execute(
            "INSERT OR REPLACE INTO seen_qpus (qpu, online, reason, seen_at) VALUES (?, FALSE, ?, ?)",
            (qpu, reason, rows.text(datetime.now(UTC))),
        )
