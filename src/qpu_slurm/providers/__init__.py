# SPDX-License-Identifier: Apache-2.0
"""The code that speaks to quantum services."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qpu_slurm.errors import ConfigError

if TYPE_CHECKING:
    from qpu_slurm.providers.base import Access, Provider

_IBM_TYPES = ("ibm-quantum-compute-service", "qiskit-runtime-service")


def connect(access: Access, *, deadline: float | None = None) -> Provider:
    """Return the provider of one QPU. Nothing is asked of the service yet.

    Args:
        access: How the QPU is reached.
        deadline: When everything that is asked of the provider gives up at the latest, on the monotonic
            clock; None lets every single call be as patient as it is by itself.

    Raises:
        ConfigError: There is no provider for such a resource.
    """
    if access.type in _IBM_TYPES:
        # Here, since it brings requests along, which a job that asks for no QPU has no use for.
        from qpu_slurm.providers.ibm import QuantumComputeService  # noqa: PLC0415

        return QuantumComputeService(access, deadline=deadline)
    raise ConfigError(f"{access.backend}: there is no provider for the resource type {access.type!r}.")
