# SPDX-License-Identifier: Apache-2.0
"""A report as a table, as CSV and as JSON."""

from __future__ import annotations

import csv
from io import StringIO
from typing import TYPE_CHECKING

import msgspec
from rich.table import Table
from rich.text import Text

from qpu_slurm.admin.tables import printed
from qpu_slurm.system.users import user_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from qpu_slurm.admin.report.sums import Sum, Sums
    from qpu_slurm.journal.model import Lease

COLUMNS = {
    "jobs": "jobs",
    "sessions": "sessions",
    "tasks": "tasks",
    "locked_seconds": "locked s",
    "executed_seconds": "executing s",
    "idle_seconds": "idle s",
    "share": "share",
    "pending": "pending",
    "unknown": "unknown",
}
"""What each sum has beside its key, and how that is headed."""


def as_table(sums: Sums, refused: Sequence[Lease] = ()) -> str:
    """Draw a report, its total in the last row, and below it what was refused to whom."""
    table = Table(box=None, pad_edge=False)
    for name in sums.by:
        table.add_column("QPU" if name == "qpu" else name)
    for title in COLUMNS.values():
        table.add_column(title, justify="right")
    for row in sums.rows:
        # Text: what somebody's account is called is no markup.
        table.add_row(*(Text(part or "-") for part in row.key), *_cells(row))
    total = ["total", *[""] * (len(sums.by) - 1)]
    table.add_section()
    table.add_row(*total, *_cells(sums.total), style="bold")
    return "\n\n".join([printed(table), *([printed(_refused(refused))] if refused else [])])


def _refused(refused: Sequence[Lease]) -> Table:
    table = Table("refused", "job", "user", "QPU", "reason", box=None, pad_edge=False)
    for lease in refused:
        when = f"{lease.created_at.astimezone():%Y-%m-%d %H:%M}"
        row = (when, str(lease.job_id), user_name(lease.user_id), lease.qpu, lease.reason)
        table.add_row(*map(Text, row))
    return table


def as_csv(sums: Sums) -> str:
    """Write a report's rows as CSV, with a header and without the total."""
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*sums.by, *COLUMNS])
    for row in sums.rows:
        values = (getattr(row, name) for name in COLUMNS)
        writer.writerow([*row.key, *("" if value is None else value for value in values)])
    return text.getvalue().rstrip("\n")


def as_json(sums: Sums, refused: Sequence[Lease] = ()) -> str:
    """Write a report as a JSON object.

    Args:
        sums: `rows`, each with its key's parts by name, and `total`.
        refused: The jobs that were refused.
    """
    document = {
        "rows": [{**dict(zip(sums.by, row.key, strict=True)), **_values(row)} for row in sums.rows],
        "total": _values(sums.total),
        "refused": [
            {
                "time": lease.created_at,
                "job": lease.job_id,
                "user": user_name(lease.user_id),
                "account": lease.account,
                "qpu": lease.qpu,
                "reason": lease.reason,
            }
            for lease in refused
        ],
    }
    return msgspec.json.format(msgspec.json.encode(document), indent=2).decode()


def _values(row: Sum) -> dict[str, object]:
    return {name: getattr(row, name) for name in COLUMNS}


def _cells(row: Sum) -> Iterable[str]:
    for name in COLUMNS:
        value = getattr(row, name)
        if name == "share":
            yield "-" if value is None else f"{value:.1%}"
        elif isinstance(value, float):
            yield f"{value:.1f}"
        else:
            yield str(value)
