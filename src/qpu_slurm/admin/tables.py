# SPDX-License-Identifier: Apache-2.0
"""Leases and QPUs on an admin's screen, and for his programs."""

from __future__ import annotations

from io import StringIO
from typing import TYPE_CHECKING

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from qpu_slurm.errors import sentences
from qpu_slurm.journal.journal import Journal
from qpu_slurm.journal.model import LeaseState
from qpu_slurm.leases.availability import QpuState
from qpu_slurm.system.plurals import counted
from qpu_slurm.system.users import user_name

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime
    from pathlib import Path

    from qpu_slurm.journal.model import Lease
    from qpu_slurm.leases.availability import QpuReport
    from qpu_slurm.leases.idle import Use
    from qpu_slurm.leases.reaper import Report

_WIDTH, _WIDEST = 140, 10_000
_COLOURS = {
    LeaseState.HELD: "green",
    LeaseState.BOUND: "cyan",
    LeaseState.RELEASING: "yellow",
    LeaseState.FAILED: "red",
}

_QPU_COLOURS = {QpuState.AVAILABLE: "green", QpuState.CLOSED: "yellow", QpuState.AWAY: "red"}


_DONE = {
    **{state: str(state) for state in LeaseState},
    LeaseState.BOUND: "without a session, until the next task",
    LeaseState.HELD: "the session was found",
}


def as_json(leases: Sequence[Lease], journal: Journal, uses: Mapping[int, Use]) -> str:
    """Write leases as a JSON list, times in UTC, each with all the sessions that it has or had.

    Args:
        leases: What to write.
        journal: Knows their sessions.
        uses: What these are used for now, as far as that is known.
    """
    found = [
        msgspec.structs.asdict(lease)
        | {
            "sessions": [session.session_id for session in journal.history.sessions(lease.id)],
            "use": uses.get(lease.id),
        }
        for lease in leases
    ]
    return msgspec.json.format(msgspec.json.encode(found), indent=2).decode()


def as_table(leases: Sequence[Lease], journal: Journal, uses: Mapping[int, Use]) -> str:
    """Draw leases, times as on the clock of this machine.

    Args:
        leases: What to draw.
        journal: Knows why a lease could not be released yet.
        uses: What their sessions are used for now, as far as that is known.
    """
    table = Table(
        "job", "user", "QPU", "state", "use", "session", "since", "until", "reason", box=None, pad_edge=False
    )
    for lease in leases:
        until = lease.ended_at or lease.expires_at
        row = (
            str(lease.job_id),
            user_name(lease.user_id),
            lease.qpu,
            lease.state,
            uses.get(lease.id, "?" if lease.state is LeaseState.HELD else "-"),
            lease.session_id or "-",
            time_text(lease.created_at),
            time_text(until),
            _reason(lease, journal),
        )
        # Text: what a service or a user wrote is no markup.
        table.add_row(*map(Text, row), style=_COLOURS.get(lease.state, ""))
    if not leases:
        return "No leases."
    return printed(table)


def printed(table: Table) -> str:
    """Draw a table for standard output."""
    console = Console()
    if not console.is_terminal:
        # A program that reads the table wants each row on one line: measured where nothing has to be wrapped.
        widest = Console(width=_WIDEST).measure(table).maximum
        console = Console(width=max(_WIDTH, widest), file=StringIO())
    with console.capture() as capture:
        console.print(table)
    return capture.get().rstrip("\n")


def why_not_released(path: Path, lease: Lease) -> str:
    """Say why a lease is not over, if this machine has the journal."""
    if not path.exists():
        return ""
    with Journal(path, make=False) as journal:
        return f": {journal.events(lease.id)[-1].detail}"


def report_as_json(report: Report) -> str:
    """Write what the reaper found as a JSON object, times in UTC."""
    return msgspec.json.format(msgspec.json.encode(report), indent=2).decode()


def report_as_text(report: Report) -> str:
    """Say what the reaper found, a line for each lease that was to be ended."""
    lines = [
        f"job {reaped.lease.job_id} ({user_name(reaped.lease.user_id)}), {reaped.lease.qpu}: "
        + (f"not released yet: {reaped.trouble}" if reaped.trouble else _DONE[reaped.lease.state])
        + f" ({reaped.why.rstrip('.')})"
        for reaped in report.reaped
    ]
    going_on = sum(not (reaped.lease.state.final or reaped.trouble) for reaped in report.reaped)
    ended = len(report.reaped) - going_on
    kept = report.leases - ended - report.left
    lines.append(f"{counted(report.leases, 'lease')}: {ended} to be ended, {kept} left to their jobs.")
    lines += [
        f"job {lease.job_id} ({user_name(lease.user_id)}), {lease.qpu}: taken over from Slurm, with "
        f"{'session ' + lease.session_id if lease.session_id else 'no session'}"
        for lease in report.taken_over
    ]
    if report.forgotten:
        lines.append(f"{report.forgotten} that were over long ago are deleted.")
    if report.left:
        lines.append(f"There was no time for {report.left} more: reap again.")
    if report.trouble:
        lines.append(f"Slurm could not be asked which jobs run: {report.trouble}")
    return "\n".join(lines)


def qpus_as_json(reports: Sequence[QpuReport]) -> str:
    """Write how QPUs are as a JSON list, times in UTC."""
    return msgspec.json.format(msgspec.json.encode(reports), indent=2).decode()


def qpus_as_table(reports: Sequence[QpuReport]) -> str:
    """Draw how QPUs are, times as on the clock of this machine."""
    restricted = any(report.access not in {None, "yes"} for report in reports)
    access = ["you may use it"] if restricted else []
    # Most services do all that IBM's cloud does.
    limits = ["service"] if any(report.limits for report in reports) else []
    columns = ("QPU", "state", *access, "jobs", "limit", "waiting", "tasks", "reason", *limits)
    table = Table(*columns, box=None, pad_edge=False)
    for report in reports:
        reason = report.reason
        if report.closed_by is not None:
            reason += f" [{user_name(report.closed_by)}, {time_text(report.closed_at)}]"
        row = (
            report.qpu,
            report.state,
            *([report.access or "?"] if restricted else []),
            str(len(report.jobs)),
            "-" if report.limit is None else str(report.limit),
            "?" if report.waiting is None else str(len(report.waiting)),
            "?" if report.tasks is None else str(report.tasks),
            reason or "-",
            *(["; ".join(report.limits) or "-"] if limits else []),
        )
        table.add_row(*map(Text, row), style=_QPU_COLOURS.get(report.state, ""))
    return printed(table)


def _reason(lease: Lease, journal: Journal) -> str:
    """Say why a lease is as it is: what ended it, or is in the way of its end, and what it was chosen for."""
    why = lease.reason
    if lease.state is LeaseState.RELEASING:
        last = journal.events(lease.id)[-1]
        why = f"not released yet: {last.detail}" if last.what == "postponed" else why
    if lease.chosen is None:
        return why
    return sentences(why, f"Chosen for {lease.chosen.asked}.", lease.chosen.why)


def one_line(text: str) -> str:
    """Make a reason that somebody typed one line, of characters that a terminal only shows."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def time_text(time: datetime | None) -> str:
    """Write a time as on the clock of this machine."""
    return time.astimezone().strftime("%Y-%m-%d %H:%M:%S") if time else "-"
