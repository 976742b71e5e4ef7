# SPDX-License-Identifier: Apache-2.0
"""`qpu-slurm journal`: copy the journal, or restore it from a copy."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from qpu_slurm.journal.backup import back_up, restore
from qpu_slurm.reach.local import open_journal

if TYPE_CHECKING:
    import argparse

    from qpu_slurm.config import Config

DESCRIPTION = """\
Copy the journal into a file, or restore it from such a copy. Both are safe while the gateway and the hooks
run. Run it as root or SlurmUser, where the journal is.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options to a parser."""
    parser.description = DESCRIPTION
    verbs = parser.add_subparsers(title="commands", dest="verb", metavar="VERB", required=True)
    backup = verbs.add_parser(
        "backup",
        help="copy the journal into a file",
        description="Copy the journal into a file that only its owner can read. Users' own keys are left "
        "out. An earlier copy is replaced only if the new one is complete.",
    )
    backup.add_argument("file", type=Path, metavar="FILE", help="the copy")
    back = verbs.add_parser(
        "restore",
        help="restore the journal from a copy",
        description="Make a copy the journal. The previous journal is kept beside it, under another name. "
        "At its next pass, the reaper takes over from Slurm what happened since the copy was made, as far as "
        "Slurm knows it.",
    )
    back.add_argument("file", type=Path, metavar="FILE", help="the copy")


def run(config: Config, arguments: argparse.Namespace) -> int:
    """Do it, and return the exit code.

    Raises:
        JournalError: It cannot be done; the journal is as it was.
    """
    if arguments.verb == "backup":
        with open_journal(config) as journal:
            leases = back_up(journal, arguments.file)
        print(f"{arguments.file}: {leases} leases.")  # noqa: T201 - a command
        return 0
    done = restore(config.journal, arguments.file)
    print(f"{config.journal}: {done.leases} leases.")  # noqa: T201 - a command
    if done.aside is not None:
        print(f"The one that was there is {done.aside} now.")  # noqa: T201 - a command
    return 0
