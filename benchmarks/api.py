# SPDX-License-Identifier: Apache-2.0
"""Importing the Python API."""

from __future__ import annotations

import statistics
import subprocess
import sys
from typing import TYPE_CHECKING

from benchmarks.figures import Figure
from benchmarks.processes import rounded

if TYPE_CHECKING:
    from collections.abc import Iterator

_TIMES = 9
_CODE = "import time; begin = time.perf_counter(); import {}; print(time.perf_counter() - begin)"


def measure() -> Iterator[Figure]:
    """Import the package, and qiskit for comparison, each in a fresh interpreter."""
    ours, qiskit = _seconds("qpu_slurm", _TIMES), _seconds("qiskit", 3)
    yield Figure(
        key="api.import_seconds",
        what="`import qpu_slurm`",
        value=statistics.median(ours),
        at_most=0.05,
        unit="s",
        details={"seconds": rounded(ours, 6), "qiskit_seconds": rounded(qiskit)},
        note=f"`import qiskit` takes {statistics.median(qiskit):.2f} s. Only what needs Qiskit imports it.",
    )


def _seconds(module: str, times: int) -> list[float]:
    argv = [sys.executable, "-c", _CODE.format(module)]
    return [
        float(subprocess.run(argv, check=True, capture_output=True, text=True, timeout=60).stdout)
        for _ in range(times)
    ]
