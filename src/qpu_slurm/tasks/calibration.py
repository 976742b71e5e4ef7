# SPDX-License-Identifier: Apache-2.0
"""Whether a QPU is the one that an input was transpiled for, and still as it was then.

A circuit that was laid out for yesterday's calibration runs today as well, only worse, and nobody is told. So
inputs say what they were transpiled for, and when one is submitted, the calibration is looked at, while there
is nothing to do but wait for the QPU. It is a warning: it costs no task, and no error comes of it.

What was transpiled for another QPU may not fit at all. An input names the qubits and the operations that its
circuits need, so this is found before anything is submitted, and without Qiskit.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Final

from qpu_slurm.errors import PayloadError, ServiceError
from qpu_slurm.tasks.checks import TranspiledFor

if TYPE_CHECKING:
    from qiskit.providers import BackendV2

    from qpu_slurm.providers.base import Device, Provider

_log = logging.getLogger(__name__)


_seen: Final[dict[str, TranspiledFor]] = {}
"""The calibrations that this program's transpiler was told, by QPU."""


def saw(backend: str, calibrated_at: datetime | None) -> None:
    """Note how this program knows a QPU, which is what it will transpile for.

    Args:
        backend: The service's name of the QPU.
        calibrated_at: When the QPU was calibrated; None if that is unknown.
    """
    if calibrated_at is not None:
        _seen[backend] = TranspiledFor(backend, calibrated_at.astimezone(UTC))


def seen() -> TranspiledFor | None:
    """Say what this program's circuits were transpiled for; None if that may be several QPUs, or none."""
    return next(iter(_seen.values())) if len(_seen) == 1 else None


def of_backend(backend: BackendV2) -> TranspiledFor | None:
    """Say when a Qiskit backend's QPU was calibrated; None if it does not know."""
    properties = getattr(backend, "properties", lambda: None)()
    at = getattr(properties, "last_update_date", None)
    return TranspiledFor(backend.name, at.astimezone(UTC)) if isinstance(at, datetime) else None


class Calibration:
    """Compares a QPU with what inputs were transpiled for; each question is asked once.

    Args:
        provider: The QPU's service.
        backend: The service's name of the QPU.
    """

    def __init__(self, provider: Provider, backend: str) -> None:
        self._provider = provider
        self._backend = backend

    @cached_property
    def _now(self) -> datetime | None:
        try:
            return self._provider.calibrated_at()
        except ServiceError as error:
            _log.debug("The calibration of %s is not known: %s", self._backend, error)
            return None

    @cached_property
    def _device(self) -> Device | None:
        try:
            return self._provider.device()
        except ServiceError as error:
            _log.debug("The configuration of %s is not known: %s", self._backend, error)
            return None

    def misfit(self, made_for: TranspiledFor | None, device: Device | None = None) -> str | None:
        """Say why an input that was transpiled for another QPU cannot run on this one.

        Args:
            made_for: What it says it was transpiled for.
            device: This QPU, if it is known already; None asks the service.

        Returns:
            A sentence's end; None if it may fit, or was transpiled for this QPU, or does not say enough.
        """
        if made_for is None or made_for.backend == self._backend:
            return None
        if made_for.qubits is None and not made_for.gates:
            return None
        device = device or self._device
        if device is None:
            return None
        why = []
        if made_for.qubits is not None and made_for.qubits > device.qubits:
            why.append(f"has circuits of {made_for.qubits} qubits, where {self._backend} has {device.qubits}")
        if lacking := device.lacks(made_for.gates):
            why.append(f"uses {', '.join(lacking)}, which {self._backend} has not")
        if not why:
            return None
        what = " and ".join(why)
        return f"it was transpiled for {made_for.backend}, and {what}: transpile it for {self._backend}"

    def refuse_misfit(self, source: str, made_for: TranspiledFor | None, remedy: str) -> None:
        """Refuse an input that was transpiled for another QPU and cannot run on this one.

        Args:
            source: What to call the input.
            made_for: What it says it was transpiled for.
            remedy: How its user insists.

        Raises:
            PayloadError: It cannot.
        """
        if why := self.misfit(made_for):
            raise PayloadError(f"{source}: {why}. {remedy}")

    def compare(self, source: str, made_for: TranspiledFor) -> None:
        """Warn if an input was transpiled for another QPU, or for an older calibration.

        Args:
            source: What to call the input.
            made_for: What it says it was transpiled for.
        """
        if made_for.backend != self._backend:
            _log.warning(
                "%s was transpiled for %s, and is executed on %s: transpile it for %s.",
                source,
                made_for.backend,
                self._backend,
                self._backend,
            )
            return
        if self._now is not None and self._now > made_for.calibrated_at:
            _log.warning(
                "%s has been calibrated again, at %s, since %s was transpiled for it: transpile it again.",
                self._backend,
                self._now.strftime("%Y-%m-%d %H:%M UTC"),
                source,
            )
