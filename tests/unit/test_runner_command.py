# SPDX-License-Identifier: Apache-2.0
"""The command that qrmi's replaces is told of, and has a second name."""

from __future__ import annotations

import logging
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from qpu_slurm.admin.check import check
from qpu_slurm.api import qpu
from qpu_slurm.system.runner_command import foreign_task_runner

SCRIPT = "#!/opt/venv/bin/python\nfrom {module} import {name}\nif __name__ == '__main__':\n    {name}()\n"
QRMIS = SCRIPT.format(module="qrmi.tools.task_runner.main", name="run")
OURS = SCRIPT.format(module="qpu_slurm.start", name="task_runner")
"""As pip writes them for the packages' entry points."""


@pytest.fixture
def replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make this process one whose environment has qrmi's command."""
    command = tmp_path / "task_runner"
    command.write_text(QRMIS)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    return command


def test_whose_command_it_is_is_told_from_what_pip_wrote(replaced: Path) -> None:
    assert foreign_task_runner() == replaced
    replaced.write_text(OURS)
    assert foreign_task_runner() is None
    replaced.unlink()
    assert foreign_task_runner() is None


def test_check_calls_it_a_problem(replaced: Path, tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text(
        f'journal = "{tmp_path}/journal.sqlite"\n[defaults]\n'
        'instance = "crn:v1:bluemix:public:quantum-computing:us-east:a/1:2::"\n'
        '[[qpu]]\nname = "ibm_fez"\n'
    )
    finding = next(found for found in check(config, {}) if found.about == "task_runner")
    assert finding.level == "problem"
    assert str(replaced) in finding.text
    assert "qpu-task-runner" in finding.remedy


def test_a_program_is_warned_once(replaced: Path, caplog: pytest.LogCaptureFixture) -> None:
    environ = {
        "QRMI_JOB_QPU_RESOURCES": "ibm_fez",
        "QRMI_JOB_QPU_TYPES": "ibm-quantum-compute-service",
        **{
            f"ibm_fez_QRMI_IBM_QCS_{name}": "https://example.org"
            for name in ("ENDPOINT", "IAM_ENDPOINT", "IAM_APIKEY", "SERVICE_CRN")
        },
    }
    qpu._warn_of_foreign_runner.cache_clear()  # noqa: SLF001 - another test may have been warned
    with caplog.at_level(logging.WARNING, "qpu_slurm"):
        for number in ("1", "2"):
            qpu.Qpu.of_job(environ={**environ, "SLURM_STEP_ID": number})
    assert [str(replaced) in record.message for record in caplog.records] == [True]


def test_our_second_name_is_the_same_command() -> None:
    values = {entry.name: entry.value for entry in entry_points(group="console_scripts")}
    assert values["qpu-task-runner"] == "qpu_slurm.start:task_runner"
    second = Path(sys.executable).with_name("qpu-task-runner")
    done = subprocess.run([second, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("task_runner ")
