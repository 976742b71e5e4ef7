# SPDX-License-Identifier: Apache-2.0
"""task_runner on services of other kinds: ours through the gateway, upstream's with the service's keys."""

from __future__ import annotations

import os
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import processes
from benchmarks.figures import Figure
from benchmarks.gateway import ON_PREMISES, Site
from benchmarks.processes import pairs, rounded
from benchmarks.step import QPU, sampler_input
from qpu_slurm_devkit.emulator import Emulator

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from benchmarks.processes import Cost

_BLINK = 0.02
_PAIRS = 9


def measure() -> Iterator[Figure]:
    """Compare with upstream on each kind of service that its task_runner knows, besides IBM's cloud."""
    yield _on_premises()


def _on_premises() -> Figure:
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="qpu-bench-")))
        emulator = stack.enter_context(
            # Upstream's deletes no task, and each keeps a lane.
            Emulator(task_seconds=_BLINK, result_bytes=1000, backends=(QPU,), lanes=10 * _PAIRS)
        )
        site = stack.enter_context(Site(directory, emulator, ON_PREMISES))
        source, sink = directory / "input.json", directory / "output.json"
        source.write_text(sampler_input())
        ours = processes.script(directory / "ours", "qpu_slurm.start", "task_runner")
        theirs = processes.script(directory / "theirs", "qrmi.tools.task_runner.main", "run")
        shared = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        # srun -Q: neither says more than errors.
        shared |= {"SLURM_JOB_ID": "1", "SRUN_DEBUG": "2"}

        def run(program: Path, environ: Mapping[str, str]) -> Cost:
            return processes.run([program, QPU, source, sink], env=shared | dict(environ), cwd=directory)

        held, direct = site.environ(site.lease(1)), emulator.system_environ(QPU)
        found = pairs(lambda: run(ours, held).seconds, lambda: run(theirs, direct).seconds, _PAIRS)
    mine, other = found.medians
    return Figure(
        key="runner.on_premises_vs_upstream",
        what=f"the same on an IBM Quantum System, a task of {_BLINK:g} s",
        value=found.ratio,
        at_most=0.2,
        details={"seconds": rounded(found.one), "upstream_seconds": rounded(found.other)},
        note=(
            f"{mine:.3f} s through the gateway against {other:.3f} s with the keys of the system and of its "
            "storage. Upstream polls the task once a second."
        ),
    )
