# SPDX-License-Identifier: Apache-2.0
"""The `qpu-slurm` command: what Slurm's hooks run, and what an admin runs.

Each command is a function that imports what it needs itself: a hook waits for none of the others'.

    slurm     what Slurm runs
    admin     what an admin runs; `qpus`, `report` and `timeline` have rooms of their own
    common    what they share
"""

from __future__ import annotations

import argparse
import os
import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from qpu_slurm.cli import admin, slurm
from qpu_slurm.cli.common import config_of, logged
from qpu_slurm.errors import QpuSlurmError, RequestError
from qpu_slurm.system.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import ModuleType

_EPILOG = """\
examples:
  qpu-slurm check                      find out what is still missing after the installation
  qpu-slurm plugstack                  print the line for plugstack.conf
  qpu-slurm support                    collect what a maintainer needs, without credentials
  qpu-slurm leases                     list which job holds which QPU
  qpu-slurm leases 4711 --json         list all leases that job 4711 ever had, as JSON
  qpu-slurm release 4711               end the sessions of job 4711
  qpu-slurm reap                       end the sessions of jobs that are over
  qpu-slurm qpus                       show which QPUs are available, and how many jobs wait
  qpu-slurm access                     print who may use each QPU
  qpu-slurm drain ibm_fez --reason …   close a QPU to new jobs (open it again: resume)
  qpu-slurm block ada --reason …       end a user's access at once (give it back: unblock)
  qpu-slurm report --by user,qpu --since 30d
                                       sum up the use of the QPUs, by user and QPU
  qpu-slurm budget                     show what is left of your QPU time
  qpu-slurm journal backup FILE        copy the journal (bring it back: restore)
  qpu-slurm timeline 4711              draw when job 4711 ran and locked the QPU
  qpu-slurm demo                       run example jobs on a throw-away cluster
"""


EXTENSIONS = "qpu_slurm.commands"
"""The entry points by which another distribution brings a command."""


class Command(NamedTuple):
    """One command.

    Attributes:
        summary: What it does, in one line of help.
        configure: Adds its options to its parser.
        run: Does it, and returns the exit code.
    """

    summary: str
    configure: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code.

    Args:
        argv: The arguments; None are this process's.

    Raises:
        SystemExit: The arguments make no sense (2), or were a question (0).
    """
    try:
        arguments = command_line().parse_args(argv)
        return COMMANDS[arguments.command].run(arguments)
    except QpuSlurmError as error:
        for line in str(error).splitlines():
            print(f"qpu-slurm: {line}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Who reads has gone. Python would complain once more as it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


class CommandParser(argparse.ArgumentParser):
    """A command's parser, which gets its options as it begins to parse; the others import nothing."""

    configure: Callable[[argparse.ArgumentParser], None] | None = None

    def complete(self) -> None:
        """Add the options, if they are not there yet."""
        configure, self.configure = self.configure, None
        if configure is not None:
            configure(self)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:  # noqa: ANN401 - as argparse has it
        """Parse arguments, with all options."""
        self.complete()
        return super().parse_known_args(args, namespace)


def command_line() -> argparse.ArgumentParser:
    """Describe the command's arguments; each command's own are added as they are parsed."""
    parser = argparse.ArgumentParser(
        prog="qpu-slurm",
        description="Quantum processors as a resource of a Slurm cluster.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--version", action="version", version=f"qpu_slurm {__version__}", help="print the version and exit"
    )
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="the configuration (default: $QPU_SLURM_CONFIG, or /etc/qpu_slurm/config.toml)",
    )
    # argparse would work out `prog` with what formats help, and import a lot for that.
    commands = parser.add_subparsers(
        title="commands",
        prog=parser.prog,
        dest="command",
        metavar="COMMAND",
        required=True,
        parser_class=CommandParser,
    )
    for name, command in COMMANDS.items():
        own = commands.add_parser(name, help=command.summary, description=f"{command.summary}.")
        own.configure = command.configure
    return parser


def _from_devkit(name: str, summary: str) -> Command:
    """Return a command of the devkit, a distribution of its own that clusters in production lack.

    It registers a module with `add_arguments` and `run` as an entry point: nothing here imports it.
    """

    def command() -> ModuleType:
        from importlib.metadata import entry_points

        for found in entry_points(group=EXTENSIONS, name=name):
            module: ModuleType = found.load()
            return module
        raise RequestError(f"`qpu-slurm {name}` needs the Python package qpu_slurm_devkit. Install it first.")

    return Command(
        summary,
        lambda parser: command().add_arguments(parser),
        lambda arguments: int(command().run(arguments)),
    )


def _of(room: str, summary: str, *, changes: bool = False) -> Command:
    """Return the command of a room that has a module for it; one that changes something is in the log."""

    def command() -> ModuleType:
        return import_module(f"qpu_slurm.admin.{room}")

    def run(arguments: argparse.Namespace) -> int:
        from qpu_slurm.system import logs

        config = config_of(arguments)
        if changes:
            with logged(config):
                return int(command().run(config, arguments))
        logs.configure("error")
        return int(command().run(config, arguments))

    return Command(summary, lambda parser: command().add_arguments(parser), run)


COMMANDS = {
    "check": Command(
        "Check the installation, and print how to fix it", admin.configure_check, admin.run_check
    ),
    "support": Command(
        "Collect what a maintainer needs into one file", admin.configure_support, admin.run_support
    ),
    "leases": Command("List which job holds which QPU", admin.configure_leases, admin.run_leases),
    "release": Command("End the sessions of a job", admin.configure_release, admin.run_release),
    "reap": Command("End the sessions of jobs that are over", admin.configure_reap, admin.run_reap),
    "qpus": _of("qpus", "Show which QPUs are available, and how many jobs wait"),
    "access": _of("access", "Print who may use each QPU"),
    "drain": _of("qpus", "Close a QPU to new jobs", changes=True),
    "resume": _of("qpus", "Open a closed QPU again", changes=True),
    "block": _of("users", "End a user's access to QPUs at once", changes=True),
    "unblock": _of("users", "Give a blocked user access to QPUs again", changes=True),
    "budget": _of("budget.command", "Show what is left of your QPU time, or set budgets", changes=True),
    "report": _of("report.command", "Sum up what the QPUs were used for"),
    "journal": _of("journal", "Back up the journal, or restore it"),
    "timeline": _of("timeline.command", "Draw when jobs ran and when they locked a QPU"),
    "gateway": Command(
        "Serve the gateway, which keeps the API key away from jobs",
        admin.configure_gateway,
        admin.run_gateway,
    ),
    "rekey": Command(
        "Make a new secret for the gateway's job keys",
        admin.configure_rekey,
        admin.run_rekey,
    ),
    "plugstack": Command("Print the line for plugstack.conf", admin.configure_plugstack, admin.run_plugstack),
    "demo": _from_devkit("demo", "Run the example jobs on a throw-away cluster"),
    "emulator": _from_devkit("emulator", "Serve an emulated quantum service"),
    "hook": Command(
        "Run by Slurm's hooks: open or close a job's sessions", slurm.configure_hook, slurm.run_hook
    ),
    "job-env": Command(
        "Run by the SPANK plugin: print a job's variables", slurm.configure_job_env, slurm.run_job_env
    ),
    "step-end": Command(
        "Run by the SPANK plugin: report that a step ended", slurm.configure_step_end, slurm.run_step_end
    ),
}
