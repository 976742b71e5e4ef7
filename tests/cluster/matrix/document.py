# SPDX-License-Identifier: Apache-2.0
"""docs/reliability.md: written from what the tests have asserted, and from nothing else.

    make reliability

runs all scenarios, which leave what was asserted in build/reliability.json, and writes the document if every
scenario has passed.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from tests.cluster.matrix.scenarios import GROUPS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.cluster.matrix.director import Verdict
    from tests.cluster.matrix.scenario import Scenario

CHECKOUT = Path(__file__).parents[3]
ASSERTED = CHECKOUT / "build" / "reliability.json"
DOCUMENT = CHECKOUT / "docs" / "reliability.md"

_HEAD = """\
# Reliability

Whatever happens to a job, its session is closed, no node is drained, no lease is lost, and its user is told
what he has to know. Each row below is a test that ran on a real Slurm with the emulator as its service
(`tests/cluster/matrix`), and this document is written from what those tests asserted: `make reliability`.
Scenarios are data there; adding one adds its row.

{when}: Slurm {slurm}, {number} scenarios, all passed.

| column | what was asserted |
|---|---|
| ended | the state of the job, or of its parts, in the end; nothing where Slurm has lost the job |
| open | sessions left open, by the emulator's own record; what no hook closed, a reaper has closed |
| drained | nodes that take no jobs any more |
| lost | sessions that are in no lease of the journal, or the other way round, and leases that are not over |
| told | where the user read what he had to: the session that his job holds, or why it does not have one |

A request is named by its method and path, and fails for this job alone. Where Slurm makes a job wait for two
minutes, since its prolog was killed, the tests shorten that (`scontrol update StartTime`).

One node is drained by Slurm itself, whoever's jobs run there: one that gets a job whose number it has seen
before, as slurmctld had forgotten it ("Duplicate jobid" in [slurm-notes.md](slurm-notes.md)). So the row
about that has the next job on another node.

Random jobs with random faults, all at once: `make soak SEED=1 JOBS=300`; the cluster tests run 30 of them.
"""

_TABLE = """
## {group}

| | what happens | ended | open | drained | lost | told |
|---|---|---|---:|---:|---:|---|
"""


class Cells(msgspec.Struct):
    """What was asserted of one scenario."""

    ended: str
    sessions_left_open: int
    nodes_drained: int
    leases_lost: int
    told: str

    @classmethod
    def of(cls, verdict: Verdict) -> Cells:
        """Take from a verdict what the document shows."""
        return cls(**{name: getattr(verdict, name) for name in cls.__struct_fields__})


class Asserted(msgspec.Struct):
    """What a run has asserted, by the scenarios' names."""

    slurm: str
    when: datetime
    cells: dict[str, Cells]


def row(scenario: Scenario) -> str:
    """Begin a scenario's row: these are its own words, whatever came of it."""
    return f"| {scenario.way} | {scenario.story.replace('|', '/')} |"


def _lines(asserted: Asserted) -> Iterator[str]:
    when = f"{asserted.when.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    number = sum(map(len, GROUPS.values()))
    yield _HEAD.format(when=when, slurm=asserted.slurm, number=number)
    for group, scenarios in GROUPS.items():
        yield _TABLE.format(group=group)
        for scenario in scenarios:
            cells = asserted.cells[scenario.name]
            numbers = f"{cells.sessions_left_open} | {cells.nodes_drained} | {cells.leases_lost}"
            yield f"{row(scenario)} {cells.ended} | {numbers} | {cells.told} |\n"


def main() -> int:
    """Write the document."""
    asserted = msgspec.json.decode(ASSERTED.read_bytes(), type=Asserted)
    names = {scenario.name for scenarios in GROUPS.values() for scenario in scenarios}
    if missing := names - asserted.cells.keys():
        sys.stderr.write(
            "These scenarios have not passed:\n" + "".join(f"  {name}\n" for name in sorted(missing))
        )
        return 1
    DOCUMENT.write_text("".join(_lines(asserted)), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
