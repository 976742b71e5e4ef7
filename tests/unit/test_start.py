# SPDX-License-Identifier: Apache-2.0
"""The installed commands' beginning and end."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

BIN = Path(sys.executable).parent


def python(code: str, *, stdout: int = subprocess.PIPE) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-c", code]
    return subprocess.run(argv, stdout=stdout, stderr=subprocess.PIPE, text=True, check=False, timeout=240)


@pytest.mark.parametrize("command", ["task_runner", "qpu-slurm"])
def test_the_installed_commands_are_these(command: str) -> None:
    shown = subprocess.run(
        [BIN / command, "--version"], capture_output=True, text=True, check=True, timeout=60
    )

    assert "qpu_slurm" in shown.stdout


@pytest.mark.parametrize(
    ("command", "arguments", "spared"),
    [
        ("task_runner", ["--version"], ["typing_extensions", "structlog", "rich"]),
        ("qpu_slurm", ["hook", "--help"], ["typing_extensions", "rich"]),
        ("qpu_slurm", ["job-env", "--help"], ["typing_extensions", "structlog", "rich"]),
    ],
)
def test_what_is_waited_for_does_without_what_it_can_do_without(
    command: str, arguments: list[str], spared: list[str]
) -> None:
    done = python(
        "import sys\n"
        f"sys.argv = ['x', *{arguments!r}]\n"
        "from qpu_slurm import start\n"
        "try:\n"
        f"    start.{command}()\n"
        "except SystemExit:\n"
        f"    print([name for name in {spared!r} if name in sys.modules])\n"
        f"    import {', '.join(spared)}\n"  # they are there still
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("command", "arguments"),
    [("task_runner", ["--version"]), ("qpu_slurm", ["hook", "--help"]), ("qpu_slurm", ["job-env", "--help"])],
)
def test_what_one_kind_of_service_needs_is_not_waited_for(command: str, arguments: list[str]) -> None:
    done = python(
        "import sys\n"
        f"sys.argv = ['x', *{arguments!r}]\n"
        "from qpu_slurm import start\n"
        "try:\n"
        f"    start.{command}()\n"
        "except SystemExit:\n"
        "    import qpu_slurm.config\n"  # a hook reads it
        "    kinds = ('qpu_slurm.providers.ibm', 'qpu_slurm.providers.ibm_system', 'botocore')\n"
        "    print([name for name in kinds if name in sys.modules])\n"
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"


def test_what_the_hooks_log_with_needs_no_asyncio_and_finds_it() -> None:
    done = python(
        "import sys\n"
        "sys.argv = ['x', 'hook', '--help']\n"
        "from qpu_slurm import start\n"
        "try:\n"
        "    start.qpu_slurm()\n"
        "except SystemExit:\n"
        "    print('asyncio.base_events' in sys.modules)\n"
        "    import asyncio, asyncio.queues, structlog.stdlib\n"
        "    print(asyncio.run(asyncio.sleep(0, 'awake')), asyncio.queues.Queue.__name__)\n"
        "    print(structlog.stdlib.asyncio.get_running_loop is asyncio.get_running_loop)\n"
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-3:] == ["False", "awake Queue", "True"]


@pytest.mark.parametrize("stdout", ["None", "open(1, 'w', closefd=False)"])
def test_an_exit_code_survives_a_stream_that_nobody_reads(stdout: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)

    done = python(
        "import sys, qpu_slurm.runner.main as runner\n"
        "from qpu_slurm import start\n"
        f"sys.stdout = {stdout}\n"
        "if sys.stdout: sys.stdout.write('a result')\n"
        "runner.main = lambda: 3\n"
        "start.task_runner()\n",
        stdout=writing,
    )
    os.close(writing)

    assert (done.returncode, done.stderr) == (3, "")
