# SPDX-License-Identifier: Apache-2.0
"""The throw-away cluster on a machine that has no Slurm."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from qpu_slurm.errors import SlurmError
from qpu_slurm_devkit.cluster import Cluster

if TYPE_CHECKING:
    from pathlib import Path


def test_it_says_what_is_missing_and_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SlurmError, match=r"needs .*sbatch.*apt-get install .*slurm-client"):
        Cluster()
