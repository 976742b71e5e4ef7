# SPDX-License-Identifier: Apache-2.0
"""Writes the man pages, the completion of bash, zsh and fish, and a commented config.toml.

The first two are made from what reads the commands' arguments, the last from docs/configuration.md.

    python -m packages.manual DIR

Below DIR, the files lie as they are installed below /usr: share/man/man1, share/bash-completion/completions,
and so on. config.toml is in share/qpu_slurm.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import shtab

from packages import pages, sample
from qpu_slurm import cli
from qpu_slurm.runner import arguments as runner

if TYPE_CHECKING:
    from collections.abc import Iterator

DOCS: Final = Path(__file__).parents[1] / "docs"

FROM_DEVKIT: Final = ("demo", "emulator")
"""Commands of another distribution, which the packages do not have."""

COMPLETIONS: Final = {
    "bash": "share/bash-completion/completions/{}",
    "zsh": "share/zsh/vendor-completions/_{}",
    "fish": "share/fish/vendor_completions.d/{}.fish",
}
"""Where each shell looks for a command's completion, below /usr."""

QPU_NAMES: Final = shtab.cmd("qpu-slurm qpus --names 2>/dev/null")

_VALUES: Final = {
    "DIR": shtab.DIRECTORY,
    "FILE": shtab.FILE,
    "FILE.png": shtab.FILE,
    "FILE.svg": shtab.FILE,
    "INPUT [OUTPUT]": shtab.FILE,
    "PATH": shtab.FILE,
}
"""What a value is completed to, by the word that `--help` has for it."""


def qpu_slurm() -> argparse.ArgumentParser:
    """Describe the command qpu-slurm with the options of all of its commands."""
    parser = cli.command_line()
    for name, command in commands(parser).items():
        if name not in FROM_DEVKIT:
            command.complete()
    return parser


def commands(parser: argparse.ArgumentParser) -> dict[str, Any]:
    """Return the parsers of a parser's commands by name; none if it has no commands."""
    for action in parser._actions:  # noqa: SLF001 - argparse has no other way to list them
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001 - likewise
            found: dict[str, Any] = action.choices
            return found
    return {}


def main(root: Path) -> None:
    """Write everything below a directory."""
    for name, text in _pages():
        _write(root / f"share/man/man{name[-1]}/{name}", text)
    alias = root / "share/man/man1/qpu-task-runner.1"
    alias.unlink(missing_ok=True)
    alias.symlink_to("task_runner.1")
    for command, parser in (
        ("qpu-slurm", qpu_slurm()),
        ("task_runner", runner.command_line()),
        ("qpu-task-runner", runner.command_line()),
    ):
        parser.prog = command
        for name, own in commands(parser).items():
            own.description = cli.COMMANDS[name].summary  # what a shell shows beside it
        _say_what_values_are(parser)
        for shell, place in COMPLETIONS.items():
            _write(root / place.format(command), shtab.complete(parser, shell))
    _write(root / "share/qpu_slurm/config.toml", sample.config_toml((DOCS / "configuration.md").read_text()))


def _pages() -> Iterator[tuple[str, str]]:
    """Return the files' names and their texts."""
    own = {name: command for name, command in commands(qpu_slurm()).items() if name not in FROM_DEVKIT}
    whole = cli.command_line()
    commands(whole).clear()  # they have pages of their own; what remains is the list of them
    see = ["task_runner(1)", "qpu_slurm.conf(5)", *(f"qpu-slurm-{name}(1)" for name in own)]
    yield "qpu-slurm.1", pages.of_command(whole, "quantum processors as a resource of a Slurm cluster", see)
    for name, command in own.items():
        summary = cli.COMMANDS[name].summary
        yield f"qpu-slurm-{name}.1", pages.of_command(command, summary, ["qpu-slurm(1)", "qpu_slurm.conf(5)"])
    task_runner = pages.of_command(
        runner.command_line(), "execute primitive inputs on a QPU", ["qpu-slurm(1)", "sbatch(1)", "srun(1)"]
    )
    yield "task_runner.1", task_runner
    yield (
        "qpu_slurm.conf.5",
        pages.of_document(
            (DOCS / "configuration.md").read_text(),
            "qpu_slurm.conf",
            "config.toml, the configuration of qpu_slurm",
            ["qpu-slurm(1)", "qpu-slurm-check(1)", "slurm.conf(5)"],
        ),
    )


def _say_what_values_are(parser: argparse.ArgumentParser) -> None:
    """Tell shtab what each argument is completed to."""
    for action in parser._actions:  # noqa: SLF001 - argparse has no other way to list them
        names_qpu = action.metavar == "NAME" and (not action.option_strings or action.dest == "qpu")
        complete = QPU_NAMES if names_qpu else _VALUES.get(str(action.metavar))
        if complete is not None:
            action.complete = complete  # type: ignore[attr-defined] # how shtab is told
    for command in commands(parser).values():
        _say_what_values_are(command)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
