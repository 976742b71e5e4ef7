# SPDX-License-Identifier: Apache-2.0
"""A timeline in a terminal: each kind of bar has a sign of its own, so that colour is not needed."""

from __future__ import annotations

import math
import os
from io import StringIO
from typing import TYPE_CHECKING, NamedTuple

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.text import Text

from qpu_slurm.admin.timeline.chart import Kind

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from qpu_slurm.admin.timeline.chart import Row, Workflow

_WIDTH = 100
"""How wide it is where nobody says."""

_LEAST = 20
_NOTE = 40


class Sign(NamedTuple):
    """How a kind of bar looks: in Unicode, in ASCII, and in which colour."""

    unicode: str
    ascii: str
    colour: str


SIGNS = {
    Kind.WAITING: Sign("░", ".", "bright_black"),
    Kind.JOB: Sign("─", "-", "default"),
    Kind.STEP: Sign("▄", "=", "cyan"),
    Kind.SESSION: Sign("┄", "~", "green"),
    Kind.EXECUTING: Sign("█", "#", "blue"),
    Kind.IDLE: Sign("▒", "x", "yellow"),
}

_GOING_ON = Sign("▸", ">", "default")


def draw(workflows: Sequence[Workflow]) -> str:
    """Draw workflows for standard output, one below the other, on one scale."""
    console = Console(highlight=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console = Console(highlight=False, width=_WIDTH, file=StringIO())
    ascii_only = not (Console().encoding or "").lower().startswith("utf")
    with console.capture() as capture:
        for line in _Drawing(workflows, console.width, ascii_only=ascii_only).lines():
            console.print(line, no_wrap=True, crop=False, overflow="ignore", soft_wrap=True)
    return capture.get().rstrip("\n")


class _Drawing:
    def __init__(self, workflows: Sequence[Workflow], width: int, *, ascii_only: bool) -> None:
        self._workflows = workflows
        self._ascii = ascii_only
        rows = [row for workflow in workflows for job in workflow.jobs for row in job.rows]
        self._label = max((cell_len(row.label) for row in rows), default=0) + 3
        note = min(max((len(row.note) for row in rows if row.bars), default=0), _NOTE) + 1
        self._columns = max(width - self._label - note, _LEAST)
        self._seconds = max(
            [workflow.seconds for workflow in workflows] + [bar.end for row in rows for bar in row.bars]
        )

    def lines(self) -> Iterator[Text]:
        for workflow in self._workflows:
            yield Text(self._plain(workflow.label), style="bold")
            yield Text(workflow.summary)
            for job in workflow.jobs:
                if len(workflow.jobs) > 1 or job.title != workflow.label:
                    yield Text(f" {self._plain(job.title)}", style="bold")
                for row in job.rows:
                    yield self._row(row)
            yield from self._axis()
            yield Text()
        yield self._legend()

    def _row(self, row: Row) -> Text:
        cells: list[Sign | None] = [None] * self._columns
        for bar in row.bars:
            begin = min(int(self._place(bar.begin)), self._columns - 1)
            end = max(round(self._place(bar.end)), begin + 1)
            cells[begin:end] = [SIGNS[bar.kind]] * (end - begin)
            if bar.going_on:
                cells[min(end, self._columns) - 1] = _GOING_ON
        style = "bold" if row.locks else ""
        text = Text(set_cell_size(f"  {self._plain(row.label)}", self._label), style=style)
        if not row.bars:
            text.append(self._plain(row.note), style=style)
            return text
        for cell in cells[: self._columns]:
            text.append(" " if cell is None else self._sign(cell), style=cell.colour if cell else "")
        text.append(f" {self._plain(row.note)}"[: _NOTE + 1], style=style)
        text.rstrip()
        return text

    def _axis(self) -> Iterator[Text]:
        step = tick_seconds(self._seconds, self._columns // 10)
        corner, line = ("+", "-") if self._ascii else ("┴", "─")
        ruler, numbers = [line] * self._columns, [" "] * (self._columns + 8)
        for number in range(math.floor(self._seconds / step) + 1):
            place = min(int(self._place(number * step)), self._columns - 1)
            ruler[place] = corner
            digits = f"{number * step:g}"
            numbers[place : place + len(digits)] = digits
        yield Text(" " * self._label + "".join(ruler), style="bright_black")
        label = "seconds ".ljust(self._label - 2)
        yield Text(f"  {label}{''.join(numbers)}".rstrip(), style="bright_black")

    def _legend(self) -> Text:
        shown = {
            bar.kind
            for workflow in self._workflows
            for job in workflow.jobs
            for row in job.rows
            for bar in row.bars
        }
        text = Text()
        for kind in Kind:
            if kind in shown:
                sign = SIGNS[kind]
                text.append(2 * self._sign(sign), style=sign.colour)
                text.append(f" {kind}   ")
        text.rstrip()
        return text

    def _place(self, seconds: float) -> float:
        return seconds / self._seconds * self._columns if self._seconds else 0.0

    def _sign(self, sign: Sign) -> str:
        return sign.ascii if self._ascii else sign.unicode

    def _plain(self, text: str) -> str:
        """Leave out what a terminal would take for an order, or could not show."""
        text = "".join(letter if letter.isprintable() else "?" for letter in text)
        return text.encode("ascii", "replace").decode() if self._ascii else text


def tick_seconds(seconds: float, most: int) -> float:
    """Return a round number of seconds between two ticks of an axis.

    Args:
        seconds: How long the axis is.
        most: How many ticks there may be.
    """
    least = max(seconds, 0.1) / max(most, 1)
    power = 10.0 ** math.floor(math.log10(least))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= least * 0.999)
