# SPDX-License-Identifier: Apache-2.0
"""Readers of man pages have nothing to complain of, and zsh and fish complete."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

import pytest
from packages import manual

BIN: Final = Path(sys.executable).parent

CONFIG: Final = """
[defaults]
instance = "crn:v1:bluemix:public:quantum-computing:us-east:a/1:2::"
[[qpu]]
name = "ibm_fez"
"""


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("manual")
    manual.main(root)
    (root / "config.toml").write_text(CONFIG)
    return root


def environ(written: Path) -> dict[str, str]:
    return {
        "PATH": f"{BIN}:/usr/bin:/bin",
        "HOME": str(written),
        "TERM": "dumb",
        "LC_ALL": "C.UTF-8",
        "QPU_SLURM_CONFIG": str(written / "config.toml"),
    }


@pytest.mark.parametrize(
    "checker",
    [["mandoc", "-Tlint", "-Wstyle"], ["man", "--warnings", "-E", "UTF-8", "-l", "-P", "cat"]],
    ids=lambda it: it[0],
)
def test_pages_are_clean(written: Path, checker: list[str]) -> None:
    pages = sorted((written / "share/man").rglob("*.[15]"))
    assert len(pages) > 20
    complaints = ""
    for page in pages:
        # mandoc writes them to stdout, man to stderr.
        done = subprocess.run([*checker, str(page)], capture_output=True, text=True, check=False, timeout=60)
        complaints += done.stdout if checker[0] == "mandoc" else done.stderr
    assert complaints == ""


def fish(written: Path, line: str) -> set[str]:
    """Return what fish offers for the end of a line."""
    command = line.split(maxsplit=1)[0]
    script = f"source {written}/share/fish/vendor_completions.d/{command}.fish; complete -C '{line}'"
    done = subprocess.run(
        ["/usr/bin/fish", "--no-config", "-c", script],
        env=environ(written),
        cwd=written,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert done.stderr == ""
    return {offer.split("\t")[0] for offer in done.stdout.splitlines()}


def zsh(written: Path, line: str, expected: str) -> str:
    """Return what zsh prints when Tab is pressed at the end of a line, up to what is expected."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(written)
        os.execve("/bin/zsh", ["zsh", "-f", "-i"], environ(written))  # noqa: S606 - the shell itself is tested
    completions = written / "share/zsh/vendor-completions"
    prepare = f"PS1=; fpath=({completions} $fpath); autoload -Uz compinit; compinit -u -D; print rea''dy\n"
    try:
        os.write(terminal, prepare.encode())
        _read_until(terminal, "ready")
        os.write(terminal, line.encode() + b"\t")
        return _read_until(terminal, expected)
    finally:
        os.kill(pid, 9)
        os.close(terminal)
        os.waitpid(pid, 0)


def _read_until(terminal: int, expected: str) -> str:
    seen = ""
    end = time.monotonic() + 60
    while expected not in seen and time.monotonic() < end:
        if select.select([terminal], [], [], 1)[0]:
            seen += os.read(terminal, 4096).decode(errors="replace")
    assert expected in seen
    return seen


def test_fish_completes(written: Path) -> None:
    assert fish(written, "qpu-slurm re") == {"release", "reap", "resume", "report", "rekey"}
    assert fish(written, "qpu-slurm check --no") == {"--node"}
    assert "ibm_fez" in fish(written, "qpu-slurm drain ")
    assert "ibm_fez" in fish(written, "task_runner ")
    assert fish(written, "qpu-slurm --config conf") == {"config.toml"}


@pytest.mark.parametrize(
    ("line", "completed"),
    [
        ("qpu-slurm drai", "drain"),
        ("qpu-slurm check --no", "--node"),
        ("qpu-slurm drain ib", "ibm_fez"),
        ("task_runner ib", "ibm_fez"),
        ("task_runner ibm_fez conf", "config.toml"),
    ],
)
def test_zsh_completes(written: Path, line: str, completed: str) -> None:
    assert completed in zsh(written, line, completed)
