# SPDX-License-Identifier: Apache-2.0
"""A report as a picture: how long each locked a QPU, and how much of that executed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qpu_slurm.admin import pictures

if TYPE_CHECKING:
    from pathlib import Path

    from qpu_slurm.admin.report.sums import Sums

_MOST = 40
"""Bars that can be told apart; what is beyond is one bar."""

_UNITS = ((3600.0, "hours"), (60.0, "minutes"), (1.0, "seconds"))
_LEAST = 3.0
"""How much of a unit the longest bar has at least."""


def plot(sums: Sums, path: Path, title: str) -> None:
    """Draw a report's rows as bars.

    Args:
        sums: The report.
        path: The file to write; its name's end says what kind.
        title: What it is about.

    Raises:
        ConfigError: matplotlib is not installed.
        OutputError: The file cannot be written.
    """
    rows = [
        (" ".join(part or "-" for part in row.key), row.executed_seconds, row.idle_seconds)
        for row in sums.rows
    ]
    if len(rows) > _MOST:
        rest = rows[_MOST - 1 :]
        rows[_MOST - 1 :] = [
            (f"{len(rest)} others", sum(row[1] for row in rest), sum(row[2] for row in rest))
        ]
    longest = max((executed + idle for _, executed, idle in rows), default=0.0)
    unit, word = next(((unit, word) for unit, word in _UNITS if longest >= _LEAST * unit), _UNITS[-1])
    names = [name for name, _, _ in rows]
    executed = [executed / unit for _, executed, _ in rows]
    idle = [idle / unit for _, _, idle in rows]

    figure = pictures.figure(height=1.5 + 0.32 * max(len(rows), 1))
    axes = figure.add_subplot()
    executing, idling = pictures.STYLES["executing"], pictures.STYLES["idle"]
    axes.barh(names, executed, label="executing", height=0.7, **executing)
    axes.barh(names, idle, left=executed, label="locked, idle", height=0.7, **idling)
    for place, (_, seconds, rest_) in enumerate(rows):
        axes.annotate(
            f"{(seconds + rest_) / unit:.3g}",
            ((seconds + rest_) / unit, place),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
        )
    axes.invert_yaxis()
    axes.margins(x=0.08)
    untold = sums.total.pending + sums.total.unknown
    missing = f"; without {untold} session{'s' * (untold > 1)}, not known" if untold else ""
    axes.set_xlabel(f"QPU locked ({word}{missing})")
    axes.set_title(title)
    pictures.tidy(axes)
    axes.legend(
        loc="upper center", bbox_to_anchor=(0.5, -0.9 / figure.get_figheight()), ncols=2, frameon=False
    )
    pictures.save(figure, path)
