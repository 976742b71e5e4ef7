# SPDX-License-Identifier: Apache-2.0
"""docs/reliability.md: written from what the tests have asserted, and from nothing else.

    make reliability                               # play all scenarios, and write the document
    make reliability PYTEST_ARGS='-k "job array"'  # play some; the other rows stay as they are

A run leaves what it asserted in build/reliability.json. A row stays as long as its scenario does: one whose
words have changed is another scenario, and has to be played.
"""

from __future__ import annotations

import re
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from tests.cluster.matrix.scenarios import GROUPS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.cluster.matrix.director import Verdict
    from tests.cluster.matrix.scenario import Scenario

CHECKOUT = Path(__file__).parents[3]
ASSERTED = CHECKOUT / "build" / "reliability.json"
DOCUMENT = CHECKOUT / "docs" / "reliability.md"

SCENARIOS = tuple(scenario for scenarios in GROUPS.values() for scenario in scenarios)

_PLAYED = re.compile(r"played last, from (.+ UTC) to\s(.+ UTC)\s?, on Slurm (.+)\.$", re.MULTILINE)
_ROW = re.compile(r"^(\| .* \| .* \|) ([\w ]* \| \d+ \| \d+ \| \d+ \| .*) \|$", re.MULTILINE)

_HEAD = """\
# Reliability

Whatever happens to a job, its session is closed, no node is drained, no lease is lost, and its user is told
what he has to know. Each row below is a test that ran on a real Slurm with the emulator as its service
(`tests/cluster/matrix`), and this document is written from what those tests asserted: `make reliability`.
Scenarios are data there; adding one adds its row.

All {number} scenarios passed as each was played last, from {first} to
{last}, on Slurm {slurm}.

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
    """What was asserted of one scenario, and when."""

    ended: str
    sessions_left_open: int
    nodes_drained: int
    leases_lost: int
    told: str
    when: datetime

    @classmethod
    def of(cls, verdict: Verdict) -> Cells:
        """Take from a verdict what the document shows."""
        shown = {name: getattr(verdict, name) for name in cls.__struct_fields__ if name != "when"}
        return cls(**shown, when=datetime.now(UTC))

    def __str__(self) -> str:
        numbers = f"{self.sessions_left_open} | {self.nodes_drained} | {self.leases_lost}"
        return f"{self.ended} | {numbers} | {self.told}"


class Asserted(msgspec.Struct):
    """What a run has asserted, by the scenarios' names."""

    slurm: str
    cells: dict[str, Cells]

    def of(self, scenarios: Sequence[Scenario]) -> Iterator[tuple[Scenario, Cells]]:
        """Return those of some scenarios that have passed."""
        for scenario in scenarios:
            if scenario.name in self.cells:
                yield scenario, self.cells[scenario.name]


class Document(msgspec.Struct, frozen=True):
    """The document: when its scenarios were played, and what was asserted of each.

    Attributes:
        slurm: Slurm's version.
        first: When the first of them was played.
        last: When the last one was.
        rows: What was asserted, by the words that its row begins with.
    """

    slurm: str
    first: str
    last: str
    rows: dict[str, str]

    @classmethod
    def read(cls, text: str) -> Document:
        """Read what was written."""
        played = _PLAYED.search(text)
        if played is None:
            raise ValueError("It does not say when its scenarios were played.")
        first, last, slurm = played.groups()
        return cls(slurm, first, last, dict(_ROW.findall(text)))

    def updated(self, asserted: Asserted) -> Document:
        """Take over what a run has asserted; what it did not play stays as it is."""
        known = {row(scenario): cells for scenario, cells in asserted.of(SCENARIOS)}
        if not known:
            return self
        times = sorted(f"{cells.when.astimezone(UTC):%Y-%m-%d %H:%M} UTC" for cells in known.values())
        first, last = times[0], times[-1]
        if len(known) < len(SCENARIOS):
            first = self.first
        rows = self.rows | {words: str(cells) for words, cells in known.items()}
        return Document(asserted.slurm, first, last, rows)

    def missing(self) -> list[Scenario]:
        """List the scenarios that were not played yet."""
        return [scenario for scenario in SCENARIOS if row(scenario) not in self.rows]

    def write(self) -> str:
        """Return its text, with the rows of the scenarios that there are now."""
        head = _HEAD.format(number=len(SCENARIOS), first=self.first, last=self.last, slurm=self.slurm)
        return head + "".join(self._tables())

    def _tables(self) -> Iterator[str]:
        for group, scenarios in GROUPS.items():
            yield _TABLE.format(group=group)
            for scenario in scenarios:
                yield f"{row(scenario)} {self.rows[row(scenario)]} |\n"


def row(scenario: Scenario) -> str:
    """Begin a scenario's row: these are its own words, whatever came of it."""
    return f"| {scenario.way} | {scenario.story.replace('|', '/')} |"


def main() -> int:
    """Write the document."""
    document = Document.read(DOCUMENT.read_text(encoding="utf-8"))
    if ASSERTED.exists():
        document = document.updated(msgspec.json.decode(ASSERTED.read_bytes(), type=Asserted))
    if missing := document.missing():
        sys.stderr.write(
            "These scenarios have not passed yet; play them with make reliability PYTEST_ARGS='-k \"…\"':\n"
            + "".join(f"  {scenario.name}\n" for scenario in missing)
        )
        return 1
    DOCUMENT.write_text(document.write(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
