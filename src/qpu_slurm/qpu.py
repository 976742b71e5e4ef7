# SPDX-License-Identifier: Apache-2.0
"""A job's QPUs, as Qiskit sees them."""

from __future__ import annotations

import logging
import os
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, TypeVar

from qpu_slurm import environment
from qpu_slurm.errors import NoLease

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from qiskit.transpiler import Target
    from qiskit_ibm_runtime import IBMBackend, QiskitRuntimeService, Session

    from qpu_slurm.environment import JobQpu

T = TypeVar("T")


class Qpu:
    """A QPU of this job, bound to the job's credential and session.

    `Qpu.of_job()` makes one. What it gives are qiskit-ibm-runtime's own objects, so all that can be done with
    them can be done here.

    Args:
        binding: The job's variables of this QPU.
    """

    def __init__(self, binding: JobQpu) -> None:
        self._binding = binding

    @classmethod
    def of_job(cls, name: str | None = None, *, environ: Mapping[str, str] | None = None) -> Qpu:
        """Find one of this job's QPUs.

        Args:
            name: As in `--qpu=NAME`; None is the job's first or only one.
            environ: The environment to look in, if not this process's own.

        Raises:
            NoLease: The job has no QPU, or none of that name.
        """
        return choose(job_qpus(environ=environ), name)

    @property
    def name(self) -> str:
        """The QPU's name, as the user wrote it in `--qpu`."""
        return self._binding.name

    @property
    def session_id(self) -> str | None:
        """The service's id of the session that the job holds; None when it is only bound to the QPU."""
        return self._binding.session_id

    @cached_property
    def service(self) -> QiskitRuntimeService:
        """The service that the QPU belongs to."""
        from qiskit_ibm_runtime import QiskitRuntimeService  # noqa: PLC0415 - a second and a half

        endpoint, variables = self._binding.endpoint, environment.to_environ([self._binding])
        # Named, not left to the environment: that has the job's first QPU, or what the user has set since.
        with _unheard("qiskit_ibm_runtime.qiskit_runtime_service", "Loading account with the given token"):
            return QiskitRuntimeService(
                channel=variables["QISKIT_IBM_CHANNEL"],
                token=variables["QISKIT_IBM_TOKEN"],
                instance=variables["QISKIT_IBM_INSTANCE"],
                # From this the client derives where IAM and Global Search are; the endpoint it is told.
                url=variables["QISKIT_IBM_URL"],
                url_resolver=lambda *_: endpoint,
            )

    def backend(self, *, use_fractional_gates: bool | None = False) -> IBMBackend:
        """Return the QPU as a Qiskit backend, to transpile for and to run primitives on.

        Args:
            use_fractional_gates: As for `QiskitRuntimeService.backend`.
        """
        return self.service.backend(self._binding.backend, use_fractional_gates=use_fractional_gates)

    @property
    def target(self) -> Target:
        """What the QPU can do, for the transpiler: `backend().target`."""
        return self.backend().target

    def session(self) -> Session:
        """Return the job's session, as the `mode` of a primitive; open one if the job has none yet.

        It is the job's: closing it here ends it for the other steps, too.

        Raises:
            NoLease: The job is only bound to the QPU.
        """
        from qiskit_ibm_runtime import Session  # noqa: PLC0415 - likewise

        from qpu_slurm import providers  # noqa: PLC0415 - likewise
        from qpu_slurm.tasks.session import JobSession  # noqa: PLC0415 - likewise

        session = JobSession(self._binding, providers.connect(self._binding.access()), os.environ)
        return Session.from_id(session.usable(), service=self.service)

    def __repr__(self) -> str:
        return f"Qpu({self.name!r}, session_id={self.session_id!r})"


def job_qpus(*, environ: Mapping[str, str] | None = None) -> dict[str, Qpu]:
    """Find this job's QPUs.

    Args:
        environ: The environment to look in, if not this process's own.

    Returns:
        Them by name, in the order of `--qpu`.

    Raises:
        NoLease: This is not a job with a QPU.
    """
    bindings = environment.from_environ(os.environ if environ is None else environ)
    return {name: Qpu(binding) for name, binding in bindings.items()}


def choose(qpus: Mapping[str, T], name: str | None) -> T:
    """Choose one of a job's QPUs; None is the first.

    Raises:
        NoLease: There is none of that name.
    """
    if name is None:
        return next(iter(qpus.values()))
    if name not in qpus:
        raise NoLease(f"This job has no QPU {name!r}, only {', '.join(qpus)}.")
    return qpus[name]


@contextmanager
def _unheard(logger: str, words: str) -> Iterator[None]:
    """Keep a library from warning of what is meant."""

    def other(record: logging.LogRecord) -> bool:
        return words not in record.getMessage()

    logging.getLogger(logger).addFilter(other)
    try:
        yield
    finally:
        logging.getLogger(logger).removeFilter(other)
