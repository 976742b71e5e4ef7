# SPDX-License-Identifier: Apache-2.0
"""What goes wrong with the cluster itself, while scenarios are played, costs no others than those."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import psutil

from qpu_slurm.errors import SlurmError
from tests.cluster.matrix import director
from tests.cluster.matrix.conftest import play_all
from tests.cluster.matrix.document import Asserted
from tests.cluster.matrix.events import AT_ONCE, GO, RUNS
from tests.cluster.matrix.jobs import HOLDS, SAY_AND_TASK, WAIT, batch
from tests.cluster.matrix.scenario import Event, Scenario, Storm, What

if TYPE_CHECKING:
    import pytest

    from tests.cluster.matrix.play import Play


def _end_slurmctld(play: Play) -> None:
    """End it behind the stage's back."""
    conf = str(play.stage.lab.cluster.conf)
    for process in psutil.process_iter():
        if process.name() == "slurmctld" and process.environ().get("SLURM_CONF") == conf:
            process.send_signal(signal.SIGKILL)


LOSES_ITS_CLUSTER = Scenario(
    way="slurmctld ends",
    submit=batch(WAIT),
    happens=(Event(RUNS, What("slurmctld ends", _end_slurmctld)),),
    told=HOLDS,
)
ORDINARY = Scenario(way="ordinary", submit=batch(SAY_AND_TASK), told=HOLDS)


def _fail(_: Play) -> None:
    raise SlurmError("It cannot be done.")


ENDS_SLURMCTLD_AND_FAILS = (
    What("", lambda play: play.stage.lab.cluster.kill("slurmctld")),
    What("", _fail),
)
FAILING = tuple(
    Scenario(way=storm.name, submit=batch(WAIT), storm=storm, struck=RUNS, told=HOLDS)
    for storm in (
        Storm(name="a storm that cannot be prepared", first=ENDS_SLURMCTLD_AND_FAILS, does=()),
        Storm(name="a storm that cannot break", does=ENDS_SLURMCTLD_AND_FAILS),
    )
)
STRUCK_NEXT = Scenario(
    way="struck next",
    submit=batch(WAIT),
    storm=Storm(name="a storm in which nothing happens", does=()),
    struck=RUNS,
    happens=(Event(AT_ONCE, GO),),
    told=HOLDS,
)


def test_a_lost_cluster_costs_the_scenarios_that_are_played(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(director, "AT_ONCE", 1)
    verdicts = play_all("gateway", [LOSES_ITS_CLUSTER, ORDINARY], Asserted(slurm="", cells={}))
    problem = verdicts[LOSES_ITS_CLUSTER].problem
    assert "slurmctld has ended" in problem
    assert "slurmctld said last:" in problem
    assert (verdicts[ORDINARY].problem, verdicts[ORDINARY].ended) == ("", "COMPLETED")


def test_a_storm_that_fails_costs_its_own_scenarios() -> None:
    verdicts = play_all("gateway", [*FAILING, STRUCK_NEXT], Asserted(slurm="", cells={}))
    assert [verdicts[scenario].problem for scenario in FAILING] == ["SlurmError: It cannot be done."] * 2
    assert (verdicts[STRUCK_NEXT].problem, verdicts[STRUCK_NEXT].ended) == ("", "COMPLETED")
