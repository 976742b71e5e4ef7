# SPDX-License-Identifier: Apache-2.0
"""`qpu-slurm demo`, as `make demo` runs it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from tests.cluster.conftest import CHECKOUT

if TYPE_CHECKING:
    from collections.abc import Iterator

QPU_SLURM = Path(sys.executable).with_name("qpu-slurm")


@pytest.fixture
def directory() -> Iterator[Path]:
    """Return where the demo keeps its files; nothing of it is left, neither a file nor a process."""
    with tempfile.TemporaryDirectory(prefix="qpu_slurm-demo-") as name:
        directory = Path(name)
        directory.chmod(0o755)  # jobs are other users'
        yield directory
        deadline = time.monotonic() + 60
        while left := [*directory.iterdir(), *processes_of(directory)]:
            assert time.monotonic() < deadline, left
            time.sleep(0.1)


def processes_of(directory: Path) -> list[psutil.Process]:
    return [
        process
        for process in psutil.process_iter(["cmdline", "environ"])
        if str(directory) in f"{process.info['cmdline']} {process.info['environ']}"
    ]


def start_demo(directory: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [QPU_SLURM, "demo", f"--checkout={CHECKOUT}", *arguments],
        env={**os.environ, "TMPDIR": str(directory), "COLUMNS": "100"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_one_workflow(directory: Path) -> None:
    with start_demo(directory, "hetjob", "--task-seconds=1") as demo:
        output, errors = demo.communicate(timeout=240)

    assert (demo.returncode, errors) == (0, "")
    counts = {bits: int(count) for bits, count in re.findall(r"'([01]+)': (\d+)", output)}
    assert set(counts) == {"00000", "11111"}
    # Each milestone as it happens, and the whole in the end.
    milestones = ["session opened", "task queued", "task running", "task done", "session closed"]
    told = re.findall(f"({'|'.join(milestones)})", output)
    assert told == milestones
    assert re.search(r"^ +ibm_fez: locked +█+▒+ +[\d.]+ s$", output, re.MULTILINE)
    assert "QPU locked" in output.split("One heterogeneous job\n")[1]
    assert "Sessions left open: 0. Nodes drained: 0." in output


def test_a_qpu_on_the_premises(directory: Path) -> None:
    with start_demo(directory, "hetjob", "--vendor=ibm-system", "--task-seconds=1") as demo:
        output, errors = demo.communicate(timeout=240)

    assert (demo.returncode, errors) == (0, "")
    assert "an emulated IBM Quantum System on the premises" in output
    assert set(re.findall(r"'([01]+)': \d+", output)) == {"00000", "11111"}
    assert re.findall(r"s  (session opened|task [\w :]+) \(", output) == [
        "task queued",
        "task running",
        "task done",
    ]
    assert "Tasks left at the service: 0. Nodes drained: 0." in output


def test_a_vendor_that_needs_the_gateway(directory: Path) -> None:
    with start_demo(directory, "hetjob", "--vendor=ibm-system", "--credentials=shared") as demo:
        _, errors = demo.communicate(timeout=240)

    assert demo.returncode == 1
    assert "--vendor ibm-system goes with --credentials gateway only" in errors


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "kill"])
def test_interrupted(directory: Path, number: signal.Signals) -> None:
    with start_demo(directory, "hetjob", "--task-seconds=60") as demo:
        assert demo.stdout is not None
        while "QPU is locked" not in (line := demo.stdout.readline()):
            assert line, demo.communicate()
        demo.send_signal(number)
        _, errors = demo.communicate(timeout=240)

    assert demo.returncode == 130
    assert errors == "Interrupted; everything was taken down.\n"


def test_an_unknown_workflow(directory: Path) -> None:
    with start_demo(directory, "nonsense") as demo:
        _, errors = demo.communicate(timeout=240)

    assert demo.returncode == 1
    assert "hetjob, split" in errors
