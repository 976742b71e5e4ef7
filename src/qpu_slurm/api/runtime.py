# SPDX-License-Identifier: Apache-2.0
"""qiskit-ibm-runtime's service, bound to a job: it sends no request before its first use.

The client requests a token from the IAM that the environment's `IAM_URL` names. Releases before 0.49 do not
read that, and use IBM's public IAM. This module names each QPU's IAM instead, so every release works behind
the gateway, and the QPUs of one job may belong to different services.
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

from qpu_slurm.errors import RequestError
from qpu_slurm.job import variables

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qpu_slurm.job.variables import JobQpu


_OLDEST = (0, 43)
"""The oldest release of docs/compatibility.md; earlier ones send other requests."""

if tuple(map(int, qiskit_ibm_runtime.__version__.split(".")[:2])) < _OLDEST:
    raise RequestError(
        f"qiskit-ibm-runtime {qiskit_ibm_runtime.__version__} is too old for Qpu and the primitives, "
        f"which need {'.'.join(map(str, _OLDEST))} or newer. Run pip install --upgrade qiskit-ibm-runtime."
    )


# Qiskit is published without type information, so what is derived from it is for mypy derived from Any.
class JobAuth(CloudAuth):  # type: ignore[misc]
    """Authorizes a client's requests, with a token from the QPU's own IAM.

    Args:
        qpu: The job's QPU.
    """

    def __init__(self, qpu: JobQpu) -> None:
        super().__init__(api_key=qpu.api_key.reveal(), crn=qpu.instance)
        self._qpu = qpu
        self.tm.url = qpu.iam_endpoint

    def __deepcopy__(self, _memo: object) -> JobAuth:
        """Return another, with a token of its own."""
        return JobAuth(self._qpu)


class JobParameters(ClientParameters):  # type: ignore[misc]
    """The parameters with which a client reaches the QPU's service.

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
    """A `QiskitRuntimeService` that connects on first use.

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
        """The parameters of its clients, instead of those that super makes from the account."""
        return self._parameters

    @_client_params.setter
    def _client_params(self, _: ClientParameters) -> None:
        pass

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever it is
        """Connect: the missing attributes are those that a connected service has."""
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

        The client first checks that the job's instance is among them, with IAM, Global Search and Global
        Catalog. The session was opened with that instance, so this answers without a request.
        """
        return [{"crn": self._arguments["instance"]}] if self._connecting else super().instances()


def account(qpu: JobQpu) -> dict[str, Any]:
    """Return the client's settings of the job's account.

    They are explicit, since the environment has those of the job's first QPU, or what the user set later.
    """
    endpoint, environ = qpu.endpoint, variables.to_environ([qpu])
    return {
        "channel": environ["QISKIT_IBM_CHANNEL"],
        "token": environ["QISKIT_IBM_TOKEN"],
        "instance": environ["QISKIT_IBM_INSTANCE"],
        # The client derives the addresses of IAM and Global Search from this, but not the endpoint.
        "url": environ["QISKIT_IBM_URL"],
        "url_resolver": lambda *_: endpoint,
    }


@contextmanager
def _unheard(logger: str, words: str) -> Iterator[None]:
    """Suppress a library's warning about what we do on purpose."""

    def other(record: logging.LogRecord) -> bool:
        return words not in record.getMessage()

    logging.getLogger(logger).addFilter(other)
    try:
        yield
    finally:
        logging.getLogger(logger).removeFilter(other)
