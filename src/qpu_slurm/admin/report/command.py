# SPDX-License-Identifier: Apache-2.0
"""What an admin types: `qpu-slurm report`."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from qpu_slurm.admin import pictures
from qpu_slurm.admin.report import show
from qpu_slurm.admin.report.plot import plot
from qpu_slurm.admin.report.sums import KEYS, sum_up
from qpu_slurm.reach.local import open_journal
from qpu_slurm.system.durations import parse_duration
from qpu_slurm.system.users import user_name

if TYPE_CHECKING:
    from collections.abc import Callable

    from qpu_slurm.config import Config
    from qpu_slurm.journal.history import Use
    from qpu_slurm.journal.model import Lease

_EVER = datetime.fromtimestamp(0, UTC)

_CHOICES: dict[str, Callable[[Use | Lease], str]] = {
    "user": lambda one: user_name(one.user_id),
    "account": lambda one: one.account,
    "qpu": lambda one: one.qpu,
}
"""What a report can be confined to."""

DESCRIPTION = """\
Sum up what the QPUs were used for: jobs, sessions and tasks, and the seconds in which a QPU was locked (the
time that you pay for), executed, and was locked but idle. A session counts in the period in which it was
opened. Below the sums are the jobs that were refused, with the sentence that each user saw. Run it as root
or SlurmUser, where the journal is.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options to a parser."""
    parser.description = DESCRIPTION
    parser.add_argument(
        "--by",
        type=_keys,
        default=("user",),
        metavar="KEY[,KEY]",
        help=f"group by: {', '.join(KEYS)} (default: user)",
    )
    parser.add_argument(
        "--since",
        type=_time,
        default=_EVER,
        metavar="WHEN",
        help="start of the period: a date (2026-11-01), a time (2026-11-01T12:00), or an age (30d)",
    )
    parser.add_argument(
        "--until", type=_time, metavar="WHEN", help="end of the period, not included (default: now)"
    )
    for name, text in (("user", "user's"), ("account", "account's"), ("qpu", "QPU's")):
        parser.add_argument(
            f"--{name}",
            action="append",
            default=[],
            metavar="NAME",
            help=f"only this {text}; repeat for more",
        )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--csv", action="store_true", help="print the rows as CSV")
    form.add_argument("--json", action="store_true", help="print a JSON object")
    parser.add_argument(
        "--plot", type=pictures.picture, metavar="FILE", help="also draw the rows, as FILE.svg or FILE.png"
    )


def run(config: Config, arguments: argparse.Namespace) -> int:
    """Print the report; return the exit code.

    Raises:
        JournalError: The journal is not on this host, or cannot be read.
        ConfigError: matplotlib is not installed.
        OutputError: The picture cannot be written.
    """
    until = arguments.until or datetime.now(UTC)
    with open_journal(config) as journal:
        uses = journal.history.uses(arguments.since, until)
        refusals = journal.history.refusals(arguments.since, until)
    chosen = _filter({name: getattr(arguments, name) for name in _CHOICES})
    sums = sum_up(filter(chosen, uses), arguments.by)
    if arguments.plot:
        plot(sums, arguments.plot, _title(arguments.by, arguments.since, until))
    refused = tuple(filter(chosen, refusals))
    if arguments.csv:
        text = show.as_csv(sums)
    else:
        text = show.as_json(sums, refused) if arguments.json else show.as_table(sums, refused)
    print(text)  # noqa: T201 - the command's output
    return 0


def _filter(wanted: dict[str, list[str]]) -> Callable[[Use | Lease], bool]:
    return lambda one: all(not names or _CHOICES[name](one) in names for name, names in wanted.items())


def _title(by: tuple[str, ...], since: datetime, until: datetime) -> str:
    begin = "" if since == _EVER else f" from {since.astimezone():%Y-%m-%d %H:%M}"
    return f"QPU time by {', '.join(by)}{begin} to {until.astimezone():%Y-%m-%d %H:%M}"


def _keys(text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(text.split(",")))
    if unknown := [name for name in names if name not in KEYS]:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of {', '.join(KEYS)}")
    return names


def _time(text: str) -> datetime:
    """Read a time: a date begins at midnight, on the clock of this machine; a duration ends now."""
    try:
        return datetime.now(UTC) - timedelta(seconds=parse_duration(text))
    except (ValueError, OverflowError):
        pass
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError(
            f"{text!r} is neither a date (2026-11-01), nor a time (2026-11-01T12:00), nor how long ago (30d)"
        ) from None
