# SPDX-License-Identifier: Apache-2.0
"""task_runner's reference names every option, exit code and key that there is, and no other."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from qpu_slurm.runner import arguments
from qpu_slurm.runner.exit_codes import Exit
from qpu_slurm.runner.record import Record
from qpu_slurm.runner.summary import DryRun, InputReport, PubReport, Summary, TaskSummary

TEXT = (Path(__file__).parents[2] / "docs" / "task_runner.md").read_text(encoding="utf-8")

KEYS = {
    "The call": Summary,
    "A task": TaskSummary,
    "A dry run": DryRun,
    "An input of a dry run": InputReport,
    "A pub of a dry run": PubReport,
    "A record": Record,
}


def rows(heading: str) -> list[str]:
    """List the first cells of the table under a heading."""
    section = re.split(r"^#+ ", TEXT.split(f"# {heading}\n", 1)[1], maxsplit=1, flags=re.MULTILINE)[0]
    cells = re.findall(r"^\| (.+?) \|", section, re.MULTILINE)
    return [cell.strip("`") for cell in cells if cell.startswith("`") or cell.isdigit()]


def test_every_option_is_in_the_reference(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        arguments.parse(["--help"], {})
    options = set(re.findall(r"^  (?:-\w, )?(--[a-z-]+)", capsys.readouterr().out, re.MULTILINE))

    described = {name for row in rows("Options") for name in re.findall(r"--[a-z-]+", row)}
    assert described | {"--help"} == options | {"--help"}


def test_every_exit_code_is_in_the_reference_and_in_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        arguments.parse(["--help"], {})
    text = capsys.readouterr().out

    assert [int(row) for row in rows("Exit codes")] == list(Exit)
    assert [int(code) for code in re.findall(r"^  (\d+) ", text, re.MULTILINE)] == list(Exit)


@pytest.mark.parametrize("heading", KEYS)
def test_every_key_is_in_the_reference(heading: str) -> None:
    assert tuple(rows(heading)) == KEYS[heading].__struct_fields__
