# SPDX-License-Identifier: Apache-2.0
"""The unmodified iqm-client, with its Qiskit backend, on the emulator's IQM Server and through the gateway.

iqm-client pins a Qiskit of its own, so each release has an environment of its own; see `releases`.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.clients.releases import IQM
from tests.clients.test_clients import WANTED, run

if TYPE_CHECKING:
    from pathlib import Path

    from qpu_slurm_devkit.emulator import Emulator
    from tests.clients.releases import Release
    from tests.integration.gateway_site import Site

pytestmark = pytest.mark.timeout(900)  # the first test of a release makes its environment

PRINTS = "101 200 DONE"


@pytest.mark.parametrize("release", [release for release in IQM if release in WANTED], ids=str)
def test_a_program_of_iqm_client_runs_on_the_emulator(
    release: Release, emulator: Emulator, tmp_path: Path
) -> None:
    environ = {"PATH": os.defpath, **emulator.iqm_environ("spark")}
    returned, printed, said = run(release, "iqm_backend", environ, tmp_path)
    assert (returned, printed) == (0, PRINTS), said
    assert [task.backend for task in emulator.tasks()] == ["spark"]


@pytest.mark.parametrize("release", [release for release in IQM if release in WANTED], ids=str)
def test_a_program_of_iqm_client_runs_in_a_job(
    release: Release, site: Site, emulator: Emulator, tmp_path: Path
) -> None:
    with site.job(site.acquire("iqm_small")) as job:
        returned, printed, said = run(release, "iqm_backend", job.environ, tmp_path)
        assert (returned, printed) == (0, PRINTS), said
        assert [task.tags for task in emulator.tasks()] == [(job.session_id,)]
