# SPDX-License-Identifier: Apache-2.0
"""The packages, built once for all tests of a release: of this commit, and of the one before."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path  # noqa: TC003 - Debs is made of them
from typing import NamedTuple

import pytest

from tests.packages.root import CHECKOUT, chroot, output_of, path_of

BUILD = "apt-get -q update && apt-get -q -y --no-install-recommends install make >/dev/null && make deb"


class Debs(NamedTuple):
    """Packages for one release of Debian.

    Attributes:
        release: Its name.
        older: The packages of the commit before this one.
        newer: The packages of this checkout, which an upgrade is made with.
    """

    release: str
    older: list[Path]
    newer: list[Path]


@pytest.fixture(scope="session", params=["bookworm", "trixie"])
def debs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Debs:
    """Build the packages in a chroot of the release, which lintian has to like."""
    if os.geteuid() != 0:
        pytest.fail("The packages are tested in chroots, which takes root.")
    release = request.param
    time = int(output_of(str(CHECKOUT / "packages/version"), "--time"))
    before = tmp_path_factory.mktemp("before")
    archive = ["/usr/bin/git", "-C", str(CHECKOUT), "archive", "--format=tar", "HEAD~1"]
    with subprocess.Popen(archive, stdout=subprocess.PIPE) as packed:
        unpack = ["/usr/bin/tar", "-x", "-C", str(before)]
        subprocess.run(unpack, stdin=packed.stdout, check=True, timeout=60)
    older = build(before, release, time - 1, tmp_path_factory.mktemp(f"{release}-older"))
    return Debs(release, older, build(CHECKOUT, release, time, tmp_path_factory.mktemp(f"{release}-newer")))


def build(checkout: Path, release: str, time: int, directory: Path) -> list[Path]:
    """Build the packages of a checkout as of a time; return them in a directory of theirs."""
    chroot(release, "/bin/sh", "-ec", BUILD, timeout=1800, checkout=checkout, SOURCE_DATE_EPOCH=str(time))
    found = []
    for path in sorted((path_of(release) / "usr/src/qpu_slurm/dist").glob("*.deb")):
        found.append(directory / path.name)
        found[-1].write_bytes(path.read_bytes())
    return found
