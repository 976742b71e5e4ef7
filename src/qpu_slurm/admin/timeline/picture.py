# SPDX-License-Identifier: Apache-2.0
"""A timeline as SVG and PNG."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qpu_slurm.admin import pictures
from qpu_slurm.admin.timeline.chart import Kind

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from matplotlib.axes import Axes

    from qpu_slurm.admin.timeline.chart import Bar, Row, Workflow

_STYLES = {
    Kind.WAITING: "waiting",
    Kind.JOB: "job",
    Kind.STEP: "step",
    Kind.SESSION: "session",
    Kind.EXECUTING: "executing",
    Kind.IDLE: "idle",
}
_HEIGHTS = {
    Kind.WAITING: 0.3,
    Kind.JOB: 0.3,
    Kind.SESSION: 0.3,
    Kind.STEP: 0.6,
    Kind.EXECUTING: 0.7,
    Kind.IDLE: 0.7,
}

_ROW = 0.24
"""Inches of a row."""


def draw(workflows: Sequence[Workflow], paths: Sequence[Path]) -> None:
    """Draw workflows, one below the other, on one scale.

    Args:
        workflows: What to draw.
        paths: The files to write; their names' ends say what kind.

    Raises:
        ConfigError: matplotlib is not installed.
        OutputError: A file cannot be written.
    """
    heights = [sum(len(job.rows) + 1 for job in workflow.jobs) for workflow in workflows]
    figure = pictures.figure(height=sum(heights) * _ROW + 0.55 * len(workflows) + 0.7)
    parts = figure.subplots(len(workflows), sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    end = max(
        [workflow.seconds for workflow in workflows]
        + [bar.end for workflow in workflows for job in workflow.jobs for row in job.rows for bar in row.bars]
    )
    for axes, workflow in zip(parts, workflows, strict=True):
        _Part(axes, end).draw(workflow)
    parts[-1].set_xlabel("seconds since the submission")
    _legend(parts[-1], workflows)
    for path in paths:
        pictures.save(figure, path)


class _Part:
    """One workflow's part of the picture."""

    def __init__(self, axes: Axes, end: float) -> None:
        self._axes = axes
        self._end = end
        self._ticks: dict[int, str] = {}
        self._place = 0

    def draw(self, workflow: Workflow) -> None:
        axes = self._axes
        for job in workflow.jobs:
            self._title(job.title)
            for row in job.rows:
                self._row(row)
        axes.set_yticks(list(self._ticks), list(self._ticks.values()))
        for label, tick in zip(axes.get_yticklabels(), self._ticks.values(), strict=True):
            label.set_fontweight("bold" if tick.endswith(": locked") else "normal")
        axes.set_ylim(self._place - 0.4, -0.6)
        axes.set_xlim(0, self._end * 1.13)
        axes.set_title(workflow.label, loc="left", fontweight="bold")
        axes.set_title(workflow.summary, loc="right", fontsize=8)
        pictures.tidy(axes)

    def _title(self, text: str) -> None:
        if self._place:
            self._axes.axhline(self._place - 0.5, color="#aaaaaa", linewidth=0.7)
        self._axes.annotate(
            text,
            (0, self._place),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            style="italic",
        )
        self._place += 1

    def _row(self, row: Row) -> None:
        if row.locks:
            self._axes.axhspan(self._place - 0.5, self._place + 0.5, color="#fff3d6", zorder=0)
        for bar in row.bars:
            self._bar(bar)
        if row.note:
            self._axes.annotate(
                row.note,
                (max((bar.end for bar in row.bars), default=0.0), self._place),
                xytext=(4, 0),
                textcoords="offset points",
                va="center",
                fontsize=8,
                fontweight="bold" if row.locks else "normal",
            )
        self._ticks[self._place] = row.label
        self._place += 1

    def _bar(self, bar: Bar) -> None:
        height = _HEIGHTS[bar.kind]
        style = pictures.STYLES[_STYLES[bar.kind]]
        self._axes.broken_barh(
            [(bar.begin, bar.seconds)], (self._place - height / 2, height), zorder=2, **style
        )
        if bar.going_on:
            self._axes.plot([bar.end], [self._place], marker=">", color="black", markersize=4, zorder=3)


def _legend(axes: Axes, workflows: Sequence[Workflow]) -> None:
    from matplotlib.patches import Patch  # noqa: PLC0415 - it belongs to an extra

    shown = {
        bar.kind for workflow in workflows for job in workflow.jobs for row in job.rows for bar in row.bars
    }
    patches = [Patch(label=kind, **pictures.STYLES[_STYLES[kind]]) for kind in Kind if kind in shown]
    figure = axes.get_figure()
    if figure is not None:
        figure.legend(
            handles=patches, loc="outside lower center", ncols=len(patches), frameon=False, fontsize=8
        )
