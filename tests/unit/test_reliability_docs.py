# SPDX-License-Identifier: Apache-2.0
"""docs/reliability.md has the scenarios that there are, and no others."""

from __future__ import annotations

import re
from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from tests.cluster.matrix.document import DOCUMENT, SCENARIOS, Asserted, Cells, Document, row

if TYPE_CHECKING:
    from tests.cluster.matrix.scenario import Scenario


def test_every_scenario_has_its_row_and_every_row_its_scenario() -> None:
    document = Document.read(DOCUMENT.read_text(encoding="utf-8"))
    not_played = [scenario.name for scenario in document.missing()]
    assert not_played == [], "Play these: make reliability PYTEST_ARGS='-k …' (see tests/cluster/matrix)"
    assert document.rows.keys() == {row(scenario) for scenario in SCENARIOS}


def test_the_document_is_as_it_is_written() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    assert Document.read(text).write() == text


PASSED = "COMPLETED | 0 | 0 | 0 | output"
PLAYED = Document(
    "22.5.8",
    "2030-01-01 00:00 UTC",
    "2030-01-02 00:00 UTC",
    {row(scenario): PASSED for scenario in SCENARIOS},
)


def asserted(*scenarios: Scenario) -> Asserted:
    when = datetime(2031, 2, 3, 4, 5, tzinfo=UTC)
    cells = Cells("FAILED", sessions_left_open=0, nodes_drained=0, leases_lost=0, told="terminal", when=when)
    return Asserted(slurm="31.2.0", cells={scenario.name: cells for scenario in scenarios})


def test_a_run_of_some_scenarios_changes_their_rows_only() -> None:
    updated = PLAYED.updated(asserted(SCENARIOS[1]))
    assert (updated.slurm, updated.first, updated.last) == ("31.2.0", PLAYED.first, "2031-02-03 04:05 UTC")
    assert {words for words, seen in updated.rows.items() if seen != PASSED} == {row(SCENARIOS[1])}
    assert f"{row(SCENARIOS[1])} FAILED | 0 | 0 | 0 | terminal |\n" in updated.write()
    assert Document.read(updated.write()) == updated


def test_a_run_of_all_scenarios_is_all_that_is_said() -> None:
    updated = PLAYED.updated(asserted(*SCENARIOS))
    assert (updated.first, updated.last) == ("2031-02-03 04:05 UTC",) * 2
    assert PASSED not in updated.write()


def test_a_scenario_that_was_never_played_is_missing() -> None:
    others = {words: seen for words, seen in PLAYED.rows.items() if words != row(SCENARIOS[2])}
    assert Document("", "", "", others).missing() == [SCENARIOS[2]]
    assert PLAYED.missing() == []


def test_nothing_was_lost_anywhere() -> None:
    rows = [
        line for line in DOCUMENT.read_text(encoding="utf-8").splitlines() if re.search(r"\| \d+ \|", line)
    ]
    assert len(rows) == len(SCENARIOS)
    assert all("| 0 | 0 | 0 |" in line for line in rows)


def test_no_two_scenarios_have_one_name() -> None:
    names = Counter(scenario.name for scenario in SCENARIOS)
    assert [name for name, times in names.items() if times > 1] == []
