# SPDX-License-Identifier: Apache-2.0
"""task_runner: execute a serialized primitive input in the job's session, and write its result.

It starts within a fraction of a second: qiskit is never imported, and what speaks HTTP only once the input
is known to be good.
"""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Final

from qpu_slurm import environment, providers
from qpu_slurm.errors import (
    ConfigError,
    OutputError,
    PayloadError,
    QpuSlurmError,
    Refused,
    ServiceError,
    UserMistake,
)
from qpu_slurm.providers.base import TaskStatus
from qpu_slurm.qpu import choose
from qpu_slurm.tasks import payload
from qpu_slurm.tasks.execute import Execution, new_tags
from qpu_slurm.tasks.output import Output
from qpu_slurm.tasks.signals import EndingSignals, Stopped
from qpu_slurm.tasks.voice import Voice

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class Exit(IntEnum):
    """What task_runner's exit code says. It is a contract: docs/task_runner.md."""

    COMPLETED = 0
    FAILED = 1
    BAD_INPUT = 2
    REFUSED = 3
    UNAVAILABLE = 4
    OUTPUT = 5
    CANCELLED = 6
    INTERNAL = 70


EXIT_CODES: Final = """\
exit codes:
  0   completed: the result is written
  1   the task failed on the QPU
  2   bad input or usage: nothing was submitted
  3   refused: the job holds no such QPU, its session is closed, or the service denies access
  4   the service is not available
  5   the output cannot be written
  6   cancelled, by a signal or on the service's side
  70  an error in task_runner itself
"""

# The first that fits; more special ones stand first.
_EXIT_OF: Final[tuple[tuple[type[QpuSlurmError], Exit], ...]] = (
    (PayloadError, Exit.BAD_INPUT),
    (OutputError, Exit.OUTPUT),
    (Refused, Exit.REFUSED),
    (ServiceError, Exit.UNAVAILABLE),
    (UserMistake, Exit.REFUSED),
    (ConfigError, Exit.REFUSED),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Be the command task_runner.

    Returns:
        See `Exit`.
    """
    options = _parser().parse_args(arguments)
    voice = Voice(_level(options, os.environ))
    try:
        with EndingSignals() as signals:
            return _run(options, os.environ, voice, signals)
    except Stopped as stop:
        voice.give_up(f"stopped by {stop.name}", stop)
        return Exit.CANCELLED
    except QpuSlurmError as error:
        voice.give_up(str(error), error)
        return next((code for kind, code in _EXIT_OF if isinstance(error, kind)), Exit.INTERNAL)
    except Exception as error:  # noqa: BLE001 - the last resort: a documented code, and advice before the trace
        voice.give_up(f"an error of task_runner itself: {type(error).__name__}: {error}", error)
        voice.error("please report it, with these lines:\n" + "".join(traceback.format_exception(error)))
        return Exit.INTERNAL


def _run(
    options: argparse.Namespace, environ: Mapping[str, str], voice: Voice, signals: EndingSignals
) -> Exit:
    """Execute one input.

    Raises:
        QpuSlurmError: It came to nothing; `main` knows the exit code.
        Stopped: A signal came.
    """
    if options.input == "-":
        task_input = payload.load(sys.stdin.buffer.read() if sys.stdin else b"", source="standard input")
    else:
        task_input = payload.read(Path(options.input))
    qpu = choose(environment.from_environ(environ), options.name)
    session_id, tags = qpu.session(), new_tags(environ)
    with (
        Output(None if options.output == "-" else Path(options.output)) as output,
        Execution(providers.connect(qpu.access()), voice) as execution,
    ):
        # A signal between a request and its answer would leave a task behind whose id nobody knows.
        with signals.held():
            execution.submit(task_input, session_id=session_id, tags=tags, cost=qpu.task_timeout)
        voice.debug(f"backend {qpu.backend}, session {session_id}, tags {' '.join(tags)}")
        task = execution.wait()
        voice.debug(f"asked {execution.polls + 1} times")
        if task.status is TaskStatus.COMPLETED:
            output.write(execution.result())
            voice.written(output.name)
            return Exit.COMPLETED
        if task.status is TaskStatus.CANCELLED:
            voice.error(f"task {task.id} was cancelled on the service's side. {task.reason}".rstrip())
            return Exit.CANCELLED
        voice.failed(task, execution.log_tail())
        return Exit.FAILED


class _Version(argparse.Action):
    """Prints the version; only then is it looked up."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from qpu_slurm import __version__  # noqa: PLC0415 - reading the package's metadata takes its time

        sys.stdout.write(f"task_runner (qpu_slurm) {__version__}\n")
        parser.exit()


def _parser() -> argparse.ArgumentParser:
    """Describe the command's arguments."""
    parser = argparse.ArgumentParser(
        prog="task_runner",
        description="Execute a serialized primitive input on a QPU of this Slurm job, in the job's session.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", metavar="NAME", help="the QPU, as in --qpu=NAME")
    parser.add_argument("input", metavar="INPUT", help="the input file; - is standard input")
    parser.add_argument(
        "output",
        metavar="OUTPUT",
        nargs="?",
        default="-",
        help="the file to write the result to, whole or not at all; without it, or with -, standard output",
    )
    loudness = parser.add_mutually_exclusive_group()
    loudness.add_argument("-q", "--quiet", action="store_true", help="say nothing but errors")
    loudness.add_argument("-v", "--verbose", action="store_true", help="say more")
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and end")
    return parser


def _level(options: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Say how much to say: as asked for, or else as srun was (its -Q and -vv, in SRUN_DEBUG)."""
    if options.quiet:
        return Voice.ERRORS
    if options.verbose:
        return Voice.DEBUG
    srun = environ.get("SRUN_DEBUG", "")
    return (
        Voice.ERRORS
        if srun in {"0", "1", "2"}
        else Voice.DEBUG
        if srun in {"4", "5", "6"}
        else Voice.PROGRESS
    )


if __name__ == "__main__":
    sys.exit(main())
