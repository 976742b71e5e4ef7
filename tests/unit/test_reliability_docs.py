# SPDX-License-Identifier: Apache-2.0
"""docs/reliability.md has the scenarios that there are, and no others."""

from __future__ import annotations

import re
from collections import Counter

from tests.cluster.matrix.document import DOCUMENT, row
from tests.cluster.matrix.scenarios import GROUPS


def test_every_scenario_has_its_row_and_every_row_its_scenario() -> None:
    written = DOCUMENT.read_text(encoding="utf-8")
    for group, scenarios in GROUPS.items():
        table = written.split(f"## {group}\n")[1].split("\n## ")[0]
        rows = re.findall(r"^(\| .* \| .* \|) \w* \| \d+ \| \d+ \| \d+ \| .* \|$", table, re.MULTILINE)
        assert rows == [row(scenario) for scenario in scenarios]


def test_nothing_was_lost_anywhere() -> None:
    rows = [
        line for line in DOCUMENT.read_text(encoding="utf-8").splitlines() if re.search(r"\| \d+ \|", line)
    ]
    assert len(rows) == sum(map(len, GROUPS.values()))
    assert all("| 0 | 0 | 0 |" in line for line in rows)


def test_no_two_scenarios_have_one_name() -> None:
    names = Counter(scenario.name for scenarios in GROUPS.values() for scenario in scenarios)
    assert [name for name, times in names.items() if times > 1] == []
