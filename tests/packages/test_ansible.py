# SPDX-License-Identifier: Apache-2.0
"""contrib/ansible makes a cluster of what docs/install.md says; a second run finds nothing left to do."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tempfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from tests.packages.cluster import ADDRESSES, Cluster
from tests.packages.guide import blocks_of
from tests.packages.root import CHECKOUT, path_of, with_slurm
from tests.packages.test_guide import GUIDE, a_job_executes_a_task, no_lease_is_left

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.packages.conftest import Debs

LOCK: Final = Path(__file__).with_name("ansible.lock")
ROLE: Final = CHECKOUT / "contrib/ansible"


@pytest.fixture(scope="session")
def ansible() -> Path:
    """Return the programs of an environment with Ansible, which is made once and kept."""
    environment = path_of("any").parents[1] / f"ansible-{zlib.crc32(LOCK.read_bytes())}"
    if not (environment / "complete").exists():
        shutil.rmtree(environment, ignore_errors=True)
        subprocess.run(["/usr/bin/python3", "-m", "venv", str(environment)], check=True, timeout=300)
        pip = [str(environment / "bin/python"), "-m", "pip", "install", "--quiet"]
        subprocess.run([*pip, "--require-hashes", "-r", str(LOCK)], check=True, timeout=600)
        (environment / "complete").touch()
    return environment / "bin"


@pytest.fixture
def work(debs: Debs) -> Iterator[Path]:
    """Return a directory for what the cluster shares, and what the admin has."""
    directory = Path(tempfile.mkdtemp(prefix="shared-", dir=with_slurm(debs.release).parent))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)


class Admin:
    """Who runs Ansible, on a machine outside of the cluster."""

    def __init__(self, programs: Path, cluster: Cluster, directory: Path) -> None:
        self._programs = programs
        self._cluster = cluster
        self._directory = directory
        [configuration] = [
            block.text for block in blocks_of(GUIDE) if block.path == "/etc/qpu_slurm/config.toml"
        ]
        (directory / "config.toml").write_text(cluster.settle(configuration))

    def play(self, packages: list[Path], **settings: object) -> dict[str, dict[str, int]]:
        """Run the playbook; return what it counted on each host, such as what was changed."""
        place = Path(tempfile.mkdtemp(dir=self._directory))
        for package in packages:
            shutil.copy(package, place)
        inventory = self._directory / "inventory.json"
        hosts = self._groups() | {"vars": self._vars(place, settings)}
        inventory.write_text(json.dumps({"qpu_slurm": hosts}))
        argv = [str(self._programs / "ansible-playbook"), "--inventory", str(inventory)]
        argv.append(str(ROLE / "site.yml"))
        environ = {
            "PATH": f"{self._programs}:/usr/bin:/bin",
            "HOME": str(self._directory),
            "ANSIBLE_HOME": str(self._directory / "ansible"),
            "ANSIBLE_HOST_KEY_CHECKING": "false",
            "ANSIBLE_PIPELINING": "true",
            "LANG": "C.UTF-8",
        }
        done = subprocess.run(
            self._cluster.network.argv(argv),
            env=environ,
            cwd=self._directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=1200,
        )
        assert done.returncode == 0, done.stdout
        recap = done.stdout.partition("PLAY RECAP")[2]
        return {
            host: {key: int(value) for key, value in re.findall(r"(\w+)=(\d+)", counts)}
            for host, counts in re.findall(r"^(\w+)\s+: (.*)$", recap, re.MULTILINE)
        }

    def _groups(self) -> dict[str, object]:
        return {
            "hosts": {name: {"ansible_host": address} for name, address in ADDRESSES.items()},
            "children": {
                "qpu_slurm_gateway": {"hosts": {"controller": {}}},
                "qpu_slurm_controllers": {"hosts": {"controller": {}, "controller2": {}}},
                "qpu_slurm_nodes": {"hosts": {"c1": {}, "c2": {"qpu_slurm_configless": True}}},
                "qpu_slurm_submit": {"hosts": {}},
            },
        }

    def _vars(self, packages: Path, settings: dict[str, object]) -> dict[str, object]:
        return {
            "ansible_user": "root",
            "ansible_ssh_private_key_file": str(self._cluster.key),
            "ansible_python_interpreter": "/usr/bin/python3",
            "qpu_slurm_packages": str(packages),
            "qpu_slurm_configuration": str(self._directory / "config.toml"),
            "qpu_slurm_api_key": self._cluster.account.api_key,
            "qpu_slurm_gres_nodes": ["c1"],
            "qpu_slurm_licenses": "ibm_fez:1000",
        } | settings


@pytest.mark.timeout(3600)  # four hosts, and Ansible on them five times
@pytest.mark.parametrize("debs", ["trixie"], indirect=True)
def test_the_role_makes_a_cluster_and_changes_nothing_twice(debs: Debs, work: Path, ansible: Path) -> None:
    directory = work / "admin"
    directory.mkdir(mode=0o700)
    with Cluster(with_slurm(debs.release), work) as cluster:
        cluster.write("input.json", first_input())
        admin = Admin(ansible, cluster, directory)
        first = admin.play(debs.older)
        assert set(first) == set(ADDRESSES)
        assert all(counts["changed"] for counts in first.values())
        a_job_executes_a_task(cluster)
        no_lease_is_left(cluster)
        assert {counts["changed"] for counts in admin.play(debs.older).values()} == {0}

        # An upgrade, and the way back.
        upgraded = admin.play(debs.newer)
        assert all(counts["changed"] for counts in upgraded.values())
        a_job_executes_a_task(cluster)
        admin.play(debs.older, qpu_slurm_allow_downgrades=True)
        # A change of the configuration reaches a gateway that runs.
        configuration = directory / "config.toml"
        configuration.write_text(configuration.read_text() + '\n[[qpu]]\nname = "ibm_torino"\n')
        admin.play(debs.older, qpu_slurm_licenses="ibm_fez:1000,ibm_torino:1000")
        shown = cluster["c1"].run("qpu-slurm qpus --names")
        assert shown.output.split() == ["ibm_fez", "ibm_torino"], shown


def first_input() -> str:
    """Return the input of the guide's first job."""
    [job] = [block.text for block in blocks_of(GUIDE) if "cat >input.json" in block.text]
    return job.partition("<<'END'\n")[2].partition("END\n")[0]
