# SPDX-License-Identifier: Apache-2.0
"""The `qpu-slurm` command: what Slurm's hooks run, and what an admin runs.

Each command is a function that imports what it needs itself: a hook waits for none of the others'.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from qpu_slurm import __version__
from qpu_slurm.errors import ConfigError, QpuSlurmError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import ModuleType

    from qpu_slurm.config import Config

PLUGIN = "qpu_slurm.so"
"""What plugstack.conf names; Slurm looks in its PluginDir."""

GRES_PARTITIONS = "quantum"
"""The partitions that the hooks look at if nobody says otherwise (plugin/Makefile)."""

_EPILOG = """\
examples:
  qpu-slurm check                      tell what is still missing after the installation
  qpu-slurm plugstack                  print the line for plugstack.conf
  qpu-slurm leases                     who holds which QPU
  qpu-slurm leases 4711 --all --json   all that job 4711 ever held, for a program
  qpu-slurm release 4711               end what job 4711 holds, by hand
  qpu-slurm reap                       end what jobs left that are over
  qpu-slurm qpus                       which QPUs are available, who has them, who waits
  qpu-slurm drain ibm_fez --reason …   close a QPU to new jobs (resume: open it again)
  qpu-slurm report --by user,qpu --since 30d
                                       what the QPUs were used for, by whom
  qpu-slurm timeline 4711              when job 4711 ran, and locked the QPU
  qpu-slurm demo                       a job on a throw-away cluster with an emulated QPU
"""


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
        argv: The arguments; by default this process's.

    Raises:
        SystemExit: The arguments make no sense (2), or were a question (0).
    """
    argv = sys.argv[1:] if argv is None else argv
    arguments = _parser(argv).parse_args(argv)
    try:
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


def _parser(argv: Sequence[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="qpu-slurm",
        description="Quantum processors as a resource of a Slurm cluster.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"qpu_slurm {__version__}")
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="the configuration (default: $QPU_SLURM_CONFIG, or /etc/qpu_slurm/config.toml)",
    )
    # argparse would work out `prog` with what formats help, and import a lot for that.
    commands = parser.add_subparsers(prog=parser.prog, dest="command", metavar="COMMAND", required=True)
    for name, command in COMMANDS.items():
        own = commands.add_parser(name, help=command.summary, description=f"{command.summary}.")
        # Only what is asked for is imported.
        if name in argv:
            command.configure(own)
    return parser


def _config(arguments: argparse.Namespace) -> Config:
    from qpu_slurm import config

    return config.load(arguments.config)


# What Slurm runs.


def _configure_hook(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "What the controller's PrologSlurmctld and EpilogSlurmctld run; everything else comes from the "
        "hook's environment."
    )
    parser.add_argument("hook", choices=["prolog", "epilog"], help="which of the two")


def _run_hook(arguments: argparse.Namespace) -> int:
    import structlog

    from qpu_slurm import hooks

    config = _config(arguments)
    _log_as_told(config)
    try:
        return {"prolog": hooks.prolog, "epilog": hooks.epilog}[arguments.hook](config, os.environ)
    except Exception:  # noqa: BLE001 - what nobody thought of goes into the log, not into slurmctld's
        structlog.get_logger().exception("hook failed", hook=arguments.hook)
        return 1


def _log_as_told(config: Config) -> None:
    """Log where the admin said; a log that cannot be written must not keep a job from its QPU."""
    import structlog

    from qpu_slurm import logs

    try:
        logs.configure(config.log_level, config.log)
    except ConfigError as error:
        logs.configure(config.log_level)
        structlog.get_logger().warning("logging to stderr instead", why=str(error))


def _configure_job_env(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Print the QPU variables of a job, one NAME=value a line, or one line `error: sentence`. The SPANK "
        "plugin runs it when a step starts; the output may hold credentials. With --step, --name and --at, "
        "the gateway is told that the step starts."
    )
    parser.add_argument("job_id", type=_job_id, metavar="JOBID", help="the job, or the component")
    parser.add_argument("--step", type=_step, metavar="STEP", help="the step: batch, interactive or a number")
    parser.add_argument("--name", help="its program")
    parser.add_argument("--at", type=_time, metavar="SECONDS", help="when it started, since the epoch")


def _run_job_env(arguments: argparse.Namespace) -> int:
    from qpu_slurm.job_env import Step, error_line, job_env

    # Nothing is logged: stdout is the plugin's, and nobody reads stderr.
    step = None
    if arguments.step and arguments.name and arguments.at:
        step = Step(arguments.step, arguments.name, arguments.at)
    try:
        config = _config(arguments)
    except ConfigError as error:
        text = error_line(error)
    else:
        text = job_env(config, arguments.job_id, os.environ, step=step)
    sys.stdout.write(text)
    sys.stdout.flush()
    return 0


def _configure_step_end(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Tell the gateway that a step of a job has ended. The SPANK plugin runs it, and nobody waits for it."
    )
    parser.add_argument("job_id", type=_job_id, metavar="JOBID", help="the job, or the component")
    parser.add_argument("step", type=_step, metavar="STEP", help="the step: batch, interactive or a number")
    parser.add_argument(
        "--at", type=_time, required=True, metavar="SECONDS", help="when it ended, since the epoch"
    )


def _run_step_end(arguments: argparse.Namespace) -> int:
    from qpu_slurm import logs
    from qpu_slurm.job_env import step_end

    logs.configure("error")
    step_end(_config(arguments), arguments.job_id, arguments.step, arguments.at)
    return 0


def _job_id(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < int(text[:20]) < 1 << 32):
        raise argparse.ArgumentTypeError(f"{text[:64]!r} is not a job's number")
    return int(text)


def _step(text: str) -> str:
    from qpu_slurm.slurm.job import STEP

    if not STEP.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text[:64]!r} is no step of a job")
    return text


