# SPDX-License-Identifier: Apache-2.0
"""scrontab takes a plugin's options and loses them, so ours are refused there.

Collected where there is scrontab(1): Debian's package of Slurm 22.05 has none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from qpu_slurm_devkit.cluster import SEED_LAYOUT, Cluster
from tests.cluster.stage import Stage

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    """Return a cluster with the plugin, on which users may have cron jobs."""
    cluster = Cluster(SEED_LAYOUT[:1], settings={"ScronParameters": "enable"})
    stage = Stage(cluster)
    stage.set()
    with cluster:
        yield stage


@pytest.mark.parametrize("option", ["--qpu=ibm_fez", "--qpu=ibm_nowhere", "--qpu-session=task"])
def test_a_qpu_is_refused_with_what_to_write_instead(stage: Stage, option: str) -> None:
    entry = f"#SCRON {option}\n@daily /bin/true\n"
    done = stage.cluster.run(["scrontab", "-"], stdin=entry)
    assert done.returncode != 0
    assert "scrontab does not pass --qpu" in done.stderr
    assert "sbatch --qpu=NAME SCRIPT" in done.stderr
    assert "/bin/true" not in stage.cluster.run(["scrontab", "-l"]).stdout


def test_other_entries_are_taken(stage: Stage) -> None:
    entry = "#SCRON --time=5\n@daily sbatch --qpu=ibm_fez job.sh\n"
    done = stage.cluster.run(["scrontab", "-"], stdin=entry)
    assert done.returncode == 0, done.stderr
    assert "sbatch --qpu=ibm_fez" in stage.cluster.run(["scrontab", "-l"]).stdout
    stage.cluster.run(["scrontab", "-r"])
