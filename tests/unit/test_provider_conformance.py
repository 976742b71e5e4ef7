# SPDX-License-Identifier: Apache-2.0
"""The provider that the broker's tests use does what every provider has to do."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.provider_conformance import QpuConformance, SessionConformance, TaskConformance
from tests.unit import memory_service

if TYPE_CHECKING:
    from qpu_slurm.providers.base import Provider


class MemoryService:
    """The service in memory, of which nothing gets lost."""

    backend = "ibm_fez"
    other = "ibm_torino"
    program_id = "sampler"
    parameters = b'{"pubs": []}'
    bad_parameters = b"no JSON"

    def __init__(self) -> None:
        self._service = memory_service.Service()

    def connect(self, backend: str) -> Provider:
        return memory_service.OneQpu(self._service, backend)

    def pause(self, reason: str) -> None:
        self._service.offline[self.backend] = reason


@pytest.fixture
def service() -> MemoryService:
    return MemoryService()


class TestQpu(QpuConformance):
    pass


class TestSessions(SessionConformance):
    pass


class TestTasks(TaskConformance):
    pass
