# SPDX-License-Identifier: Apache-2.0
"""A job's step on the emulator, with our task_runner, upstream's, and the bare requests."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Self

import msgspec

from benchmarks import limit, processes
from qpu_slurm import providers
from qpu_slurm.job import variables
from qpu_slurm.job.variables import JobQpu
from qpu_slurm.system.secret import Secret
from qpu_slurm_devkit.emulator import Emulator

if TYPE_CHECKING:
    from benchmarks.processes import Cost
    from qpu_slurm_devkit.emulator import Account

QPU = "ibm_fez"
HOURS = 8 * 3600

QASM = 'OPENQASM 3.0;\ninclude "stdgates.inc";\nbit[1] c;\nx $0;\nc[0] = measure $0;\n'


def sampler_input() -> str:
    """Write a small input."""
    parameters = {"pubs": [[QASM, None, 100]], "version": 2, "support_qiskit": False}
    return json.dumps({"program_id": "sampler", "parameters": parameters})


def qpu_of(emulator: Emulator, account: Account) -> JobQpu:
    """Say how a job reaches the emulated QPU, with an account's own key."""
    variables = emulator.environ(account)
    return JobQpu(
        name=QPU,
        backend=QPU,
        endpoint=variables["QISKIT_IBM_URL"],
        iam_endpoint=variables["IAM_URL"],
        search_endpoint=variables["GLOBAL_SEARCH_URL"],
        catalog_endpoint=variables["GLOBAL_CATALOG_URL"],
        instance=account.crn,
        api_key=Secret(account.api_key),
    )


class Step:
    """A step of a job that holds a session.

    Args:
        task_seconds: How long a task runs; None: as long as its simulation takes.
        result_bytes: How big a made-up result is; None: the task is simulated.

    Attributes:
        directory: Where it runs.
        emulator: Stands for the service.
        provider: The way to it.
        session_id: The session.
        environ: The step's environment.
        ours: Our command.
        theirs: Upstream's.
        bare: The bare requests, as a command.
    """

    def __init__(self, *, task_seconds: float | None = None, result_bytes: int | None = None) -> None:
        self.emulator = Emulator(
            task_seconds, interactive_ttl=HOURS, idle_ttl=HOURS, backends=(QPU,), result_bytes=result_bytes
        )
        self._exit = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self.directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="qpu-bench-")))
            stack.enter_context(self.emulator)
            qpu = qpu_of(self.emulator, self.emulator.accounts[0])
            self.provider = providers.connect(qpu.access())
            self.session_id = self.provider.open_session(HOURS).id
            held = variables.to_environ([msgspec.structs.replace(qpu, session_id=self.session_id)])
            inherited = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
            # srun -Q: neither says more than errors.
            self.environ = inherited | held | {"SLURM_JOB_ID": "42", "SRUN_DEBUG": "2"}
            self.ours = processes.script(self.directory / "ours", "qpu_slurm.start", "task_runner")
            self.theirs = processes.script(self.directory / "theirs", "qrmi.tools.task_runner.main", "run")
            self.bare = Path(limit.__file__)
            self.input = self.directory / "input.json"
            self.input.write_text(sampler_input())
            self.output = self.directory / "output.json"
            self._exit = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._exit.close()

    def run_ours(self, *arguments: object) -> Cost:
        """Run our task_runner."""
        return self._run(self.ours, *(arguments or (QPU, self.input, self.output)))

    def run_theirs(self, *arguments: object) -> Cost:
        """Run upstream's task_runner."""
        return self._run(self.theirs, *(arguments or (QPU, self.input, self.output)))

    def run_bare(self, *arguments: object) -> Cost:
        """Send the bare requests, from a process of their own."""
        return self._run(sys.executable, self.bare, *(arguments or (QPU, self.input, self.output)))

    def _run(self, *argv: object) -> Cost:
        return processes.run(argv, env=self.environ, cwd=self.directory)
