# SPDX-License-Identifier: Apache-2.0
"""Nodes that lack the plugin, or have one of another release of Slurm, as in a roll-out or an upgrade."""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from qpu_slurm_devkit.lab import Lab
from tests.cluster.conftest import CHECKOUT, check_nothing_left

if TYPE_CHECKING:
    from collections.abc import Iterator

STUB = """\
#include <stdint.h>
const char plugin_name[] = "qpu_slurm";
const char plugin_type[] = "spank";
const uint32_t plugin_version = 0x150800; /* Slurm 21.08 */
const unsigned int spank_plugin_version = 1;
"""
"""A plugin as another release of Slurm has it: its version is the first thing that is compared."""


class Site:
    """A lab whose submit host has the plugin, and whose nodes may not.

    Attributes:
        lab: The lab.
        plugin: The plugin's file on the nodes.
    """

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        etc = lab.cluster.conf.parent
        (line,) = (etc / "plugstack.conf").read_text().splitlines()
        self.plugin = lab.cluster.directory / line.split()[1]
        good = etc / "qpu_slurm.so"
        shutil.copy(self.plugin, good)
        done = lab.command("plugstack", "--submit", "--plugin", str(good))
        (etc / "plugstack-submit.conf").write_text(done.stdout)
        conf = lab.cluster.conf.read_text()
        (etc / "submit.conf").write_text(f"{conf}\nPlugStackConfig={etc}/plugstack-submit.conf\n")
        self._environ = {"SLURM_CONF": str(etc / "submit.conf")}

    def remove(self) -> None:
        """Have the nodes lack the plugin."""
        self.plugin.unlink()

    def replace(self) -> None:
        """Have the nodes' plugin be one of another release."""
        source = self.plugin.with_name("stub.c")
        source.write_text(STUB)
        subprocess.run(
            ["/usr/bin/cc", "-shared", "-fPIC", "-o", self.plugin, source], check=True, timeout=240
        )

    def run(self, script: str, *options: str) -> tuple[str, str]:
        """Submit a job from the submit host; return how it ended, and its output."""
        on_node = f"export SLURM_CONF={self.lab.cluster.conf}\n"
        header = "".join(f"#SBATCH {option}\n" for option in options)
        job = self.lab.submit(f"#!/bin/bash\n{header}{on_node}{script}", env=self._environ)
        return self.lab.wait(job), self.lab.cluster.output(job)


@pytest.fixture(scope="module")
def shared_site() -> Iterator[Site]:
    with Lab(CHECKOUT) as lab:
        lab.put(CHECKOUT / "contrib" / "seed")
        yield Site(lab)


@pytest.fixture
def site(shared_site: Site) -> Iterator[Site]:
    """Return the site; whatever a test does, no node is drained."""
    shared_site.lab.emulator.reset()
    kept = shared_site.plugin.with_suffix(".kept")
    shutil.copy(shared_site.plugin, kept)
    yield shared_site
    check_nothing_left(shared_site.lab)
    kept.replace(shared_site.plugin)


BROKEN = {"missing": Site.remove, "of another release": Site.replace}


@pytest.mark.parametrize("how", BROKEN.values(), ids=BROKEN)
def test_jobs_without_a_qpu_do_not_notice(site: Site, how: object) -> None:
    assert callable(how)
    how(site)
    assert site.run("srun hostname\nhostname\n")[0] == "COMPLETED"
    assert site.run("srun --nodes=2 hostname\n", "--nodes=2")[0] == "COMPLETED"
    done = site.lab.run(["srun", "echo", "ran"])
    assert (done.returncode, done.stdout) == (0, "ran\n"), done.stderr


@pytest.mark.parametrize("how", BROKEN.values(), ids=BROKEN)
def test_a_job_with_a_qpu_is_told_why_it_has_none(site: Site, how: object) -> None:
    assert callable(how)
    assert site.run("python map_optimize.py\n", "--qpu=ibm_fez")[0] == "COMPLETED"
    how(site)
    state, output = site.run(
        "srun task_runner ibm_fez sampler_input_ibm_fez.json out.json\n", "--qpu=ibm_fez"
    )
    assert state == "FAILED"
    # srun, which loads the plugin as well, says that it could not.
    said = [line for line in output.splitlines() if line.startswith("task_runner: ")]
    assert said[1:] == ["task_runner: nothing was submitted"], output
    assert "--qpu=ibm_fez, but Slurm's plugin qpu_slurm did not run on c1: it is missing there, or" in said[0]
    assert site.lab.emulator.tasks() == []


def test_one_command_checks_all_nodes_of_a_partition(site: Site) -> None:
    """By one srun, which says of each node what is wrong with it, whether it is a QPU's or not."""
    well = site.lab.command("check", "--partition", "normal")
    assert (well.returncode, well.stderr) == (0, "")
    lines = [f"ok      c{number}: is well" for number in range(1, 5)]
    assert well.stdout.splitlines() == lines
    site.remove()
    found = json.loads(site.lab.command("check", "--partition", "normal", "--json").stdout)
    assert [item["about"] for item in found] == [f"c{number}: plugin" for number in range(1, 5)]
    assert {item["diagnosis"] for item in found} == {"plugin missing"}
