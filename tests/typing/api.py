# SPDX-License-Identifier: Apache-2.0
"""What users' type checkers see of the public API. It is never run: mypy reads it, in `make lint`.

Qiskit is published without type information, so what comes from it is Any here; what is ours is not.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, assert_type

import qpu_slurm
from qpu_slurm import (
    EstimatorV2,
    Progress,
    Qpu,
    QpuSlurmError,
    SamplerV2,
    Session,
    Task,
    execute,
    job_qpus,
    read_executor_result,
    read_result,
    submit,
    write_estimator_input,
    write_executor_input,
    write_sampler_input,
)
from qpu_slurm.errors import NoLeaseError, TaskFailedError
from qpu_slurm.providers.base import TaskStatus


def the_jobs_qpus() -> None:
    assert_type(job_qpus(), dict[str, Qpu])
    qpu = Qpu.of_job("ibm_fez")
    assert_type(qpu, Qpu)
    assert_type(qpu.name, str)
    assert_type(qpu.backend_name, str)
    assert_type(qpu.session_id, str | None)
    assert_type(Session(qpu), Session)
    qpu.backend(use_fractional_gates=True)
    qpu.backend(True)  # type: ignore[call-arg] # noqa: FBT003 - by its name only
    Qpu.of_job(1)  # type: ignore[arg-type]


def primitives() -> None:
    assert_type(Session("ibm_fez", close_session=True), Session)
    assert_type(SamplerV2(), SamplerV2)
    assert_type(EstimatorV2(options={"default_shots": 100}), EstimatorV2)
    Session(close_session="yes")  # type: ignore[arg-type]
    SamplerV2(session="ibm_fez")  # type: ignore[call-arg]
    with Session() as session:
        session.close()


def inputs(circuit: Any, program: Any) -> None:  # noqa: ANN401 - Qiskit's
    assert_type(write_sampler_input("input.json", [circuit], shots=10, format="qasm3"), None)
    write_estimator_input(Path("input.json"), [(circuit, "Z")], precision=0.1, resilience_level=1)
    write_executor_input("input.json", program)
    write_sampler_input("input.json", [circuit], format="qasm2")  # type: ignore[arg-type]
    write_sampler_input("input.json")  # type: ignore[call-arg]
    write_sampler_input("input.json", [circuit], precision=0.1)  # type: ignore[call-arg]


def results() -> None:
    read_result("output.json")[0].data.meas.get_counts()
    read_executor_result(Path("output.json"))
    read_result(7)  # type: ignore[arg-type]


def tell(progress: Progress) -> None:
    assert_type(progress.task_id, str)
    assert_type(progress.status, TaskStatus)
    assert_type(progress.position, int | None)


async def execution(circuit: Any) -> None:  # noqa: ANN401 - Qiskit's
    assert_type(execute("input.json", output="output.json"), Path)
    assert_type(submit("input.json", output="output.json", timeout=30.0), Task[Path])
    task = submit([circuit], shots=100, tags=["mine"], close_session=True, on_progress=tell)
    assert_type(task.job_id(), str)
    assert_type(task.status(), TaskStatus | None)
    assert_type(task.done(), bool)
    assert_type(task.cancel(), None)
    assert_type(await submit("input.json", output="output.json"), Path)
    both = await asyncio.gather(
        submit("input.json", output="one.json"), submit("input.json", output="two.json")
    )
    assert_type(both, tuple[Path, Path])
    execute("input.json", program="executor")  # type: ignore[call-overload]
    execute(qpu="ibm_fez")  # type: ignore[call-overload]
    tell(task)  # type: ignore[arg-type]


def errors() -> None:
    try:
        execute("input.json")
    except NoLeaseError as error:
        assert_type(str(error), str)
    except TaskFailedError as error:
        assert_type(error.task_id, str)
    except QpuSlurmError:
        raise
    assert_type(qpu_slurm.__version__, str)
