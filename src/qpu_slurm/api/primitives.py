# SPDX-License-Identifier: Apache-2.0
"""Qiskit's session and primitives, in the job's session by default.

qiskit-ibm-runtime deprecated its `SamplerV2` and `EstimatorV2` in 0.50, in favour of primitives that use
its executor. Ours stay. With a release that no longer has the old ones, ours are the executor's primitives
under the old names, so that a job's program runs with both.
"""

from __future__ import annotations

import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import qiskit_ibm_runtime
from qiskit_ibm_runtime import IBMBackend
from qiskit_ibm_runtime.utils.default_session import get_cm_session

from qpu_slurm.api.qpu import Qpu, job_qpus
from qpu_slurm.errors import NoLeaseError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from types import TracebackType

    from qiskit.providers import BackendV2
    from qiskit_ibm_runtime.options import EstimatorOptions, SamplerOptions

try:
    from qiskit_ibm_runtime import EstimatorV2 as RuntimeEstimatorV2
    from qiskit_ibm_runtime import SamplerV2 as RuntimeSamplerV2
except ImportError:
    from qiskit_ibm_runtime.executor_estimator import Estimator as RuntimeEstimatorV2
    from qiskit_ibm_runtime.executor_sampler import Sampler as RuntimeSamplerV2


# Qiskit is published without type information, so what is derived from it is for mypy derived from Any.
class Session(qiskit_ibm_runtime.Session):  # type: ignore[misc]
    """The job's session, as Qiskit's.

    It belongs to the job, and other steps may need it. Leaving a `with` block therefore does not close it;
    `close()` does, for the whole job. Its time limit is the job's.

    Args:
        backend: The QPU: a name as in `--qpu=NAME`, what `Qpu.backend()` returned, or a `Qpu`. None is the
            job's first QPU.
        close_session: Whether to close the session at the end of a `with` block. Submitted tasks still run,
            and the QPU is free as soon as they end.

    Raises:
        NoLeaseError: The job has no such QPU, or no session on it.
    """

    def __init__(self, backend: str | IBMBackend | Qpu | None = None, *, close_session: bool = False) -> None:
        qpu = _qpu_of(backend)
        self._closes_session = close_session
        self._stays_open = False
        self._held = qpu.open_session()
        super().__init__(backend if isinstance(backend, IBMBackend) else qpu.backend(), create_new=False)

    def _create_session(self, *, create_new: bool | None = True) -> str:  # noqa: ARG002 - as super calls it
        """Return the job's session instead of a new one."""
        return self._held

    def close(self) -> None:
        """Close the session for the whole job: it takes no more tasks, but submitted ones still run."""
        if not self._stays_open:
            super().close()

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        self._stays_open = not self._closes_session
        try:
            super().__exit__(exc_type, exc_val, exc_tb)
        finally:
            self._stays_open = False


class JobPrimitive:
    """What our primitives add to Qiskit's: by default, they run in the job's session.

    Args:
        mode: Where to run. None is the session of the enclosing `with` block, or else the job's session on
            its first QPU. A QPU's name or backend is the job's session on that QPU. Anything else has
            Qiskit's meaning.
        options: As for Qiskit's own.

    Raises:
        NoLeaseError: The job has no such QPU, or no session on it.
    """

    def __init__(
        self,
        mode: qiskit_ibm_runtime.Session | BackendV2 | str | None = None,
        options: Mapping[str, Any] | EstimatorOptions | SamplerOptions | None = None,
    ) -> None:
        with _without_deprecation():
            # mypy knows nothing of Qiskit's classes, which come next in the order of resolution.
            super().__init__(mode=job_mode(mode), options=options)  # type: ignore[call-arg]


class SamplerV2(JobPrimitive, RuntimeSamplerV2):  # type: ignore[misc]
    """Qiskit's `SamplerV2` in the job's session; see `JobPrimitive` for the arguments."""


class EstimatorV2(JobPrimitive, RuntimeEstimatorV2):  # type: ignore[misc]
    """Qiskit's `EstimatorV2` in the job's session; see `JobPrimitive` for the arguments."""


def _qpu_of(backend: str | IBMBackend | Qpu | None) -> Qpu:
    """Find the job's QPU."""
    if isinstance(backend, Qpu):
        return backend
    if not isinstance(backend, IBMBackend):
        return Qpu.of_job(backend)
    qpus = job_qpus()
    for qpu in qpus.values():
        if qpu.backend_name == backend.name:
            return qpu
    raise NoLeaseError(f"This job has no QPU {backend.name!r}, only {', '.join(qpus)}.")


def job_mode(mode: Any) -> Any:  # noqa: ANN401 - what Qiskit takes
    """Return the mode to run in: the job's session if the mode means it, any other mode unchanged."""
    if get_cm_session() is None and (mode is None or isinstance(mode, IBMBackend)):
        return Session(mode)
    return Session(mode) if isinstance(mode, str) else mode


@contextmanager
def _without_deprecation() -> Iterator[None]:
    """Suppress the client's deprecation warning: users of ours have nothing to change."""
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", r"The (Sampler|Estimator)V2 class is deprecated", DeprecationWarning
        )
        yield