def _time(text: str) -> float:
    if not re.fullmatch(r"[0-9]{1,12}(\.[0-9]{1,9})?", text):
        raise argparse.ArgumentTypeError(f"{text[:64]!r} is no time")
    return float(text)


# What an admin runs.


def _configure_check(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Look at the configuration, the key files, the journal, Slurm's configuration and the quantum "
        "services, and say what is wrong and what to do. Run it as root or SlurmUser on the controller. "
        "With QISKIT_IBM_TOKEN exported, QPUs that are used with users' own keys are asked as well."
    )
    parser.add_argument("--json", action="store_true", help="print a JSON list")


def _run_check(arguments: argparse.Namespace) -> int:
    from qpu_slurm import check, logs

    logs.configure("error")
    return check.run(arguments.config, as_json=arguments.json)


def _configure_leases(parser: argparse.ArgumentParser) -> None:
    parser.description = "Show who holds which QPU; as root or SlurmUser, on the controller."
    parser.add_argument("job_id", type=_job_id, nargs="?", metavar="JOBID", help="only this job's")
    parser.add_argument("--all", action="store_true", help="those that are over, too")
    parser.add_argument("--json", action="store_true", help="print a JSON list")


def _run_leases(arguments: argparse.Namespace) -> int:
    from qpu_slurm import listing
    from qpu_slurm.leases.journal import Journal

    with Journal(_config(arguments).journal) as journal:
        leases = journal.leases(job_id=arguments.job_id, over=arguments.all)
        print(listing.as_json(leases) if arguments.json else listing.as_table(leases, journal))
    return 0


def _configure_release(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "End the sessions that a job holds, and whatever waits in them, as the job's end would. For a job "
        "whose release failed, or whose end nobody noticed."
    )
    parser.add_argument("job_id", type=_job_id, metavar="JOBID", help="the job; of a het job, the leader")
    parser.add_argument(
        "--reason",
        default="Released by hand.",
        metavar="TEXT",
        help="what the journal says (default: by hand)",
    )


def _run_release(arguments: argparse.Namespace) -> int:
    from qpu_slurm import listing, logs
    from qpu_slurm.leases.model import LeaseState
    from qpu_slurm.leasing import leasing

    config = _config(arguments)
    logs.configure("error")
    with leasing(config) as broker:
        leases = broker.release(arguments.job_id, arguments.reason)
    if not leases:
        print(f"Job {arguments.job_id} holds no QPU.")
    for lease in leases:
        why = "" if lease.state.final else listing.why_not_released(config.journal, lease)
        print(f"{lease.qpu}: {lease.state}{why}")
    return 0 if all(lease.state is LeaseState.RELEASED for lease in leases) else 1


def _configure_reap(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Compare the journal with Slurm: end what is held by jobs that do not run any more, and what could "
        "not be released before. As root or SlurmUser, where the journal is. The gateway does it by itself; "
        "without one, have qpu-slurm-reap.timer (contrib/systemd) do it."
    )
    parser.add_argument("--json", action="store_true", help="print a JSON object")


def _run_reap(arguments: argparse.Namespace) -> int:
    from qpu_slurm import listing
    from qpu_slurm.leases.accountant import Accountant
    from qpu_slurm.leases.availability import Availability
    from qpu_slurm.leases.broker import Broker
    from qpu_slurm.leases.journal import Journal
    from qpu_slurm.leases.reaper import Reaper
    from qpu_slurm.slurm.control import Control
    from qpu_slurm.slurm.licenses import Licenses
    from qpu_slurm.slurm.query import connect

    config = _config(arguments)
    _log_as_told(config)
    with Journal(config.journal) as journal:
        reaper = Reaper(config, Broker(config, journal), journal, connect(config.slurm))
        report = reaper.run()
        print(listing.report_as_json(report) if arguments.json else listing.report_as_text(report))
        if config.gateway is None:  # which does it by itself
            Accountant(config, journal).run()
        Availability(config, journal, Control(config.slurm), Licenses(config.slurm)).keep(reaper.jobs)
    return 0 if report.complete else 1


