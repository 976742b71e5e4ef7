# SPDX-License-Identifier: Apache-2.0
"""Debian's packages on a bare root with a plain Slurm: install, upgrade beneath a job, remove, purge."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from tests.packages.root import Root, with_slurm
from tests.packages.site import Site, result, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.packages.conftest import Debs

PACKAGES = ("qpu-slurm", "qpu-slurm-gateway", "slurm-spank-qpu")


@pytest.fixture
def root(debs: Debs) -> Iterator[Root]:
    with Root(with_slurm(debs.release)) as root:
        yield root


def install(root: Root, packages: list[Path]) -> None:
    """Install packages; there is no network."""
    places = []
    for package in packages:
        places.append(f"/var/tmp/{package.name}")  # noqa: S108 - the root's
        shutil.copy(package, root.file(places[-1]))
    root.run("/usr/bin/apt-get", "-q", "-y", "install", *places)


def left(root: Root) -> set[str]:
    """Return what there is of ours."""
    found = root.run("/usr/bin/find", "/", "-xdev", "-name", "*qpu*")
    others = ("/shared/", "/usr/src/", "/var/lib/dpkg/", "/var/lib/qpu_slurm/", "/var/tmp/")  # noqa: S108 - the root's
    return {path for path in found.splitlines() if not path.startswith(others)} - {
        "/var/log/qpu-slurm.printed"
    }


def test_jobs_run_and_survive_an_upgrade_and_the_packages_leave_no_trace(debs: Debs, root: Root) -> None:
    before = left(root)
    install(root, debs.older)
    assert "qpu_slurm.conf" in root.run("/usr/bin/man", "--where", "5", "qpu_slurm.conf")
    assert not root.try_to("/usr/bin/test", "-d", "/var/lib/qpu_slurm").returncode
    site = Site(root, task_seconds=8)
    site.start()

    # A job of the guide.
    script = ["task_runner ibm_fez input.json result-$SLURM_JOB_ID.json"]
    first = site.submit("--qpu=ibm_fez", "--gres=qpu:1", script=script)
    assert site.wait(first) == "COMPLETED", site.output(first)
    assert "results" in result(root.file(f"/shared/result-{first}.json"))
    assert site.leases() == []
    checked = root.run("/usr/bin/qpu-slurm", "check", user="slurm")
    assert "problem" not in checked

    # Its packages are replaced while its task runs.
    job = site.submit("--qpu=ibm_fez", script=["echo go >started", *script, "qpu-slurm qpus"])
    until(lambda: root.file("/shared/started").exists() and bool(site.leases()))
    install(root, debs.newer)
    site.restart_gateway()
    assert site.wait(job) == "COMPLETED", site.output(job)
    assert "results" in result(root.file(f"/shared/result-{job}.json"))
    until(lambda: site.leases() == [])
    after = site.submit("--qpu=ibm_fez", script=script)
    assert site.wait(after) == "COMPLETED", site.output(after)

    # Without its hooks no job could start: they are removed from slurm.conf first.
    refused = root.try_to("/usr/bin/apt-get", "-q", "-y", "remove", "qpu-slurm")
    assert refused.returncode
    assert "slurm.conf still names its hooks" in refused.stdout + refused.stderr
    assert root.file("/usr/libexec/qpu_slurm/prolog.sh").exists()
    site.forget_hooks()
    site.restart_slurmctld()
    plain = site.submit(script=["echo go >plain", "sleep 8", "echo done"])
    until(root.file("/shared/plain").exists)
    # The plugin first: without the commands it would fail the jobs that may have a QPU.
    root.run("/usr/bin/apt-get", "-q", "-y", "remove", "slurm-spank-qpu")
    root.run("/usr/bin/apt-get", "-q", "-y", "remove", "qpu-slurm", "qpu-slurm-gateway")
    assert site.wait(plain) == "COMPLETED", site.output(plain)
    another = site.submit(script=["echo done"])
    assert site.wait(another) == "COMPLETED", site.output(another)

    assert root.file("/etc/qpu_slurm/config.toml").exists()
    root.file("/etc/qpu_slurm/ibm.key").unlink()
    purged = root.try_to("/usr/bin/dpkg", "--purge", *PACKAGES)
    assert purged.returncode == 0, purged.stderr
    assert "the journal of all leases stays in /var/lib/qpu_slurm" in purged.stderr
    assert left(root) - before == {"/var/lib/qpu_slurm"}


def test_an_environment_that_was_made_by_hand_is_not_mixed_with_ours(debs: Debs, root: Root) -> None:
    root.run("/usr/bin/install", "-D", "/dev/null", "/opt/qpu_slurm/pyvenv.cfg")
    for package in debs.older:
        shutil.copy(package, root.file(f"/var/tmp/{package.name}"))  # noqa: S108 - the root's
    done = root.try_to("/bin/sh", "-c", "apt-get -q -y install /var/tmp/qpu-slurm_*.deb")
    assert done.returncode
    assert "Move it away" in done.stdout + done.stderr


def test_the_plugin_goes_with_its_release_of_slurm_only(debs: Debs, root: Root) -> None:
    [plugin] = [package for package in debs.older if package.name.startswith("slurm-spank-qpu")]
    shutil.copy(plugin, root.file("/var/tmp/plugin.deb"))  # noqa: S108 - the root's
    field = ["/usr/bin/dpkg-deb", "-f", "/var/tmp/plugin.deb"]  # noqa: S108 - likewise
    release = ".".join(root.run("/usr/sbin/slurmd", "-V").split()[1].split(".")[:2])
    assert root.run(*field, "Provides").strip() == f"slurm-spank-qpu-for-{release}"
    assert f"slurm-wlm-basic-plugins (>= {release}), slurm-wlm-basic-plugins (<< " in root.run(
        *field, "Depends"
    )


def test_the_commands_go_with_their_release_of_python_only(debs: Debs, root: Root) -> None:
    [commands] = [package for package in debs.older if package.name.startswith("qpu-slurm_")]
    shutil.copy(commands, root.file("/var/tmp/commands.deb"))  # noqa: S108 - the root's
    needs = root.run("/usr/bin/dpkg-deb", "-f", "/var/tmp/commands.deb", "Depends")  # noqa: S108 - likewise
    minor = int(root.run("/usr/bin/python3", "-c", "import sys; print(sys.version_info.minor)"))
    assert f"python3 (>= 3.{minor}), python3 (<< 3.{minor + 1})" in needs
