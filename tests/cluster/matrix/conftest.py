# SPDX-License-Identifier: Apache-2.0
"""Plays the scenarios that were selected, all of a stage at once, before the first of them is judged."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest

from tests.cluster.matrix.director import perform
from tests.cluster.matrix.document import ASSERTED, Asserted, Cells
from tests.cluster.matrix.scenario import Scenario
from tests.cluster.matrix.stage import Stage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from tests.cluster.matrix.director import Verdict
    from tests.cluster.matrix.scenario import Keys


@pytest.fixture(scope="session")
def verdict_of(selected: Sequence[Scenario], asserted: Asserted) -> Callable[[Scenario], Verdict]:
    """Return how a scenario ended; the first that is asked for has all of its stage played."""
    played: dict[Keys, Mapping[Scenario, Verdict]] = {}
    broken: dict[Keys, Exception] = {}

    def verdict_of(scenario: Scenario) -> Verdict:
        keys = scenario.keys
        if keys in broken:
            # Nothing is gained by building the stage again for each scenario.
            pytest.fail(f"There was nothing to play it on: {broken[keys]}", pytrace=False)
        if keys not in played:
            try:
                played[keys] = play_all(keys, selected, asserted)
            except Exception as error:
                broken[keys] = error
                raise
        return played[keys][scenario]

    return verdict_of


def play_all(keys: Keys, selected: Sequence[Scenario], asserted: Asserted) -> Mapping[Scenario, Verdict]:
    """Play all scenarios of one kind of stage; where a cluster is lost, the rest of them on a new one."""
    verdicts: dict[Scenario, Verdict] = {}
    while left := [one for one in selected if one.keys == keys and one not in verdicts]:
        with Stage(keys, left) as stage:
            asserted.slurm = ".".join(map(str, stage.lab.cluster.version))
            verdicts |= perform(stage, left)
    return verdicts


@pytest.fixture(scope="session")
def selected(request: pytest.FixtureRequest) -> Sequence[Scenario]:
    """Return the scenarios that are to be judged."""
    return [one for item in request.session.items for one in _scenario(item)]


@pytest.fixture(scope="session")
def asserted(selected: Sequence[Scenario]) -> Iterator[Asserted]:
    """Write down what was asserted, once all is over; of what was not selected, what was asserted before."""
    asserted = Asserted(slurm="", cells={})
    if ASSERTED.exists():
        asserted.cells |= msgspec.json.decode(ASSERTED.read_bytes(), type=Asserted).cells
    for scenario in selected:
        asserted.cells.pop(scenario.name, None)
    yield asserted
    ASSERTED.parent.mkdir(exist_ok=True)
    ASSERTED.write_bytes(msgspec.json.format(msgspec.json.encode(asserted)))


@pytest.fixture
def passed(asserted: Asserted) -> Callable[[Scenario, Verdict], None]:
    """Write down that a scenario has passed."""

    def write(scenario: Scenario, verdict: Verdict) -> None:
        asserted.cells[scenario.name] = Cells.of(verdict)

    return write


def _scenario(item: pytest.Item) -> Iterator[Scenario]:
    """Return the scenario that an item judges, if it judges one."""
    if isinstance(item, pytest.Function) and "verdict_of" in item.fixturenames:
        scenario = item.callspec.params["scenario"]
        assert isinstance(scenario, Scenario)
        yield scenario
