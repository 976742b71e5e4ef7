# SPDX-License-Identifier: Apache-2.0
"""A job's step, as task_runner and a user's program see it: variables, and an emulator behind them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Self

import msgspec

from qpu_slurm import providers
from qpu_slurm.job import variables
from qpu_slurm.job.variables import JobQpu
from qpu_slurm.system.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Mapping

    from qpu_slurm_devkit.emulator import Emulator, TaskRecord

TASK_RUNNER = Path(sys.executable).with_name("task_runner")

QASM = 'OPENQASM 3.0;\ninclude "stdgates.inc";\nbit[1] c;\nx $0;\nc[0] = measure $0;\n'


def sampler_input(circuit: str = QASM, **parameters: object) -> str:
    """Write a small input: one shot after another that reads 1."""
    plain = {"pubs": [[circuit, None, 100]], "version": 2, "support_qiskit": False}
    return json.dumps({"program_id": "sampler", "parameters": plain | parameters})


class Step:
    """A step of a job that holds a session on `ibm_fez`.

    Args:
        emulator: Stands for the service.
        directory: The step's working directory.
    """

    def __init__(self, emulator: Emulator, directory: Path) -> None:
        self.emulator = emulator
        self.directory = directory
        account, variables = emulator.accounts[0], emulator.environ()
        self.qpu = JobQpu(
            name="ibm_fez",
            backend="ibm_fez",
            endpoint=variables["QISKIT_IBM_URL"],
            iam_endpoint=variables["IAM_URL"],
            search_endpoint=variables["GLOBAL_SEARCH_URL"],
            catalog_endpoint=variables["GLOBAL_CATALOG_URL"],
            instance=account.crn,
            api_key=Secret(account.api_key),
        )
        self.provider = providers.connect(self.qpu.access())
        self.session_id = self.provider.open_session(600).id
        self.environ = self.variables(session_id=self.session_id)
        self.input = self.write("input.json", sampler_input())
        self.output = directory / "output.json"
        self._started: list[subprocess.Popen[str]] = []

    def variables(self, **changes: object) -> dict[str, str]:
        """Return the step's environment, of a QPU that may be another."""
        inherited = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        qpu = msgspec.structs.replace(self.qpu, **changes)
        job = {"SLURM_JOB_ID": "42", "TMPDIR": str(self.directory)}
        return inherited | variables.to_environ([qpu]) | job

    def write(self, name: str, text: str) -> Path:
        """Write a file into the working directory."""
        path = self.directory / name
        path.write_text(text, encoding="utf-8")
        return path

    def run(
        self,
        *arguments: object,
        stdin: str = "",
        environ: Mapping[str, str] | None = None,
        umask: int = -1,
    ) -> subprocess.CompletedProcess[str]:
        """Run task_runner to its end."""
        return subprocess.run(
            [TASK_RUNNER, *map(str, arguments)],
            input=stdin,
            env=self.environ if environ is None else environ,
            cwd=self.directory,
            capture_output=True,
            check=False,
            encoding="utf-8",
            timeout=240,
            umask=umask,
        )

    def start(
        self,
        *arguments: object,
        stdout: int = subprocess.PIPE,
        stderr: int = subprocess.PIPE,
        environ: Mapping[str, str] | None = None,
    ) -> subprocess.Popen[str]:
        """Start task_runner; it does not outlive this object."""
        process = subprocess.Popen(
            [TASK_RUNNER, *map(str, arguments)],
            env=self.environ if environ is None else environ,
            cwd=self.directory,
            stdin=subprocess.PIPE,
            stdout=stdout,
            stderr=stderr,
            encoding="utf-8",
        )
        self._started.append(process)
        return process

    def tasks(self) -> list[TaskRecord]:
        """List the tasks that the service got."""
        return self.emulator.tasks()

    def wait_until_it_runs(self) -> None:
        """Wait until the service runs a task."""
        self.emulator.wait_for(lambda _: [task for task in self.tasks() if task.status == "Running"])

    def files(self) -> set[str]:
        """Name what lies in the working directory, hidden files included."""
        return {path.name for path in self.directory.iterdir()}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._started:
            with process:  # closes its pipes, and waits
                process.kill()
