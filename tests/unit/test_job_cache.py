# SPDX-License-Identifier: Apache-2.0
"""What a job keeps on a node is its own user's, whoever else writes to /tmp."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import pytest

from qpu_slurm.job import cache as cache_module
from qpu_slurm.job.cache import JobCache

if TYPE_CHECKING:
    from pathlib import Path

OTHER = 12345


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return {"SLURM_JOB_ID": "42", "TMPDIR": str(tmp_path)}


@pytest.fixture
def cache(environ: dict[str, str]) -> JobCache:
    return JobCache(environ, "https://service", "crn", "ibm_fez")


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / f"qpu_slurm-cache-{os.geteuid()}"


def test_a_document_is_there_for_the_jobs_later_steps(cache: JobCache, environ: dict[str, str]) -> None:
    assert cache.read("a.json") is None

    cache.write("a.json", b"one")
    cache.write("b.json", b"two")
    cache.write("a.json", b"three")

    again = JobCache(environ, "https://service", "crn", "ibm_fez")
    assert (again.read("a.json"), again.read("b.json")) == (b"three", b"two")


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("SLURM_JOB_ID", "43"),
        ("SLURM_RESTART_COUNT", "1"),
        ("SLURM_JOB_START_TIME", "7"),
        ("SLURM_CLUSTER_NAME", "x"),
    ],
)
def test_another_job_does_not_see_it(
    cache: JobCache, environ: dict[str, str], variable: str, value: str
) -> None:
    cache.write("a.json", b"one")

    assert JobCache(environ | {variable: value}, "https://service", "crn", "ibm_fez").read("a.json") is None
    assert JobCache(environ, "https://service", "crn", "ibm_torino").read("a.json") is None


def test_nothing_is_kept_outside_of_a_job(tmp_path: Path) -> None:
    cache = JobCache({"TMPDIR": str(tmp_path)}, "ibm_fez")

    cache.write("a.json", b"one")

    assert cache.read("a.json") is None
    assert list(tmp_path.iterdir()) == []


def test_only_the_user_may_read_and_write(cache: JobCache, directory: Path) -> None:
    cache.write("a.json", b"one")

    assert directory.stat().st_mode & 0o7777 == 0o700
    (file,) = directory.iterdir()
    assert file.stat().st_mode & 0o7777 == 0o600


def test_a_directory_that_others_may_enter_is_not_used(cache: JobCache, directory: Path) -> None:
    cache.write("a.json", b"one")
    directory.chmod(0o755)

    assert cache.read("a.json") is None
    cache.write("b.json", b"two")
    assert len(list(directory.iterdir())) == 1


def test_a_directory_that_is_a_link_is_not_used(cache: JobCache, directory: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    directory.symlink_to(elsewhere)

    cache.write("a.json", b"one")

    assert cache.read("a.json") is None
    assert list(elsewhere.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="needs a second user")
def test_what_is_another_users_is_not_used(cache: JobCache, directory: Path) -> None:
    cache.write("a.json", b"one")
    (file,) = directory.iterdir()
    os.chown(file, OTHER, OTHER)
    assert cache.read("a.json") is None

    os.chown(file, 0, 0)
    os.chown(directory, OTHER, OTHER)
    assert cache.read("a.json") is None
    cache.write("b.json", b"two")
    assert list(directory.iterdir()) == [file]


def test_a_document_that_is_a_link_or_a_pipe_is_not_followed(
    cache: JobCache, directory: Path, tmp_path: Path
) -> None:
    cache.write("a.json", b"one")
    (file,) = directory.iterdir()
    target = tmp_path / "target"
    target.write_bytes(b"precious")
    file.unlink()
    file.symlink_to(target)
    assert cache.read("a.json") is None

    cache.write("a.json", b"two")
    assert (cache.read("a.json"), target.read_bytes()) == (b"two", b"precious")

    file.unlink()
    os.mkfifo(file)
    assert cache.read("a.json") is None  # and nobody waits for a writer


def test_what_is_too_old_or_too_big_is_not_used(
    cache: JobCache, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.write("a.json", b"one")
    (file,) = directory.iterdir()
    long_ago = time.time() - cache_module.MAX_AGE - 1
    os.utime(file, (long_ago, long_ago))
    assert cache.read("a.json") is None

    cache.write("b.json", b"two")  # which removes what is old
    assert file not in set(directory.iterdir())

    monkeypatch.setattr(cache_module, "MAX_FILE", 2)
    assert cache.read("b.json") is None
    cache.write("c.json", b"three")
    assert len(list(directory.iterdir())) == 1


def test_the_oldest_go_when_there_is_too_much(
    cache: JobCache, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_module, "MAX_TOTAL", 250)
    now = time.time()
    for age, name in ((30, "a"), (20, "b")):
        cache.write(name, bytes(100))
        (newest,) = (file for file in directory.iterdir() if file.name.endswith(f"-{name}"))
        os.utime(newest, (now - age, now - age))

    cache.write("c", bytes(100))

    assert [cache.read(name) is not None for name in "abc"] == [False, True, True]


def test_a_disk_that_takes_nothing_is_no_error(cache: JobCache, environ: dict[str, str]) -> None:
    missing = JobCache(environ | {"TMPDIR": "/proc/nowhere"}, "ibm_fez")
    missing.write("a.json", b"one")
    assert missing.read("a.json") is None

    cache.write("x/../../a.json", b"one")  # no directory of that name
    assert cache.read("x/../../a.json") is None
