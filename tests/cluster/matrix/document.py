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

_PLAYED = re.compile(r"last played, from (.+ UTC)\sto (.+ UTC), on Slurm (.+)\.$", re.MULTILINE)
_ROW = re.compile(r"^(\| .* \| .* \|) ([\w ]* \| \d+ \| \d+ \| \d+ \| .*) \|$", re.MULTILINE)

_HEAD = """\
# Reliability

A job that holds a QPU can meet scancel, its time limit, a node that dies, an outage of the quantum service.
Afterwards its session has to be closed, and its user has to find the reason. This page lists what was tried.

Each row is a test. It ran on a real Slurm, with the emulator as the quantum service, and the row shows what
the test asserted. All {number} scenarios passed when they were last played, from {first}
to {last}, on Slurm {slurm}.

| column | what the test asserted |
|---|---|
| ended | the last state of the job, or of each of its parts; empty if Slurm lost the job |
| open | sessions left open, by the emulator's own record; without sessions, tasks that are still there |
| drained | nodes that take no jobs any more |
| lost | sessions without a lease in the journal, leases without a session, leases that are not over |
| message | where the user found the session that the job holds, or the reason why it has none |

- If no hook closed a session, the reaper did. Such a session counts as closed.
- A request is named by its method and path. It fails for this job alone.
- After its prolog was killed, a job waits in Slurm for two minutes. The tests shorten that with
  `scontrol update StartTime`.
- Slurm itself drains a node that gets a job whose number the node has seen before, since slurmctld had
  forgotten the earlier job ("Duplicate jobid" in [slurm-notes.md](slurm-notes.md)). This happens to jobs
  without a QPU, too. The row about it starts the next job on another node.

`make reliability` plays all scenarios and writes this page. The scenarios are data in
`tests/cluster/matrix`: adding one adds its row. `make soak SEED=1 JOBS=300` runs random jobs with random
faults, all at once; the cluster tests run 30 of them.
"""

_TABLE = """
## {group}

| | what happens | ended | open | drained | lost | message |
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
