# SPDX-License-Identifier: Apache-2.0
"""`check --node` as Slurm's HealthCheckProgram: it reports, and no node is drained for it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from qpu_slurm_devkit.cluster import Node
from qpu_slurm_devkit.lab import Lab
from tests.cluster.conftest import CHECKOUT, check_nothing_left

if TYPE_CHECKING:
    from collections.abc import Iterator

SCRIPT = CHECKOUT / "contrib" / "slurm" / "health_check.sh"

INTERVAL = 2


class Site:
    """A lab whose node runs the script.

    Attributes:
        lab: The lab.
        log: What the node logged.
    """

    def __init__(self, directory: Path) -> None:
        self.log = directory / "log"
        # As logger(1): this machine's log is not the test's.
        logger, self._script = directory / "logger", directory / "health_check.sh"
        _write(logger, f'#!/bin/sh\nsed "s/^/$4 /" >>{self.log}\n')
        settings = {"HealthCheckProgram": str(self._script), "HealthCheckInterval": str(INTERVAL)}
        self.lab = Lab(CHECKOUT, nodes=[Node("c1", "normal")], settings=settings)
        # The command and its configuration, as on this host.
        text = SCRIPT.read_text().replace("/usr/bin/logger", str(logger))
        text = text.replace("/opt/qpu_slurm/bin/qpu-slurm", str(self.lab.bin / "qpu-slurm"))
        _write(self._script, text.replace("check --node", f"--config {self.lab.config} check --node"))

    def begin(self) -> int:
        """Return how much is logged so far."""
        return len(self.log.read_text()) if self.log.exists() else 0

    def wait_for(self, text: str) -> None:
        """Wait until the node has logged a text."""
        deadline = time.monotonic() + 90
        while text not in (self.log.read_text() if self.log.exists() else ""):
            assert time.monotonic() < deadline, self.log.read_text() if self.log.exists() else "no log"
            time.sleep(0.1)


def _write(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    directory = tmp_path_factory.mktemp("health")
    for path in (directory, *directory.parents[:2]):
        path.chmod(path.stat().st_mode | 0o055)
    site = Site(directory)
    with site.lab:
        yield site
        check_nothing_left(site.lab)


def test_a_node_that_lacks_the_gateway_reports_it_and_goes_on(site: Site) -> None:
    lab = site.lab
    assert lab.gateway is not None
    lab.gateway.stop()
    site.wait_for("daemon.err problem gateway: ")
    assert lab.cluster.node_states() == {"c1": "idle"}
    # Jobs without a QPU run there all the same.
    job = lab.submit("#!/bin/sh\nhostname\n")
    assert lab.wait(job) == "COMPLETED"
    lab.gateway.start()
    # Two checks that find nothing log nothing. One may have begun before the gateway did.
    time.sleep(2 * INTERVAL)
    before = site.begin()
    time.sleep(3 * INTERVAL)
    assert "problem" not in site.log.read_text()[before:]


def test_a_node_without_the_command_reports_it_and_goes_on(site: Site) -> None:
    script = Path(site.lab.cluster.settings["HealthCheckProgram"])
    text = script.read_text()
    replaced = script.with_name("next")
    _write(replaced, text.replace(str(site.lab.bin / "qpu-slurm"), "/opt/missing/bin/qpu-slurm"))
    replaced.replace(script)
    try:
        site.wait_for("/opt/missing/bin/qpu-slurm")
        assert site.lab.cluster.node_states() == {"c1": "idle"}
    finally:
        _write(replaced, text)
        replaced.replace(script)
