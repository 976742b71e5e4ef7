# SPDX-License-Identifier: Apache-2.0
"""The peak memory of task_runner with a big input and a big result."""

from __future__ import annotations

import base64
import json
import os
import zlib
from typing import TYPE_CHECKING

from benchmarks.figures import Figure
from benchmarks.step import QASM, QPU, Step

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SIZE = 100_000_000


def measure() -> Iterator[Figure]:
    """Compare with upstream: one circuit of 100 MB, and numbers of 100 MB."""
    with Step(result_bytes=SIZE) as step:
        circuit, numbers = step.directory / "circuit.json", step.directory / "numbers.json"
        _write_circuit(circuit)
        ours, theirs = (run(QPU, circuit, step.output) for run in (step.run_ours, step.run_theirs))
        small = step.run_ours(QPU, step.input, "/dev/null")
        yield Figure(
            key="runner.rss_100mb_mib",
            what="peak memory, input and result of 100 MB each",
            value=ours.rss_mib,
            at_most=64,
            unit="MiB",
            details={
                "seconds": ours.seconds,
                "cpu_seconds": ours.cpu_seconds,
                "small_input_mib": small.rss_mib,
            },
            note=f"{small.rss_mib:.0f} MiB with a small input: Python, urllib3 and msgspec.",
        )
        yield Figure(
            key="runner.rss_100mb_vs_upstream",
            what="the same, against upstream",
            value=ours.rss_mib / theirs.rss_mib,
            at_most=0.5,
            details={"upstream_mib": theirs.rss_mib, "upstream_seconds": theirs.seconds},
            note=(
                f"{ours.rss_mib:.0f} MiB and {ours.seconds:.1f} s against {theirs.rss_mib:.0f} MiB and "
                f"{theirs.seconds:.1f} s. The aim is to stay well below upstream."
            ),
        )
        _write_numbers(numbers)
        ours = step.run_ours(QPU, numbers, step.output)
        yield Figure(
            key="runner.rss_100mb_numbers_mib",
            what="the same with 100 MB of parameter values",
            value=ours.rss_mib,
            at_most=64,
            unit="MiB",
            details={"seconds": ours.seconds, "cpu_seconds": ours.cpu_seconds},
        )


def _write_circuit(path: Path) -> None:
    """Write an input of one big circuit: it begins as QPY does, and the emulator does not look further."""
    begin = base64.b64encode(zlib.compress(b"QISKIT" + os.urandom(6000)))[:4000].decode()
    circuit = {"__type__": "QuantumCircuit", "__value__": begin + "A" * (SIZE - len(begin))}
    parameters = {"pubs": [[circuit, None, 100]], "version": 2, "support_qiskit": False}
    path.write_text(json.dumps({"program_id": "sampler", "parameters": parameters}))


def _write_numbers(path: Path) -> None:
    """Write an input of many sets of three parameter values."""
    head, tail = json.dumps(
        {"program_id": "sampler", "parameters": {"pubs": [[QASM, ["?"], 1]], "version": 2}}
    ).split('"?"')
    row = "[0.12345678901234567, -2.718281828459045, 3.141592653589793], "
    with path.open("w") as file:
        file.write(head)
        for _ in range(SIZE // len(row) // 1000):
            file.write(row * 1000)
        file.write(row.rstrip(", ") + tail)
