# SPDX-License-Identifier: Apache-2.0
"""What a power loss leaves of a journal: all up to the last transaction that SQLite brought to disk."""

from __future__ import annotations

import subprocess
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from qpu_slurm.journal.database import Database

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator
    from pathlib import Path

_FULL = 2
"""The value of `PRAGMA synchronous` with which a transaction in WAL mode is on the disk when it is over."""


def left_of(path: Path) -> Path:
    """Return the journal as it is after the power was lost."""
    return path.with_name(f"{path.name}.left") / path.name


@pytest.fixture
def power(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep of every journal what the disk has for certain; see `left_of`."""
    transaction = Database.transaction
    lock = threading.Lock()

    @contextmanager
    def kept(self: Database, *, durable: bool = False) -> Iterator[sqlite3.Connection]:
        with lock:
            with transaction(self, durable=durable) as db:
                yield db
            if db.execute("PRAGMA synchronous").fetchone()[0] == _FULL:
                left = left_of(self.path)
                left.parent.mkdir(exist_ok=True)
                # Not by this process: to close a file would give up the locks that it has on it.
                wal = self.path.with_name(f"{self.path.name}-wal")
                subprocess.run(["/bin/cp", "-p", self.path, wal, left.parent], check=True)

    monkeypatch.setattr(Database, "transaction", kept)
