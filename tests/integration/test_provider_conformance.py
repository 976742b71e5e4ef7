# SPDX-License-Identifier: Apache-2.0
"""The provider of the IBM Quantum Compute Service does what every provider has to do."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from qpu_slurm.providers.base import Access
from qpu_slurm.providers.ibm import Patience, QuantumComputeService
from qpu_slurm.system.deadline import NEVER, Deadline
from qpu_slurm.system.secret import Secret
from qpu_slurm_devkit.emulator import Drop, Fault
from tests.integration.emulated_service import EmulatedService
from tests.provider_conformance import (
    NetworkConformance,
    QpuConformance,
    SessionConformance,
    SessionNetworkConformance,
    TaskConformance,
)

if TYPE_CHECKING:
    from qpu_slurm.providers.base import Provider
    from qpu_slurm_devkit.emulator import Emulator

PATIENCE = Patience(settle=0.2)
"""An answer that was lost is looked up soon: the emulator lists at once what it has."""


class IbmService(EmulatedService):
    """The API in the cloud."""

    def connect(self, backend: str) -> Provider:
        return QuantumComputeService(self._access(backend), patience=PATIENCE)

    def reach(self, *, key: str | None = None, deadline: Deadline = NEVER) -> Provider:
        return QuantumComputeService(self._access(self.backend, key), patience=PATIENCE, deadline=deadline)

    def lose_answer_to_session(self) -> None:
        self.emulator.inject(Fault(method="POST", path="/sessions", drop=Drop.AFTER))

    def lose_answer_to_task(self) -> None:
        self.emulator.inject(Fault(method="POST", path="/jobs", drop=Drop.AFTER))

    def _access(self, backend: str, key: str | None = None) -> Access:
        account = self.emulator.accounts[0]
        return Access(
            type="ibm-quantum-compute-service",
            backend=backend,
            endpoint=f"{self.emulator.url}/api/v1",
            iam_endpoint=self.emulator.url,
            instance=account.crn,
            api_key=Secret(key or account.api_key),
        )


@pytest.fixture
def service(emulator: Emulator, bell: str) -> IbmService:
    return IbmService(emulator, bell)


class TestQpu(QpuConformance):
    pass


class TestSessions(SessionConformance):
    pass


class TestTasks(TaskConformance):
    pass


class TestNetwork(NetworkConformance):
    pass


class TestSessionNetwork(SessionNetworkConformance):
    pass
