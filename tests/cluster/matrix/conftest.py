# SPDX-License-Identifier: Apache-2.0
"""Plays the scenarios that were selected, all of a stage at once, before the first of them is judged."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec
import pytest

from tests.cluster.matrix.director import perform
from tests.cluster.matrix.document import ASSERTED, Asserted, Cells
from tests.cluster.matrix.scenario import Scenario
from tests.cluster.matrix.stage import Stage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.cluster.matrix.director import Verdict


@pytest.fixture(scope="session")
def verdict_of(request: pytest.FixtureRequest, asserted: Asserted) -> Callable[[Scenario], Verdict]:
    """Return how a scenario ended; `request.param` says on which stage."""
    selected = [one for item in request.session.items for one in _scenario(item)]
    with Stage(request.param, [one for one in selected if one.keys == request.param]) as stage:
        asserted.slurm = ".".join(map(str, stage.lab.cluster.version))
        verdicts = perform(stage, list(stage.qpus))
    return lambda scenario: verdicts[stage.qpus[scenario]]


@pytest.fixture(scope="session")
def asserted() -> Iterator[Asserted]:
    """Write down what was asserted, once all is over."""
    asserted = Asserted(slurm="", when=datetime.now(UTC), cells={})
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
