# SPDX-License-Identifier: Apache-2.0
"""task_runner's command line."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from qpu_slurm.names import why_no_tag
from qpu_slurm.runner import exit_codes
from qpu_slurm.runner.console import Console
from qpu_slurm.runner.fan_out import rank, tasks_of_step
from qpu_slurm.tasks.replacing import why_not_replace

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

STDIO: Final = "-"

_JOBS: Final = 2

_RANK: Final = "%t"
"""Placeholder for the task's number in its step, as in srun's --output."""

_USAGE: Final = """\
task_runner [OPTIONS] NAME INPUT [OUTPUT]
       task_runner [OPTIONS] NAME --output-dir DIR INPUT..."""


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """The options of one call.

    Attributes:
        name: The QPU's name.
        inputs: Each input with its result's file (None is standard output).
        records: Whether to keep records, and skip completed inputs.
        jobs: How many tasks are at the service at once.
        timeout: Seconds that a task may take from its submission.
        shots: The shots of every pub.
        tags: The user's tags.
        summary: The summary's file, if any.
        final: Whether to close the session after these tasks.
        any_backend: Whether to submit inputs that were transpiled for another QPU and do not fit.
        dry_run: Whether to check only, and submit nothing.
        level: How much to print: see `Console`.
    """

    name: str
    inputs: tuple[tuple[str, Path | None], ...]
    records: bool
    jobs: int
    timeout: int | None
    shots: int | None
    tags: tuple[str, ...]
    summary: str | None
    final: bool
    any_backend: bool
    dry_run: bool
    level: int


def parse(arguments: Sequence[str] | None, environ: Mapping[str, str]) -> Options:
    """Read the command line; exits on a usage error, and for --help and --version."""
    parser = command_line()
    found = parser.parse_intermixed_args(arguments)
    _tell_tasks_apart(parser, found, environ)
    inputs = _many(parser, found) if found.output_dir is not None else _one(parser, found)
    if found.output_dir is None and found.jobs is not None:
        parser.error("--jobs is for several inputs: give --output-dir")
    if found.dry_run and found.final:
        parser.error("--dry-run submits no task that could be the last: leave out --final")
    to_stdout = found.dry_run or any(output is None for _, output in inputs)
    if found.json == STDIO and to_stdout:
        parser.error("standard output is in use: give --json a FILE, such as /dev/stderr")
    return Options(
        name=found.name,
        inputs=inputs,
        records=found.output_dir is not None,
        jobs=found.jobs or _JOBS,
        timeout=found.timeout,
        shots=found.shots,
        tags=tuple(found.tag),
        summary=found.json,
        final=found.final,
        any_backend=found.any_backend,
        dry_run=found.dry_run,
        level=_level(found, environ),
    )


def _tell_tasks_apart(
    parser: argparse.ArgumentParser, found: argparse.Namespace, environ: Mapping[str, str]
) -> None:
    """Replace `%t` by the task's number; refuse a call that each task of the step would repeat."""
    one = found.input[1] if len(found.input) > 1 else STDIO
    output = one if found.output_dir is None else str(found.output_dir)
    tasks = 1 if _RANK in output or found.each_task or found.dry_run else tasks_of_step(environ)
    if tasks > 1:
        parser.error(
            f"this step has {tasks} tasks, and each would execute the same input into the same output."
            " Nothing was submitted. Run it once: srun --ntasks=1 task_runner. If you want a result of each"
            f" task, give each its own output, such as result-{_RANK}.json. If only some of the tasks run"
            " task_runner, give --each-task"
        )
    own = rank(environ)
    found.input = [text.replace(_RANK, own) for text in found.input]
    if found.output_dir is not None:
        found.output_dir = Path(str(found.output_dir).replace(_RANK, own))
    if found.json is not None:
        found.json = found.json.replace(_RANK, own)


def _one(parser: argparse.ArgumentParser, found: argparse.Namespace) -> tuple[tuple[str, Path | None], ...]:
    """Read INPUT [OUTPUT]."""
    source, *more = found.input
    if len(more) > 1:
        parser.error("several inputs need a directory for their results: --output-dir DIR INPUT...")
    output = more[0] if more else STDIO
    if output == STDIO:
        return ((source, None),)
    if why := why_not_replace(Path(output)):
        parser.error(f"{why}. Several inputs need a directory for their results: --output-dir DIR INPUT...")
    return ((source, Path(output)),)


