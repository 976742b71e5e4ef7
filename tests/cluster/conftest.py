# SPDX-License-Identifier: Apache-2.0
"""Fixtures on a real Slurm, thrown away afterwards.

Without Slurm these tests fail, and say what to install: a green run has seen a real Slurm.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from qpu_slurm_devkit.cluster import Cluster
from qpu_slurm_devkit.lab import Lab
from tests.cluster.stage import Stage

if TYPE_CHECKING:
    from collections.abc import Iterator

# Debian's package of Slurm 22.05 has no scrontab(1).
collect_ignore = [] if shutil.which("scrontab") else ["test_scrontab.py"]

CHECKOUT = Path(__file__).parents[2]
PROGRAMS = Path(__file__).parent / "programs"

HOLD = {"Prolog": str(Path(__file__).with_name("hold.sh"))}
"""A setting of Slurm's: a test can hold a job that has its QPUs and has not started."""


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """One plain cluster, with nothing of ours installed, for all tests that leave it as they found it."""
    with Cluster(settings={"Licenses": "ibm_fez:2,other:1"}) as cluster:
        yield cluster


STEP_PATIENCE = 30

OUTAGE = (
    f"[outage]\ntries = 2\ndelay = 4\nmax_delay = 4\nacquire_timeout = 5\nstep_patience = {STEP_PATIENCE}\n"
)
"""An outage is over soon here, so that a requeued job need not be waited for long; but not before the job's
first run has been cleaned up: Slurm makes two minutes of such a delay."""


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "credentials(*kinds): whose keys open the sessions, each in a run of its own (gateway)"
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run what needs the lab through the gateway, and in the other ways as far as its mark says so."""
    if "shared_lab" in metafunc.fixturenames:
        mark = metafunc.definition.get_closest_marker("credentials")
        kinds = mark.args if mark else ("gateway",)
        # pytest sorts the tests by it, so that there is one lab at a time.
        metafunc.parametrize("shared_lab", kinds, indirect=True, scope="session")


@pytest.fixture(scope="session")
def shared_lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    """One cluster with qpu_slurm as an admin installs it, for each kind of credentials."""
    with Lab(CHECKOUT, credentials=request.param, tables=OUTAGE, settings=HOLD) as lab:
        lab.put(CHECKOUT / "contrib" / "seed")
        for user in lab.cluster.users:
            lab.put(PROGRAMS, user)
        yield lab


@pytest.fixture
def lab(shared_lab: Lab) -> Iterator[Lab]:
    """Return the lab with an emulator as new; whatever a test does, no session and no node is lost."""
    shared_lab.emulator.reset()
    yield shared_lab
    check_nothing_left(shared_lab)


@pytest.fixture(scope="module")
def shared_stage() -> Iterator[Stage]:
    """One cluster with the plugin alone, for a module."""
    cluster = Cluster()
    stage = Stage(cluster)
    stage.set()
    with cluster:
        yield stage


@pytest.fixture
def stage(shared_stage: Stage) -> Iterator[Stage]:
    """Return the stage; whatever a test does, no node is lost."""
    yield shared_stage
    shared_stage.answer(None)
    shared_stage.come_back()
    shared_stage.unhang()
    shared_stage.cluster.wait_until_idle()


def check_nothing_left(lab: Lab) -> None:
    """Fail if a job left a session open, a lease that is not over, or a node drained."""
    lab.emulator.clear_faults()
    if lab.gateway and not lab.gateway.healthy():
        lab.gateway.start()
    lab.cluster.wait_until_idle()
    lab.emulator.wait_for(lambda emulator: all(session.state == "closed" for session in emulator.sessions()))
    # Without a gateway there is no journal before the first job that asks for a QPU.
    lab.emulator.wait_for(
        lambda _: not lab.journal.exists() or json.loads(lab.command("leases", "--json").stdout) == []
    )
