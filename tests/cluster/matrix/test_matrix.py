# SPDX-License-Identifier: Apache-2.0
"""Whatever happens to a job: its session is closed, no node drained, no lease lost, and its user is told."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.cluster.matrix.scenarios import GROUPS

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.cluster.matrix.director import Verdict
    from tests.cluster.matrix.scenario import Scenario


@pytest.mark.timeout(3000)  # the first one plays them all
@pytest.mark.parametrize(
    "scenario", [pytest.param(one, id=one.name) for group in GROUPS.values() for one in group]
)
def test_whatever_happens(
    verdict_of: Callable[[Scenario], Verdict], scenario: Scenario, passed: Callable[[Scenario, Verdict], None]
) -> None:
    verdict = verdict_of(scenario)

    assert verdict.problem == "", verdict.heard
    assert verdict.ended == scenario.ends, verdict.heard
    assert verdict.sessions_left_open == 0
    assert verdict.nodes_drained == 0
    assert verdict.leases_lost == 0
    assert verdict.told, f"nobody said {scenario.told!r}:\n{verdict.heard}"
    assert not verdict.told_wrong, f"{scenario.never!r} in {verdict.told_wrong}:\n{verdict.heard}"
    assert verdict.sessions_opened in scenario.sessions, verdict.heard
    passed(scenario, verdict)
