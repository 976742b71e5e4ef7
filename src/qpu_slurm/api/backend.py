# SPDX-License-Identifier: Apache-2.0
"""qiskit-ibm-runtime's backend, made from what the job has fetched.

`QiskitRuntimeService()` sends five requests before it is ready, its `backend()` two more, and the first use
of the target another. Each step of a job would repeat them. Here the job's first step sends three, and later
steps none.

Some parts of a backend are not public in qiskit-ibm-runtime. If a release has them elsewhere, importing this
module fails, and `Qpu.backend` uses the client's own way instead.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from qiskit_ibm_runtime import IBMBackend
from qiskit_ibm_runtime.exceptions import IBMInputValueError
from qiskit_ibm_runtime.utils.backend_decoder import configuration_from_server_data

from qpu_slurm.api.runtime import JobParameters
from qpu_slurm.errors import UnavailableError
from qpu_slurm.tasks.calibration import saw

try:
    from qiskit_ibm_runtime.api.client import RuntimeClient
except ImportError:  # before 0.50
    from qiskit_ibm_runtime.api.clients import RuntimeClient

if TYPE_CHECKING:
    from qiskit_ibm_runtime import QiskitRuntimeService

    from qpu_slurm.job.cache import JobCache
    from qpu_slurm.job.variables import JobQpu

_CONFIGURATION = "configuration.json"
_PROPERTIES = "properties.json"

_FRACTIONAL = {"rx", "rzz"}


# Qiskit is published without type information, so what is derived from it is for mypy derived from Any.
class JobClient(RuntimeClient):  # type: ignore[misc]
    """A backend's client for the service; the job's cache answers what it can.

    Args:
        qpu: The job's QPU.
        cache: Where configuration and properties are kept.
    """

    def __init__(self, qpu: JobQpu, cache: JobCache) -> None:
        super().__init__(JobParameters(qpu))
        self._qpu = qpu
        self._cache = cache
        self._looked = False

    def __deepcopy__(self, _memo: object) -> JobClient:
        """Return a new client: a backend's copy starts empty, and reads from the cache."""
        return JobClient(self._qpu, self._cache)

    def backend_configuration(
        self,
        backend_name: str,
        refresh: bool = False,  # noqa: FBT001, FBT002 - as super's
        calibration_id: str | None = None,
    ) -> Any:  # noqa: ANN401 - JSON
        """Read the QPU's configuration."""
        if calibration_id is not None:
            return super().backend_configuration(backend_name, refresh, calibration_id)
        text = None if refresh else self._cache.read(_CONFIGURATION)
        if text is None:
            text = self._keep(_CONFIGURATION, super().backend_configuration(backend_name, refresh=refresh))
        # Decoded each time, since the caller modifies it.
        return json.loads(text)

    def backend_properties(
        self, backend_name: str, datetime: datetime | None = None, calibration_id: str | None = None
    ) -> Any:  # noqa: ANN401 - JSON
        """Read the QPU's properties; a backend that asks for them once more wants new ones."""
        if datetime is not None or calibration_id is not None:
            return super().backend_properties(backend_name, datetime, calibration_id)
        text = None if self._looked else self._cache.read(_PROPERTIES)
        self._looked = True
        if text is None:
            text = self._keep(_PROPERTIES, super().backend_properties(backend_name))
        found = json.loads(text)
        # From the text: qiskit-ibm-runtime 0.51 takes a time of any zone for one in UTC.
        saw(backend_name, _update_time(found))
        return found

    def _keep(self, name: str, document: object) -> bytes:
        text = json.dumps(document).encode()
        self._cache.write(name, text)
        return text


class JobBackend(IBMBackend):  # type: ignore[misc]
    """The job's QPU as a Qiskit backend; see `Qpu.backend`.

    Args:
        qpu: The job's QPU.
        service: Its service.
        cache: Where configuration and properties are kept.
        use_fractional_gates: As for `QiskitRuntimeService.backend`.

    Raises:
        IBMInputValueError: The QPU has no fractional gates.
        UnavailableError: The service's configuration of the QPU cannot be read.
    """

    def __init__(
        self,
        qpu: JobQpu,
        service: QiskitRuntimeService,
        cache: JobCache,
        *,
        use_fractional_gates: bool | None,
    ) -> None:
        client = JobClient(qpu, cache)
        raw = client.backend_configuration(qpu.backend)
        configuration = configuration_from_server_data(
            raw, instance=qpu.instance, use_fractional_gates=use_fractional_gates
        )
        if configuration is None:
            raise UnavailableError(f"The configuration of {qpu.backend} cannot be understood.")
        if use_fractional_gates and not _FRACTIONAL & set(configuration.basis_gates):
            raise IBMInputValueError(
                f"Backend '{qpu.backend}' does not support fractional gates, "
                "but use_fractional_gates was set to True."
            )
        super().__init__(
            configuration=configuration, service=service, api_client=client, instance=qpu.instance
        )
        self.options.use_fractional_gates = use_fractional_gates

    def refresh(self) -> None:
        """Fetch configuration and properties again, for the job's later steps, too."""
        self._api_client.backend_configuration(self.name, refresh=True)
        super().refresh()


def _update_time(properties: dict[str, Any]) -> datetime | None:
    """Return when a QPU was calibrated; None where its properties do not give a time."""
    try:
        found = datetime.fromisoformat(properties["last_update_date"])
    except (KeyError, TypeError, ValueError):
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)
