# SPDX-License-Identifier: Apache-2.0
"""The code that speaks to quantum services."""

from __future__ import annotations

import threading
import time
from functools import cache
from typing import TYPE_CHECKING

from qpu_slurm.errors import ConfigError
from qpu_slurm.system import structs
from qpu_slurm.system.deadline import NEVER, Deadline

if TYPE_CHECKING:
    from qpu_slurm.providers.base import Access, Account, Provider

_IBM_TYPES = ("ibm-quantum-compute-service", "qiskit-runtime-service")
_IBM_SYSTEM = "ibm-quantum-system"
_IQM = "iqm-server"

_KEPT_SECONDS = 900.0
_KEPT = 100


def connect(access: Access, *, deadline: Deadline = NEVER, beside: Provider | None = None) -> Provider:
    """Return the provider of one QPU. Nothing is asked of the service yet.

    Args:
        access: How the QPU is reached.
        deadline: When everything that is asked of the provider gives up at the latest; by default,
            every single call is as patient as it is by itself.
        beside: Another one of the same account: they share its token and its connections.

    Raises:
        ConfigError: There is no provider for such a resource.
    """
    provider = _provider(access, deadline, beside)
    if threading.active_count() > 1:
        _prepare(access.type)
    return provider


@cache
def _prepare(type_: str) -> None:
    """Prepare the structures of the modules that a kind of service was the first to load."""
    del type_
    structs.prepare()


def _provider(access: Access, deadline: Deadline, beside: Provider | None) -> Provider:
    if access.type in _IBM_TYPES:
        # Here, since it brings requests along, which a job that asks for no QPU has no use for.
        from qpu_slurm.providers.ibm import QuantumComputeService  # noqa: PLC0415

        other = beside if isinstance(beside, QuantumComputeService) else None
        return QuantumComputeService(access, deadline=deadline, beside=other)
    if access.type == _IBM_SYSTEM:
        return _quantum_system(access, deadline, beside)
    if access.type == _IQM:
        return _iqm_server(access, deadline, beside)
    raise ConfigError(f"{access.backend}: there is no provider for the resource type {access.type!r}.")


def _quantum_system(access: Access, deadline: Deadline, beside: Provider | None) -> Provider:
    try:
        from qpu_slurm.providers.ibm_system.access import SystemAccess  # noqa: PLC0415 - likewise
        from qpu_slurm.providers.ibm_system.service import QuantumSystem  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise ConfigError(
            f'{access.backend}: the type "{access.type}" needs {error.name}. '
            "Run `pip install 'qpu_slurm[ibm-system]'` on the gateway's host."
        ) from None
    if not isinstance(access, SystemAccess):
        raise ConfigError(f"{access.backend}: its storage is not known.")
    other = beside if isinstance(beside, QuantumSystem) else None
    return QuantumSystem(access, deadline=deadline, beside=other)


def _iqm_server(access: Access, deadline: Deadline, beside: Provider | None) -> Provider:
    from qpu_slurm.providers.iqm.access import IqmAccess  # noqa: PLC0415 - likewise
    from qpu_slurm.providers.iqm.service import IqmServer  # noqa: PLC0415

    if not isinstance(access, IqmAccess):
        raise ConfigError(f"{access.backend}: its ledger is not known.")
    return IqmServer(access, deadline=deadline, beside=beside if isinstance(beside, IqmServer) else None)


class Connections:
    """What a process that lives long keeps of the accounts that it has to do with: tokens and connections.

    A job waits for its session, and a session for its end, without that of the others' token and handshakes.
    An account that nobody has asked for in 15 minutes is forgotten. Threads may share it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: dict[Account, tuple[Provider, float]] = {}

    def connect(self, access: Access, *, deadline: Deadline = NEVER) -> Provider:
        """Return the provider of one QPU; see `connect`."""
        account, now = access.account, time.monotonic()
        with self._lock:
            first, _ = self._kept.pop(account, (None, now))
            provider = connect(access, deadline=deadline, beside=first)
            # The last that was asked for is the last in it.
            self._kept[account] = (first or provider, now)
            for other, (_, asked) in list(self._kept.items()):
                if len(self._kept) <= _KEPT and now - asked <= _KEPT_SECONDS:
                    break
                del self._kept[other]
            return provider
