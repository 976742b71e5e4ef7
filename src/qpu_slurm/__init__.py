# SPDX-License-Identifier: Apache-2.0
"""Quantum processors as a resource of Slurm clusters.

What a job's own programs use; each name is loaded when it is first used, and Qiskit only by what needs it:

- `Qpu`, `job_qpus`: the QPUs of this job, as Qiskit sees them;
- `write_sampler_input`, `write_estimator_input`: inputs for task_runner;
- `read_result`: task_runner's result, as Qiskit's PrimitiveResult;
- `QpuSlurmError`: the base of every error that is raised on purpose (`qpu_slurm.errors` has them all).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from qpu_slurm.errors import QpuSlurmError
    from qpu_slurm.inputs import write_estimator_input, write_sampler_input
    from qpu_slurm.qpu import Qpu, job_qpus
    from qpu_slurm.results import read_result

__version__ = "0.1.0"

__all__ = [
    "Qpu",
    "QpuSlurmError",
    "__version__",
    "job_qpus",
    "read_result",
    "write_estimator_input",
    "write_sampler_input",
]

_HOME = {
    "Qpu": "qpu_slurm.qpu",
    "QpuSlurmError": "qpu_slurm.errors",
    "job_qpus": "qpu_slurm.qpu",
    "read_result": "qpu_slurm.results",
    "write_estimator_input": "qpu_slurm.inputs",
    "write_sampler_input": "qpu_slurm.inputs",
}
"""Where each public name lives (PEP 562). Hooks and task_runner import this package and need none of them."""


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415 - it costs more than all the rest of this file

    value: object = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
