# SPDX-License-Identifier: Apache-2.0
"""Fixtures of a broker whose service is in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from qpu_slurm.journal.journal import Journal
from qpu_slurm.leases.broker import Broker
from tests.unit.memory_service import Service, configure

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from qpu_slurm.config import Config


@pytest.fixture
def service() -> Service:
    return Service()


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return configure(tmp_path)


@pytest.fixture
def journal(config: Config) -> Iterator[Journal]:
    with Journal(config.journal) as journal:
        yield journal


@pytest.fixture
def broker(config: Config, journal: Journal, service: Service) -> Broker:
    return Broker(config, journal, service.connect, settle=0)
