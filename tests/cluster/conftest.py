# SPDX-License-Identifier: Apache-2.0
"""Fixtures on a real Slurm, thrown away afterwards.

Without Slurm these tests fail, and say what to install: a green run has seen a real Slurm.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from qpu_slurm.devkit.cluster import Cluster
from qpu_slurm.devkit.lab import Lab

if TYPE_CHECKING:
    from collections.abc import Iterator

CHECKOUT = Path(__file__).parents[2]
PROGRAMS = Path(__file__).parent / "programs"


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """One plain cluster, with nothing of ours installed, for all tests that leave it as they found it."""
    with Cluster() as cluster:
        yield cluster


@pytest.fixture(scope="session")
def shared_lab() -> Iterator[Lab]:
    """One cluster with qpu_slurm as an admin installs it; each user's own key opens the sessions."""
    # An outage is over soon here, so that a requeued job need not be waited for long; but not before the
    # job's first run has been cleaned up: Slurm makes two minutes of such a delay.
    with Lab(CHECKOUT, tables="[outage]\ntries = 2\ndelay = 4\nmax_delay = 4\nacquire_timeout = 5\n") as lab:
        lab.put(CHECKOUT / "contrib" / "seed")
        lab.put(PROGRAMS)
        yield lab


@pytest.fixture
def lab(shared_lab: Lab) -> Iterator[Lab]:
    """Return the lab with an emulator as new; whatever a test does, no session and no node is lost."""
    shared_lab.emulator.reset()
    yield shared_lab
    check_nothing_left(shared_lab)


def check_nothing_left(lab: Lab) -> None:
    """Fail if a job left a session open or a node drained."""
    lab.emulator.clear_faults()
    lab.cluster.wait_until_idle()
    lab.emulator.wait_for(lambda emulator: all(session.state == "closed" for session in emulator.sessions()))
