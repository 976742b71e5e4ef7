# SPDX-License-Identifier: Apache-2.0
"""`qpu-slurm block` and `unblock`: end one user's access to QPUs at once, and give it back."""

from __future__ import annotations

import pwd
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from qpu_slurm.admin import tables
from qpu_slurm.errors import ConfigError
from qpu_slurm.leases.broker import Broker
from qpu_slurm.reach.local import open_journal
from qpu_slurm.system import logs
from qpu_slurm.system.plurals import counted
from qpu_slurm.system.users import operator, user_name

if TYPE_CHECKING:
    import argparse

    from qpu_slurm.config import Config
    from qpu_slurm.journal.journal import Journal
    from qpu_slurm.journal.model import Lease

_REASON_LENGTH = 200

_WHAT = {
    "block": "End all sessions of a user's jobs at once, and give the user no QPU until `unblock`. The jobs' "
    "keys become invalid. Without USER, list who is blocked.",
    "unblock": "Give a blocked user access to QPUs again.",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of one of the commands."""
    command = parser.prog.rpartition(" ")[2]
    parser.description = f"{_WHAT[command]} Run it as root or as the journal's owner, where the journal is."
    if command == "unblock":
        parser.add_argument("user", metavar="USER", help="the user, by name or number")
        return
    parser.add_argument("user", metavar="USER", nargs="?", help="the user, by name or number")
    parser.add_argument(
        "--reason",
        default="ask the administrators of this cluster",
        metavar="TEXT",
        help="the reason, which the user sees (default: %(default)s)",
    )


def run(config: Config, arguments: argparse.Namespace) -> int:
    """Do it, and return the exit code: 1 if a session could not be ended yet.

    Raises:
        ConfigError: The journal is on another machine, or there is no such user.
        JournalError: The journal cannot be written.
    """
    with open_journal(config, make=True) as journal:
        if arguments.user is None:
            print(_list(journal))  # noqa: T201 - a command
            return 0
        user_id = _number(arguments.user)
        if arguments.command == "unblock":
            was = journal.blocked_users.remove(user_id)
            logs.audit("user unblocked", by=user_name(operator()), user_id=user_id)
            print(f"{arguments.user} may have QPUs again." if was else f"{arguments.user} was not blocked.")  # noqa: T201 - a command
            return 0
        return _block(config, journal, user_id, tables.one_line(arguments.reason)[:_REASON_LENGTH])


def _block(config: Config, journal: Journal, user_id: int, reason: str) -> int:
    # First, so that nothing is granted behind our back; the broker looks once more as it grants.
    journal.blocked_users.add(user_id, reason, operator())
    logs.audit("user blocked", by=user_name(operator()), user_id=user_id, why=reason)
    broker = Broker(config, journal)
    jobs = sorted({lease.job_id for lease in journal.leases() if lease.user_id == user_id})
    ended: list[Lease] = []
    for job_id in jobs:
        ended += broker.release(job_id, f"The user was blocked: {reason}")
    left = [lease for lease in ended if not lease.state.final]
    name = user_name(user_id)
    over = len(ended) - len(left)
    print(f"{name} is blocked: {counted(over, 'lease')} ended.")  # noqa: T201 - a command
    for lease in left:
        why = journal.events(lease.id)[-1].detail
        print(f"The session of job {lease.job_id} on {lease.qpu} could not be ended yet: {why}")  # noqa: T201 - a command
    if jobs:
        print(f"The jobs run on without a QPU: `scancel --user={name}` ends them.")  # noqa: T201 - a command
    return 1 if left else 0


def _list(journal: Journal) -> str:
    blocked = journal.blocked_users.all()
    if not blocked:
        return "No user is blocked."
    table = Table("user", "since", "by", "reason", box=None, pad_edge=False)
    for one in blocked:
        row = (
            user_name(one.user_id),
            tables.time_text(one.blocked_at),
            user_name(one.blocked_by),
            one.reason,
        )
        table.add_row(*map(Text, row))
    return tables.printed(table)


def _number(user: str) -> int:
    try:
        return pwd.getpwnam(user).pw_uid
    except KeyError:
        if user.isascii() and user.isdigit() and int(user[:11]) < 1 << 32:
            return int(user)
        raise ConfigError(f"There is no user {user[:64]!r} on this machine.") from None
