# SPDX-License-Identifier: Apache-2.0
"""Quantum processors as a resource of Slurm clusters.

Programs that run in a job import these names:

- `Qpu`, `job_qpus`: the job's QPUs, as Qiskit backends;
- `Session`, `SamplerV2`, `EstimatorV2`, `Sampler`, `Estimator`: Qiskit's, in the job's session by default;
- `write_sampler_input`, `write_estimator_input`, `write_executor_input`: write inputs for task_runner;
- `execute`, `submit`: execute an input as task_runner does;
- `Task`, `Progress`: what `submit` returns, and what it reports;
- `read_result`, `read_executor_result`: read task_runner's results as Qiskit's;
- `QpuSlurmError`: the base class of all errors that are raised on purpose (see `qpu_slurm.errors`).

Each name is loaded on first use. Qiskit is loaded only by what needs it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from qpu_slurm.api.executor_primitives import Estimator, Sampler
    from qpu_slurm.api.inputs import write_estimator_input, write_executor_input, write_sampler_input
    from qpu_slurm.api.primitives import EstimatorV2, SamplerV2, Session
    from qpu_slurm.api.qpu import Qpu, job_qpus
    from qpu_slurm.api.results import read_executor_result, read_result
    from qpu_slurm.api.submit import Progress, Task, execute, submit
    from qpu_slurm.errors import QpuSlurmError
    from qpu_slurm.system.version import __version__

__all__ = [
    "Estimator",
    "EstimatorV2",
    "Progress",
    "Qpu",
    "QpuSlurmError",
    "Sampler",
    "SamplerV2",
    "Session",
    "Task",
    "__version__",
    "execute",
    "job_qpus",
    "read_executor_result",
    "read_result",
    "submit",
    "write_estimator_input",
    "write_executor_input",
    "write_sampler_input",
]

_HOME = {
    "__version__": "qpu_slurm.system.version",
    "Estimator": "qpu_slurm.api.executor_primitives",
    "EstimatorV2": "qpu_slurm.api.primitives",
    "Progress": "qpu_slurm.api.submit",
    "Qpu": "qpu_slurm.api.qpu",
    "QpuSlurmError": "qpu_slurm.errors",
    "Sampler": "qpu_slurm.api.executor_primitives",
    "SamplerV2": "qpu_slurm.api.primitives",
    "Session": "qpu_slurm.api.primitives",
    "Task": "qpu_slurm.api.submit",
    "execute": "qpu_slurm.api.submit",
    "job_qpus": "qpu_slurm.api.qpu",
    "read_executor_result": "qpu_slurm.api.results",
    "read_result": "qpu_slurm.api.results",
    "submit": "qpu_slurm.api.submit",
    "write_estimator_input": "qpu_slurm.api.inputs",
    "write_executor_input": "qpu_slurm.api.inputs",
    "write_sampler_input": "qpu_slurm.api.inputs",
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
