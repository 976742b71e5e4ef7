# SPDX-License-Identifier: Apache-2.0
"""docs/tutorial.md, typed into the shell that `make lab` opens."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.cluster.conftest import CHECKOUT

if TYPE_CHECKING:
    from collections.abc import Iterator

QPU_SLURM = Path(sys.executable).with_name("qpu-slurm")

TUTORIAL = CHECKOUT / "docs" / "tutorial.md"

_LAB = "make lab\n"
_DONE = "-- block {} is done --"


def blocks() -> list[str]:
    """Return what the tutorial has its reader type into the shell, in order."""
    found: list[str] = re.findall(r"^```sh\n(.*?)^```", TUTORIAL.read_text(), re.MULTILINE | re.DOTALL)
    assert found[0] == _LAB
    return found[1:]


@pytest.fixture
def script() -> Iterator[Path]:
    """Return a file, which the cluster's users can read, with all that is to be typed.

    The shell is not given it as its input, since srun would read it there.
    """
    typed = "".join(f"{block}echo '{_DONE.format(number)}'\n" for number, block in enumerate(blocks()))
    with tempfile.NamedTemporaryFile("w", prefix="qpu_slurm-tutorial-", suffix=".sh") as file:
        file.write(f"set -euo pipefail\n{typed}")
        file.flush()
        path = Path(file.name)
        path.chmod(0o644)
        yield path


def test_every_command_of_the_tutorial_works(script: Path) -> None:
    done = subprocess.run(
        [QPU_SLURM, "demo", "--shell", "--task-seconds=1", f"--checkout={CHECKOUT}"],
        input=f". {script}\n",
        env={**os.environ, "COLUMNS": "120"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.stderr == ""
    assert done.returncode == 0
    for number, block in enumerate(blocks()):
        assert _DONE.format(number) in done.stdout, (block, done.stdout)

    assert "transpile again" not in done.stdout
    results = re.findall(r"register meas: {(.*)}", done.stdout)
    assert len(results) == 3
    assert all(set(re.findall(r"'([01]+)'", counts)) == {"00000", "11111"} for counts in results)
    for label in ("One heterogeneous job", "Three chained jobs", "Held for its task", "A loop"):
        assert f"\n{label}\n" in done.stdout
    assert "tasks: -1.1" in done.stdout  # Hartree: the energy of the hydrogen molecule
    locked = re.findall(r"QPU locked ([\d.]+) s: executing ([\d.]+) s", done.stdout)
    executing = [float(seconds) for _, seconds in locked]
    assert executing.count(max(executing)) == 1  # the loop
    assert max(executing) > 5
    assert set(executing) - {max(executing)} == {1.0}
    assert "Sessions left open: 0. Nodes drained: 0." in done.stdout


def test_the_tutorial_shows_figures_that_are_there() -> None:
    figures = re.findall(r"!\[.*?\]\((images/.*?)\)", TUTORIAL.read_text())
    assert len(figures) == 3
    for figure in figures:
        assert "<svg" in (TUTORIAL.parent / figure).read_text()[:2000]
