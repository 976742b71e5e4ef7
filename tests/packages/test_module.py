# SPDX-License-Identifier: Apache-2.0
"""Users load contrib/modulefiles with Environment Modules, and find the commands and the wheels."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from tests.packages.root import CHECKOUT, Root, with_slurm

if TYPE_CHECKING:
    from collections.abc import Iterator

MODULE = "/usr/share/modules/modulefiles/qpu_slurm"


@pytest.fixture
def root() -> Iterator[Root]:
    with Root(with_slurm("trixie")) as root:
        shutil.copy(CHECKOUT / "contrib/modulefiles/qpu_slurm", root.file(MODULE))
        root.run("/usr/bin/install", "-D", "-m", "755", "/bin/true", "/opt/qpu_slurm/bin/task_runner")
        yield root


def test_the_commands_are_in_path_while_the_module_is_loaded(root: Root) -> None:
    script = """\
. /etc/profile.d/modules.sh
module load qpu_slurm
command -v task_runner
module unload qpu_slurm
command -v task_runner || echo gone"""
    found = root.run("/bin/bash", "-c", script, user="games")
    assert found.splitlines() == ["/opt/qpu_slurm/bin/task_runner", "gone"]


def test_pip_finds_the_wheels(root: Root) -> None:
    root.run("/usr/bin/install", "-d", "/opt/qpu_slurm/wheels")
    script = '. /etc/profile.d/modules.sh; module load qpu_slurm; echo "$PIP_FIND_LINKS"'
    assert root.run("/bin/bash", "-c", script, user="games").strip() == "/opt/qpu_slurm/wheels"


def test_the_module_says_what_it_is_for(root: Root) -> None:
    script = (
        ". /etc/profile.d/modules.sh; module --no-pager whatis qpu_slurm; module --no-pager help qpu_slurm"
    )
    shown = root.try_to("/bin/bash", "-c", script, user="games")
    assert "Quantum processors" in shown.stdout + shown.stderr
    assert "--qpu=NAME" in shown.stdout + shown.stderr