def _many(parser: argparse.ArgumentParser, found: argparse.Namespace) -> tuple[tuple[str, Path | None], ...]:
    """Find the file of each result: the directory and the input's name."""
    places: dict[Path, str] = {}
    for source in found.input:
        name = Path(source).name
        if source == STDIO or not name:
            parser.error(f"{source!r} is not a file: with --output-dir, each result has its input's name")
        place = found.output_dir / name
        if place in places:
            parser.error(f"{places[place]} and {source} have the same name: their results would, too")
        if _same(place, Path(source)):
            parser.error(f"the result of {source} would replace it: choose another --output-dir")
        if why := why_not_replace(place):
            parser.error(f"{why}. Or choose another --output-dir")
        places[place] = source
    return tuple((source, place) for place, source in places.items())


def _same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return False


class _Version(argparse.Action):
    """Prints the version, which is read only then."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from qpu_slurm.system.version import __version__  # noqa: PLC0415 - reading the package's metadata takes its time

        sys.stdout.write(f"task_runner (qpu_slurm) {__version__}\n")
        parser.exit()


def command_line() -> argparse.ArgumentParser:
    """Describe the command's arguments."""
    parser = argparse.ArgumentParser(
        prog="task_runner",
        usage=_USAGE,
        description="Execute serialized primitive inputs on a QPU of your Slurm job, in the job's session.",
        epilog=exit_codes.HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("name", metavar="NAME", help="the QPU, as in --qpu=NAME; any: the one that was chosen")
    add(
        "input",
        metavar="INPUT [OUTPUT]",
        nargs="+",
        help="the input file (- is standard input), and the file for the result, which appears complete or "
        "not at all. Without OUTPUT, or with -, the result goes to standard output. In file names, %%t is "
        "the task's number in its step",
    )
    add(
        "--output-dir",
        metavar="DIR",
        type=Path,
        help="execute several inputs; write each result to DIR, under its input's name. Call it again, and "
        "completed inputs are skipped",
    )
    add(
        "--jobs",
        metavar="N",
        type=_count,
        help=f"with --output-dir: keep up to N tasks at the service (default: {_JOBS}: one runs while the "
        "next waits behind it)",
    )
    add(
        "--shots",
        metavar="N",
        type=_count,
        help="take N shots of every pub, whatever the input says; samplers only",
    )
    add(
        "--tag",
        metavar="TEXT",
        action="append",
        default=[],
        type=_tag,
        help="tag the task at the service; repeat it for more tags",
    )
    add(
        "--timeout",
        metavar="TIME",
        type=_duration,
        help="cancel a task that takes longer than this from its submission, such as 90s, 30m or 1h30m",
    )
    add("--final", action="store_true", help="close the session after these tasks")
    add(
        "--each-task",
        action="store_true",
        help="run in each task of the step that calls it, even if OUTPUT has no %%t",
    )
    add(
        "--any-backend",
        action="store_true",
        help="submit even an input that was transpiled for another QPU and does not fit this one",
    )
    add("--dry-run", action="store_true", help="check the inputs against the QPU, and submit nothing")
    add("--json", metavar="FILE", help="write a summary for programs; - is standard output")
    loudness = parser.add_mutually_exclusive_group()
    loudness.add_argument(
        "-q",
        "--quiet",
        action="store_true",
        help="print only errors, and warnings that a result will lack something or be wrong",
    )
    loudness.add_argument("-v", "--verbose", action="store_true", help="print more: the session, tags, times")
    add("--version", action=_Version, nargs=0, help="print the version, and exit")
    return parser


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < int(text) < 1 << 31):
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")
    return int(text)


def _duration(text: str) -> int:
    from qpu_slurm.system.durations import parse_duration  # noqa: PLC0415 - brings the configuration along

    try:
        seconds = int(text) if text.isascii() and text.isdigit() else parse_duration(text)
    except ValueError:
        seconds = 0
    if not seconds:
        raise argparse.ArgumentTypeError(f"{text!r} is not a duration, such as 90s, 30m or 1h30m")
    return seconds


def _tag(text: str) -> str:
    if why := why_no_tag(text):
        raise argparse.ArgumentTypeError(f"{text!r} {why}")
    return text


def _level(found: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Return how much to print: as -q or -v ask, or else as srun's -Q and -v do (SRUN_DEBUG)."""
    if found.quiet:
        return Console.ERRORS
    if found.verbose:
        return Console.DEBUG
    return {"0": -1, "1": -1, "2": -1, "4": 1, "5": 1, "6": 1}.get(
        environ.get("SRUN_DEBUG", ""), 0
    ) + Console.PROGRESS
