# SPDX-License-Identifier: Apache-2.0
"""The packages, built once for all tests of a release: an older and a newer version of them."""

from __future__ import annotations

import os
from pathlib import Path  # noqa: TC003 - Debs is made of them
from typing import NamedTuple

import pytest

from tests.packages.root import CHECKOUT, chroot, output_of, path_of

BUILD = "apt-get -q update && apt-get -q -y --no-install-recommends install make >/dev/null && make deb"


class Debs(NamedTuple):
    """Packages for one release of Debian.

    Attributes:
        release: Its name.
        older: The packages of the commit.
        newer: The same, as of a second later: what an upgrade is made with.
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
    both = [build(release, when, tmp_path_factory.mktemp(f"{release}-{when}")) for when in (time, time + 1)]
    return Debs(release, *both)


def build(release: str, time: int, directory: Path) -> list[Path]:
    """Build the packages as of a time; return them in a directory of theirs."""
    chroot(release, "/bin/sh", "-ec", BUILD, timeout=1200, SOURCE_DATE_EPOCH=str(time))
    found = []
    for path in sorted((path_of(release) / "usr/src/qpu_slurm/dist").glob("*.deb")):
        found.append(directory / path.name)
        found[-1].write_bytes(path.read_bytes())
    return found
