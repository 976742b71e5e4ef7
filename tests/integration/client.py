# SPDX-License-Identifier: Apache-2.0
"""The client in C (plugin/client), installed as an admin does, for tests."""

from __future__ import annotations

import itertools
import os
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tests.integration.gateway_site import PROGRAM, SECONDS, USER
from tests.integration.squeue import Squeue

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tests.integration.gateway_site import Site

PLUGIN = Path(__file__).parents[2] / "plugin"

OWNER = USER if os.geteuid() == 0 else os.geteuid()
"""Who asks: root becomes the job's user, everybody else can only be himself."""

_NUMBERS = itertools.count(70_001)

_SCONTROL = """#!/bin/sh
printf '%s\\n' "$*" >>{directory}/told
"""


def make(build: Path, *arguments: str) -> None:
    """Run the plugin's Makefile, which writes nothing beside the sources."""
    subprocess.run(
        ["/usr/bin/make", "--silent", f"BUILD={build}", *arguments], cwd=PLUGIN, check=True, timeout=240
    )


class Client:
    """The client on a host with a gateway.

    Args:
        build: Where it is built.
        site: The host; its Slurm is played, and writes down what it is told.
        directory: Where it is installed.
        program: The Python command; by default the real one.
        url: Where it finds the gateway; by default where it is.

    Attributes:
        job: A job that Slurm knows.
    """

    def __init__(
        self, build: Path, site: Site, directory: Path, *, program: Path = PROGRAM, url: str = ""
    ) -> None:
        self.site = site
        self.job = next(_NUMBERS)
        Squeue(site.directory).lists(self.job, user_id=OWNER)
        self.directory = directory
        directory.chmod(0o755)
        self.config = directory / "config.toml"
        # Without the QPU that takes a user's own key: for that, the client is not made.
        text, _, _ = site.path.read_text().rpartition("[[qpu]]")
        assert site.config.gateway is not None
        own = site.config.gateway.url
        text = text.replace(f'url = "{own}"', f'url = "{url or own}"')
        self.config.write_text(text)
        scontrol = site.directory / "scontrol"
        scontrol.write_text(_SCONTROL.format(directory=site.directory))
        scontrol.chmod(0o755)
        (site.directory / "told").unlink(missing_ok=True)
        make(
            build,
            "install-client",
            f"HOOKDIR={directory}",
            f"QPU_SLURM={program}",
            f"CONFIG={self.config}",
            f"SCONTROL={scontrol}",
        )

    @property
    def told(self) -> str:
        """What Slurm was told."""
        path = self.site.directory / "told"
        return path.read_text() if path.exists() else ""

    def hook(self, name: str, **environ: str) -> int:
        """Run a hook of slurm.conf; return its exit code."""
        variables = {
            "SLURM_JOB_ID": str(self.job),
            "SLURM_JOB_UID": str(OWNER),
            "SLURM_JOB_PARTITION": "normal",
            "SPANK_QPU_SLURM_QPU": "ibm_fez",
        }
        done = subprocess.run(
            [self.directory / f"{name}.sh"], env=variables | environ, timeout=SECONDS, check=False
        )
        return done.returncode

    def helper(self, *arguments: str, env: Mapping[str, str] | None = None) -> tuple[int, str]:
        """Run what the plugin runs; return its exit code, and what it printed."""
        done = subprocess.run(
            [self.directory / "helper", "--config", self.config, *arguments],
            env=dict(env or {}),
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        return done.returncode, done.stdout

    def job_env(self, *arguments: str, job_id: int = 0) -> tuple[int, str]:
        """Ask for a job's variables as its user."""
        return self.helper("job-env", str(job_id or self.job), "--user", str(OWNER), *arguments)

    def python(self, *arguments: str) -> tuple[int, str]:
        """Ask for them with the Python command."""
        done = subprocess.run(
            [PROGRAM, "--config", self.config, "job-env", str(self.job), "--user", str(OWNER), *arguments],
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        return done.returncode, done.stdout


def until(true: Callable[[], object]) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + SECONDS
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)
