# SPDX-License-Identifier: Apache-2.0
"""Who is asking, told by a munged of our own."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from qpu_slurm.errors import UnavailableError
from qpu_slurm.system import munge

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MUNGED = shutil.which("munged", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


class Munged:
    """A munged that lives in one directory, with a key that no other has."""

    def __init__(self, directory: Path) -> None:
        assert MUNGED, "This needs munged. On Debian, as root: apt-get install munge"
        self.socket = directory / "socket"
        key = directory / "key"
        key.touch(mode=0o600)
        key.write_bytes(secrets.token_bytes(128))
        files = [f"--{name}-file={directory}/{name}" for name in ("key", "pid", "seed")]
        self._process = subprocess.Popen(
            [MUNGED, "--foreground", f"--socket={self.socket}", *files], stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 60
        while not self._listens():
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def _listens(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe, suppress(OSError):
            probe.connect(str(self.socket))
            return True
        return False

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(10)


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    # munged insists on a directory that everybody may enter.
    with tempfile.TemporaryDirectory(prefix="qpu_slurm-munge-") as directory:
        Path(directory).chmod(0o755)
        yield Path(directory)


@pytest.fixture(scope="module")
def munged(place: Path) -> Iterator[Munged]:
    munged = Munged(place)
    yield munged
    munged.stop()


@pytest.mark.parametrize("payload", [b"", b"GET /x 00", b"\0\xff\n", b"x" * 100_000])
def test_it_tells_who_made_a_credential(munged: Munged, payload: bytes) -> None:
    credential = munge.encode(payload, socket=munged.socket)
    assert munge.decode(credential, socket=munged.socket) == (os.geteuid(), os.getegid(), payload)


def test_each_is_good_for_one_time(munged: Munged) -> None:
    credential = munge.encode(b"once", socket=munged.socket)
    munge.decode(credential, socket=munged.socket)
    for _ in range(2):
        with pytest.raises(munge.ReplayedError, match="Replayed"):
            munge.decode(credential, socket=munged.socket)


def test_one_that_is_too_old_is_refused(munged: Munged) -> None:
    assert MUNGED
    make = [
        str(Path(MUNGED).parents[1] / "bin" / "munge"),
        f"--socket={munged.socket}",
        "--ttl=1",
        "--no-input",
    ]
    credential = subprocess.run(make, capture_output=True, text=True, check=True).stdout.strip()
    time.sleep(2.1)
    with pytest.raises(munge.ExpiredError):
        munge.decode(credential, socket=munged.socket)


FORGED: dict[str, Callable[[str], str]] = {
    "nothing": lambda _: "",
    "no text": lambda _: "MUNGE:\0:",
    "no ASCII": lambda _: "MUNGE:é:",
    "no credential": lambda _: "MUNGE:AwQDAAA=:",
    "another scheme": lambda credential: credential.removeprefix("MUNGE:"),
    "changed": lambda credential: (
        f"{credential[:-9]}{'B' if credential[-9] == 'A' else 'A'}{credential[-8:]}"
    ),
    "cut": lambda credential: credential[: len(credential) // 2] + ":",
    "long": lambda credential: credential * 10_000,
}


@pytest.mark.parametrize("how", FORGED)
def test_what_was_forged_is_refused_without_being_repeated(munged: Munged, how: str) -> None:
    forged = FORGED[how](munge.encode(b"x", socket=munged.socket))
    with pytest.raises(munge.InvalidError) as caught:
        munge.decode(forged, socket=munged.socket)
    assert not forged or forged not in str(caught.value)


def test_what_is_for_another_user_is_refused(munged: Munged) -> None:
    credential = munge.encode(b"x", socket=munged.socket, restrict_uid=os.geteuid() + 1)
    with pytest.raises(munge.InvalidError, match="Unauthorized"):
        munge.decode(credential, socket=munged.socket)


def test_what_another_cluster_made_is_refused(munged: Munged) -> None:
    with tempfile.TemporaryDirectory(prefix="qpu_slurm-munge-") as directory:
        Path(directory).chmod(0o755)
        other = Munged(Path(directory))
        credential = munge.encode(b"x", socket=other.socket)
        other.stop()
    with pytest.raises(munge.InvalidError):
        munge.decode(credential, socket=munged.socket)


def test_without_munged_it_is_unavailable(tmp_path: Path) -> None:
    for ask in (
        lambda: munge.encode(b"", socket=tmp_path / "x"),
        lambda: munge.decode("MUNGE:x:", socket=tmp_path / "x"),
    ):
        with pytest.raises(UnavailableError, match="Did you start munged"):
            ask()
