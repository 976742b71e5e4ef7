# SPDX-License-Identifier: Apache-2.0
"""qiskit-ibm-runtime's service, bound to a job: it asks for nothing before something is asked of it.

The client asks IAM for a token where the environment's `IAM_URL` says. Releases before 0.49 do not read that,
and ask at IBM's public address. Here each QPU's IAM is named instead: behind the gateway every release works,
and the QPUs of one job may belong to services of their own.
"""

from __future__ import annotations

import logging
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import qiskit_ibm_runtime
from qiskit_ibm_runtime import QiskitRuntimeService
from qiskit_ibm_runtime.api.auth import CloudAuth
from qiskit_ibm_runtime.api.client_parameters import ClientParameters

from qpu_slurm.errors import UserMistake
from qpu_slurm.job import variables

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qpu_slurm.job.variables import JobQpu


_OLDEST = (0, 43)
"""The oldest release of docs/compatibility.md; those before it ask the service in another form."""

if tuple(map(int, qiskit_ibm_runtime.__version__.split(".")[:2])) < _OLDEST:
    raise UserMistake(
        f"qiskit-ibm-runtime {qiskit_ibm_runtime.__version__} is too old for Qpu and the primitives, "
        f"which need {'.'.join(map(str, _OLDEST))} or newer. Run pip install --upgrade qiskit-ibm-runtime."
    )


# Qiskit is published without type information, so what is derived from it is for mypy derived from Any.
class JobAuth(CloudAuth):  # type: ignore[misc]
    """What authorizes a client's requests: a token of the QPU's own IAM.

    Args:
        qpu: The job's QPU.
    """

    def __init__(self, qpu: JobQpu) -> None:
        super().__init__(api_key=qpu.api_key.reveal(), crn=qpu.instance)
        self._qpu = qpu
        self.tm.url = qpu.iam_endpoint

    def __deepcopy__(self, _memo: object) -> JobAuth:
        """Make another, with a token of its own."""
        return JobAuth(self._qpu)


class JobParameters(ClientParameters):  # type: ignore[misc]
    """What a client has to know to reach the QPU's service.

    Args:
        qpu: The job's QPU.
    """

    def __init__(self, qpu: JobQpu) -> None:
        super().__init__(**account(qpu))
        self._qpu = qpu

    def get_auth_handler(self) -> JobAuth:
        """Return what authorizes the client's requests."""
        return JobAuth(self._qpu)


class JobService(QiskitRuntimeService):  # type: ignore[misc]
    """A `QiskitRuntimeService` that connects when something is asked of it.

    Args:
        qpu: The job's QPU.
    """

    def __init__(self, qpu: JobQpu) -> None:  # not super's, yet
        self._lock = threading.RLock()
        self._connected = self._connecting = False
        self._arguments = account(qpu)
        self._parameters = JobParameters(qpu)

    @property
    def _client_params(self) -> JobParameters:
        """What its clients are made with, in place of what super makes of the account."""
        return self._parameters

    @_client_params.setter
    def _client_params(self, _: ClientParameters) -> None:
        pass

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever it is
        """Connect: what is not there yet is what a service has once it is connected."""
        if name.startswith("__"):
            raise AttributeError(name)
        with self._lock:
            if not self._connected and not self._connecting:
                self._connecting = True
                try:
                    with _unheard("qiskit_ibm_runtime.qiskit_runtime_service", "Loading account with"):
                        super().__init__(**self._arguments)
                    self._connected = True
                finally:
                    self._connecting = False
            return object.__getattribute__(self, name)

    def instances(self) -> Any:  # noqa: ANN401 - as its own
        """List the account's instances.

        Whether the job's is among them is what the client wants to know first, from IAM, Global Search and
        Global Catalog; but a session was opened with it.
        """
        return [{"crn": self._arguments["instance"]}] if self._connecting else super().instances()


def account(qpu: JobQpu) -> dict[str, Any]:
    """Say what the client has to know of the job's account.

    It is named, not left to the environment: that has the job's first QPU, or what the user has set since.
    """
    endpoint, environ = qpu.endpoint, variables.to_environ([qpu])
    return {
        "channel": environ["QISKIT_IBM_CHANNEL"],
        "token": environ["QISKIT_IBM_TOKEN"],
        "instance": environ["QISKIT_IBM_INSTANCE"],
        # From this the client derives where IAM and Global Search are; the endpoint it is told.
        "url": environ["QISKIT_IBM_URL"],
        "url_resolver": lambda *_: endpoint,
    }


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
