# SPDX-License-Identifier: Apache-2.0
"""An emulator and a gateway for all tests of a process, as new for each."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from qpu_slurm_devkit.emulator import Emulator
from tests.integration.gateway_site import BEHIND_IQM, Site

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def shared_site() -> Iterator[Site]:
    with Emulator() as emulator, Site(emulator, qpus=BEHIND_IQM) as site:
        yield site.start()


@pytest.fixture
def site(shared_site: Site) -> Iterator[Site]:
    shared_site.emulator.reset()
    yield shared_site
    shared_site.forget()


@pytest.fixture
def emulator(site: Site) -> Emulator:
    return site.emulator
