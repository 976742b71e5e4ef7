# SPDX-License-Identifier: Apache-2.0
"""`qpu-slurm qpus`, `drain` and `resume`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qpu_slurm import reach
from qpu_slurm.admin import tables
from qpu_slurm.errors import ConfigError, SlurmError
from qpu_slurm.leases.availability import Availability
from qpu_slurm.reach.local import jobs_of, open_journal
from qpu_slurm.slurm.control import Control
from qpu_slurm.slurm.licenses import Licenses
from qpu_slurm.system import logs
from qpu_slurm.system.users import operator, user_name

if TYPE_CHECKING:
    import argparse

    from qpu_slurm.config import Config
    from qpu_slurm.journal.journal import Journal

_REASON_LENGTH = 200

_WHERE = "Run it as root or SlurmUser, where the journal is."
_USERS = "With a gateway, every user may run it, on every host that has the configuration."
_WHAT = {
    "qpus": "Show for each QPU whether it is available, and if not, why. Show also how many jobs have it, "
    "may have it and wait for it, and how many tasks wait at the service. A service for which only users "
    "have keys is not asked.",
    "drain": "Close a QPU to new jobs at once. They wait in the queue. Jobs that have it keep it.",
    "resume": "Open a closed QPU again, and start the jobs that wait for it.",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of one of the commands."""
    command = parser.prog.rpartition(" ")[2]
    parser.description = f"{_WHAT[command]} {_USERS if command == 'qpus' else _WHERE}"
    if command == "qpus":
        form = parser.add_mutually_exclusive_group()
        form.add_argument("--json", action="store_true", help="print a JSON list")
        form.add_argument("--names", action="store_true", help="print only the names, from the configuration")
    else:
        parser.add_argument("name", metavar="NAME", help="the QPU")
    if command == "drain":
        parser.add_argument("--reason", required=True, metavar="TEXT", help="the reason, which users see")


def run(config: Config, arguments: argparse.Namespace) -> int:
    """Do it, and return the exit code."""
    if arguments.command == "drain":
        return drain(config, arguments.name, arguments.reason)
    if arguments.command == "resume":
        return resume(config, arguments.name)
    if arguments.names:
        config.require_qpus()
        print(*config.qpus, sep="\n")  # noqa: T201 - a command
        return 0
    return show(config, as_json=arguments.json)


def show(config: Config, *, as_json: bool) -> int:
    """Print how all QPUs are, and return the exit code.

    Args:
        config: What the admin wrote.
        as_json: Print a JSON list rather than a table.

    Raises:
        UnavailableError: The gateway does not answer.
        JournalError: The journal is on another host, or cannot be read.
    """
    with reach.records(config) as broker:
        reports = broker.qpus()
    print(tables.qpus_as_json(reports) if as_json else tables.qpus_as_table(reports))  # noqa: T201 - a command
    return 0


def drain(config: Config, name: str, reason: str) -> int:
    """Close a QPU to new jobs, at once; those that have it keep it. Return the exit code.

    Args:
        config: What the admin wrote.
        name: The QPU.
        reason: Why; users see it.

    Raises:
        RequestError: There is no such QPU.
        ConfigError: The journal is on another machine, or the reason says nothing.
        SlurmError: Slurm could not be told; the QPU is closed all the same.
    """
    config.qpu(name)
    reason = tables.one_line(reason)[:_REASON_LENGTH]
    if not reason:
        raise ConfigError("--reason is empty. Give the reason: users see it.")
    with open_journal(config, make=True) as journal:
        journal.closings.close(name, reason, operator())
        logs.audit("QPU closed", by=user_name(operator()), qpu=name, why=reason)
        why = (
            "is closed to new jobs. But Slurm does not hold them back in its queue, so each is put back as "
            "it starts"
        )
        return _keep(config, journal, name, why)


def resume(config: Config, name: str) -> int:
    """Open a QPU again that was closed, and start who waits for it. Return the exit code.

    Args:
        config: What the admin wrote.
        name: The QPU.

    Raises:
        RequestError: There is no such QPU.
        ConfigError: The journal is on another machine.
        SlurmError: Slurm could not be told; the QPU is open all the same.
    """
    config.qpu(name)
    with open_journal(config, make=True) as journal:
        if journal.closings.open(name):
            logs.audit("QPU opened", by=user_name(operator()), qpu=name)
        else:
            print(f"{name} was not closed.")  # noqa: T201 - a command
        why = "is open. But Slurm was not told, so jobs that wait for it start after their delay"
        return _keep(config, journal, name, why, opened=name)


def _keep(config: Config, journal: Journal, name: str, why: str, *, opened: str = "") -> int:
    """Have Slurm hold jobs back, or start them; print how the QPU is then; return the exit code."""
    slurm = config.slurm
    availability = Availability(config, journal, Control(slurm), Licenses(slurm))
    try:
        reports = availability.keep(jobs_of(slurm), opened=opened)
    except SlurmError as error:
        raise SlurmError(f"{name} {why}: {error}") from None
    print(tables.qpus_as_table([report for report in reports if report.qpu == name]))  # noqa: T201 - a command
    return 0