def _configure_gateway(parser: argparse.ArgumentParser) -> None:
    from qpu_slurm.gateway import command

    command.add_arguments(parser)


def _run_gateway(arguments: argparse.Namespace) -> int:
    from qpu_slurm.gateway import command

    config = _config(arguments)
    _log_as_told(config)
    return command.serve(config, arguments)


def _configure_plugstack(parser: argparse.ArgumentParser) -> None:
    parser.description = "Print the line of plugstack.conf that fits the configuration."
    parser.add_argument("--plugin", default=PLUGIN, metavar="PATH", help="the plugin (default: %(default)s)")
    parser.add_argument(
        "--gres-partitions",
        default=GRES_PARTITIONS,
        metavar="NAME[,NAME]",
        help="where a gres alone asks for a QPU, as the hooks were installed (default: %(default)s)",
    )


def _run_plugstack(arguments: argparse.Namespace) -> int:
    print(plugstack_line(_config(arguments), arguments.plugin, arguments.gres_partitions))
    return 0


def plugstack_line(config: Config, plugin: str, gres_partitions: str) -> str:
    """Return the line of plugstack.conf that fits a configuration."""
    own = [name for name, qpu in config.qpus.items() if qpu.credentials == "user"]
    parts = {
        "qpus": ",".join(config.qpus),
        "user_credentials": ",".join(own),
        "gres_partitions": gres_partitions,
        # Not resolved: what is linked to may lie elsewhere on other nodes.
        "helper": str(Path(sys.argv[0]).absolute()),
        "config": str(config.path),
    }
    return " ".join(["required", plugin, *(f"{name}={value}" for name, value in parts.items() if value)])


# What somebody runs who wants to try it.


def _configure_emulator(parser: argparse.ArgumentParser) -> None:
    from qpu_slurm.devkit import emulator

    emulator.add_arguments(parser)


def _run_emulator(arguments: argparse.Namespace) -> int:
    from qpu_slurm.devkit import emulator

    return emulator.serve(arguments)


def _configure_demo(parser: argparse.ArgumentParser) -> None:
    from qpu_slurm.devkit import demo

    demo.add_arguments(parser)


def _run_demo(arguments: argparse.Namespace) -> int:
    from qpu_slurm.devkit import demo

    return demo.run(arguments)


def _of(room: str, summary: str) -> Command:
    """Return the command of a room that has a module for it."""

    def command() -> ModuleType:
        return import_module(f"qpu_slurm.{room}.command")

    def run(arguments: argparse.Namespace) -> int:
        from qpu_slurm import logs

        logs.configure("error")
        return int(command().run(_config(arguments), arguments))

    return Command(summary, lambda parser: command().add_arguments(parser), run)


COMMANDS = {
    "check": Command(
        "Tell what is wrong with the installation, and what to do", _configure_check, _run_check
    ),
    "leases": Command("Show who holds which QPU", _configure_leases, _run_leases),
    "release": Command("End what a job holds, by hand", _configure_release, _run_release),
    "reap": Command("End what jobs left that are over", _configure_reap, _run_reap),
    "qpus": _of("qpus", "Show which QPUs are available, and who waits"),
    "drain": _of("qpus", "Close a QPU to new jobs"),
    "resume": _of("qpus", "Open a QPU that was closed"),
    "report": _of("report", "Sum up what the QPUs were used for"),
    "timeline": _of("timeline", "Draw when jobs ran and when they locked a QPU"),
    "gateway": Command("Serve QPUs to jobs that hold no credential", _configure_gateway, _run_gateway),
    "plugstack": Command("Print the line for plugstack.conf", _configure_plugstack, _run_plugstack),
    "demo": Command("Run the example jobs on a throw-away cluster", _configure_demo, _run_demo),
    "emulator": Command("Serve an emulated quantum service", _configure_emulator, _run_emulator),
    "hook": Command("What Slurm's hooks run", _configure_hook, _run_hook),
    "job-env": Command("What the SPANK plugin runs: a job's variables", _configure_job_env, _run_job_env),
    "step-end": Command("What the SPANK plugin runs: a step is over", _configure_step_end, _run_step_end),
}

if __name__ == "__main__":
    sys.exit(main())
