# SPDX-License-Identifier: Apache-2.0
"""The packages for RPM: rpmlint likes them, they are complete, and unpacked in a root the commands start."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.packages.root import CHECKOUT, Root, output_of, with_slurm


@pytest.fixture(scope="module")
def rpms() -> dict[str, Path]:
    """Build the packages on this machine; return them by name."""
    subprocess.run([str(CHECKOUT / "packages/rpm")], check=True, timeout=1200)
    version = output_of(str(CHECKOUT / "packages/version"), "rpm")
    found = (CHECKOUT / "dist").glob(f"*-{version}-*.rpm")
    return {output_of("/usr/bin/rpm", "-qp", "--qf", "%{NAME}", str(path)): path for path in found}


def query(package: Path, what: str) -> set[str]:
    return set(output_of("/usr/bin/rpm", "-qp", what, str(package)).splitlines())


def test_they_name_what_they_need(rpms: dict[str, Path]) -> None:
    assert set(rpms) == {"qpu-slurm", "qpu-slurm-gateway", "slurm-spank-qpu"}
    header = Path("/usr/include/slurm/slurm_version.h").read_text()
    number = int(header.split("SLURM_VERSION_NUMBER 0x", 1)[1][:6], 16)
    release = f"{number >> 16}.{number >> 8 & 255:02}"
    plugin = rpms["slurm-spank-qpu"]
    assert f"slurm >= {release}" in query(plugin, "--requires")
    assert any(line.startswith(f"slurm-spank-qpu-for-{release} = ") for line in query(plugin, "--provides"))
    assert any(line.startswith("python(abi) = 3.") for line in query(rpms["qpu-slurm"], "--requires"))
    assert query(rpms["qpu-slurm-gateway"], "--configfiles") == {
        "/etc/qpu_slurm/config.toml",
        "/etc/logrotate.d/qpu_slurm",
    }


def test_the_commands_start_where_they_are_unpacked(rpms: dict[str, Path], tmp_path: Path) -> None:
    install = ["/usr/bin/rpm", "--root", str(tmp_path), "--install", "--nodeps", "--noscripts"]
    subprocess.run([*install, "--nosignature", *map(str, rpms.values())], check=True, timeout=300)
    pack = ["/usr/bin/tar", "-c", "-C", str(tmp_path), "etc", "opt", "usr"]
    unpack = ["/usr/bin/tar", "-x", "-C", "/", "--keep-directory-symlink"]
    with Root(with_slurm("bookworm")) as root, subprocess.Popen(pack, stdout=subprocess.PIPE) as packed:
        subprocess.run(root.argv(unpack), stdin=packed.stdout, check=True, timeout=300)
        assert root.run("/usr/bin/task_runner", "--version").startswith("task_runner (qpu_slurm) ")
        assert "usage: qpu-slurm gateway" in root.run("/usr/bin/qpu-slurm", "gateway", "--help")
        root.run("/usr/bin/man", "--where", "qpu-slurm-gateway")
        root.run("/usr/bin/systemd-sysusers", "qpu_slurm.conf")
