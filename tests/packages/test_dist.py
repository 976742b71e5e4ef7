# SPDX-License-Identifier: Apache-2.0
"""Wheels and sdists are the same each time, and a wheel from an sdist is the wheel from the checkout."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import zipfile
from typing import TYPE_CHECKING

import pytest

from tests.packages.root import CHECKOUT

if TYPE_CHECKING:
    from pathlib import Path


def build(directory: Path) -> dict[str, str]:
    """Build everything; return the files' checksums."""
    subprocess.run([str(CHECKOUT / "packages/dist"), str(directory)], check=True, timeout=600)
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in directory.iterdir()}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("dist")
    build(directory)
    return directory


def test_two_builds_are_the_same(built: Path, tmp_path: Path) -> None:
    first = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in built.iterdir()}
    assert len(first) == 5
    assert build(tmp_path) == first


@pytest.mark.parametrize("name", ["qpu_slurm", "qpu_slurm_devkit"])
def test_a_wheel_can_be_built_from_the_sdist(built: Path, tmp_path: Path, name: str) -> None:
    [sdist] = built.glob(f"{name}-*.tar.gz")
    subprocess.run(["/usr/bin/tar", "-x", "-f", str(sdist), "-C", str(tmp_path)], check=True, timeout=60)
    [source] = tmp_path.iterdir()
    build_wheel = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build_wheel, cwd=source, check=True, timeout=300)
    [again] = tmp_path.glob(f"{name}-*.whl")
    assert contents(again) == contents(built / again.name)


def contents(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_the_bill_of_materials_has_what_is_installed_with_hashes(built: Path) -> None:
    [path] = built.glob("*.cdx.json")
    bill = json.loads(path.read_text())
    assert bill["bomFormat"] == "CycloneDX"
    assert bill["metadata"]["component"]["name"] == "qpu_slurm"
    components = {component["name"]: component for component in bill["components"]}
    assert {"aiohttp", "msgspec", "requests"} <= set(components)
    assert all(reference["hashes"] for reference in components["msgspec"]["externalReferences"])
