# SPDX-License-Identifier: Apache-2.0
"""A job's QPUs, as Qiskit backends."""

from __future__ import annotations

import logging
import os
from functools import cache, cached_property, lru_cache
from typing import TYPE_CHECKING

from qpu_slurm.errors import RequestError
from qpu_slurm.job import variables
from qpu_slurm.system.runner_command import foreign_task_runner

if TYPE_CHECKING:
    from collections.abc import Mapping

    from qiskit.transpiler import Target
    from qiskit_ibm_runtime import IBMBackend, QiskitRuntimeService

    from qpu_slurm.api.worker import Worker
    from qpu_slurm.job.cache import JobCache
    from qpu_slurm.job.variables import JobQpu

_log = logging.getLogger(__name__)


class Qpu:
    """A QPU of this job, bound to the job's credential and session.

    Call `Qpu.of_job()` to get one. Its members return qiskit-ibm-runtime's own objects, with all that they
    can do.

    Args:
        binding: The job's variables for this QPU.
        environ: The step's environment.

    Attributes:
        binding: As above.
    """

    def __init__(self, binding: JobQpu, environ: Mapping[str, str]) -> None:
        self.binding = binding
        self._environ = environ
        self._backends: dict[bool | None, IBMBackend] = {}

    @classmethod
    def of_job(cls, name: str | None = None, *, environ: Mapping[str, str] | None = None) -> Qpu:
        """Find one of this job's QPUs.

        Args:
            name: As in `--qpu=NAME`; `"any"`, or alternatives such as `"ibm_fez|ibm_torino"`, is the QPU that
                was chosen for that. None is the job's first QPU.
            environ: The environment to read; None is this process's own.

        Raises:
            NoLeaseError: The job has no QPU, or none of that name.
        """
        return variables.choose(job_qpus(environ=environ), name)

    @property
    def name(self) -> str:
        """The QPU's name, as the user wrote it in `--qpu`."""
        return self.binding.name

    @property
    def asked(self) -> str | None:
        """What the user wrote in `--qpu` that this QPU was chosen for; None for a QPU that the user named."""
        return self.binding.asked

    @property
    def backend_name(self) -> str:
        """The service's name of the QPU."""
        return self.binding.backend

    @property
    def session_id(self) -> str | None:
        """The service's id of the session that the job had when this step began; None if it had none."""
        return self.binding.session_id

    def open_session(self) -> str:
        """Return the service's id of the session that the job's tasks run in now.

        If the job has no session yet, this opens one.

        Raises:
            NoLeaseError: The job is only bound to the QPU.
            ServiceError: A session cannot be opened.
        """
        from qpu_slurm import providers  # noqa: PLC0415 - what speaks HTTP, when it is needed
        from qpu_slurm.tasks.session import JobSession  # noqa: PLC0415 - likewise

        return JobSession(self.binding, providers.connect(self.binding.access()), self._environ).usable()

    @cached_property
    def service(self) -> QiskitRuntimeService:
        """The QPU's service; it connects on first use."""
        from qpu_slurm.api.runtime import JobService  # noqa: PLC0415 - a second and a half

        return JobService(self.binding)

    def backend(self, *, use_fractional_gates: bool | None = False) -> IBMBackend:
        """Return the QPU as a Qiskit backend, to transpile for and to run primitives on.

        The first step that needs the QPU's configuration and properties fetches them, and later steps of the
        job reuse them. `backend().refresh()` fetches them again.

        Args:
            use_fractional_gates: As for `QiskitRuntimeService.backend`.

        Raises:
            IBMInputValueError: The QPU has no fractional gates.
            RequestError: It is a QPU of an IQM Server, for which iqm-client has backends.
        """
        if self.binding.type == "iqm-server":
            raise RequestError(
                f"{self.name} is a QPU of an IQM Server: transpile for it with iqm-client "
                "(from iqm.qiskit_iqm import IQMProvider; IQMProvider().get_backend())."
            )
        if use_fractional_gates not in self._backends:
            self._backends[use_fractional_gates] = self._make_backend(
                use_fractional_gates=use_fractional_gates
            )
        return self._backends[use_fractional_gates]

    @property
    def target(self) -> Target:
        """The QPU's transpiler target: `backend().target`."""
        return self.backend().target

    @cached_property
    def worker(self) -> Worker:
        """The worker that executes inputs on the QPU, for `submit`.

        Raises:
            NoLeaseError: The job is only bound to the QPU.
        """
        from qpu_slurm.api.worker import Worker  # noqa: PLC0415 - what speaks HTTP, when it is needed

        return Worker(self.binding, self._environ)

    def _make_backend(self, *, use_fractional_gates: bool | None) -> IBMBackend:
        try:
            from qpu_slurm.api.backend import JobBackend  # noqa: PLC0415 - likewise
        except (
            ImportError
        ):  # a release of qiskit-ibm-runtime that is made otherwise: more requests, no other harm
            return self.service.backend(self.backend_name, use_fractional_gates=use_fractional_gates)
        return JobBackend(self.binding, self.service, self._cache, use_fractional_gates=use_fractional_gates)

    @cached_property
    def _cache(self) -> JobCache:
        from qpu_slurm.job.cache import JobCache  # noqa: PLC0415 - only what transpiles needs it

        qpu = self.binding
        return JobCache(self._environ, qpu.endpoint, qpu.instance, qpu.backend)

    def __repr__(self) -> str:
        return f"Qpu({self.name!r}, session_id={self.session_id!r})"


def job_qpus(*, environ: Mapping[str, str] | None = None) -> dict[str, Qpu]:
    """Find this job's QPUs.

    Args:
        environ: The environment to read; None is this process's own.

    Returns:
        The QPUs by name, in the order of `--qpu`. Calls return the same objects while the environment does
        not change, so the whole program shares what one of them has fetched.

    Raises:
        NoLeaseError: This is not a job, or it has no QPU.
    """
    return dict(_qpus(frozenset((os.environ if environ is None else environ).items())))


@lru_cache(maxsize=1)
def _qpus(items: frozenset[tuple[str, str]]) -> dict[str, Qpu]:
    _warn_of_foreign_runner()
    environ = dict(items)
    return {name: Qpu(binding, environ) for name, binding in variables.from_environ(environ).items()}


@cache
def _warn_of_foreign_runner() -> None:
    """Warn once if the environment's `task_runner` is qrmi's."""
    foreign = foreign_task_runner()
    if foreign is not None:
        _log.warning(
            "%s is qrmi's, which exits 0 when a task has failed: call qpu-task-runner in your job's script.",
            foreign,
        )


os.register_at_fork(after_in_child=_qpus.cache_clear)  # a child has none of its parent's threads
